import json
import re

import pytest

from configs import cityscapes, common, openseg
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.weights.published_keys import HRNET, OCNET, OPENSEG_HRNET, OPENSEG_RESNET, state_dict
from ovenet_jax.weights.published_names import CODE_BASES, describe, recognise, title_of_config, why_ignored
from ovenet_jax.weights.torch_weights import in_place_abn, matched
from tests.places import SHARED
from tests.published_keys import arrays_of

IMAGENET_RESNET, MMSEG = CODE_BASES["imagenet_resnet"], CODE_BASES["mmsegmentation"]
TIMM_DEEP_STEM = CODE_BASES["timm_deep_stem"]
BLOCK = "decode_head.1.object_context_block"
MANIFESTS = sorted((SHARED / "goldens" / "manifests").glob("*.json"))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model.conv1.weight", "backbone.conv1.conv.kernel"),
        ("bn2.running_var", "backbone.conv2.norm.var"),
        ("module.model.layer1.0.downsample.1.weight", "backbone.layer1.0.downsample.norm.scale"),
        ("transition1.0.0.weight", "backbone.trunk.transition1.0.conv.kernel"),
        ("transition3_2.3.0.1.bias", "offset_trunk.transition3.3.norm.bias"),
        ("stage4.2.branches.1.3.bn2.running_mean", "backbone.trunk.stage4.2.branches.1.3.conv2.norm.mean"),
        ("stage4_2.0.fuse_layers.0.3.0.weight", "offset_trunk.stage4.0.fuse_layers.0.3.conv.kernel"),
        ("stage3.0.fuse_layers.2.0.1.1.bias", "backbone.trunk.stage3.0.fuse_layers.2.0.1.norm.bias"),
        ("last_layer.3.bias", "head.classifier.output.bias"),
        ("aux_head.0.weight", "head.aux.hidden.conv.kernel"),
        ("aux_head_offset.1.weight", "offset_head.classifier.hidden.norm.scale"),
        ("model.offset_layer.3.bias", "offset_head.classifier.output.bias"),
        ("cls_head.weight", "head.classifier.kernel"),
        ("ocr_distri_head.object_context_block.f_pixel.3.0.weight", "head.attention.query.1.norm.scale"),
        ("ocr_distri_head.object_context_block.f_up.0.weight", "head.attention.output.0.conv.kernel"),
        ("ocr_distri_head.conv_bn_dropout.1.0.bias", "head.fusion.norm.bias"),
    ],
)
def test_arrays_have_the_keys_of_hrnet_and_ovenet(key, name):
    assert HRNET.plain(key) in keys_of(HRNET, name)


def keys_of(code_base, name):
    """With any head."""
    return {code_base.key(name, title) for title in ("", *code_base.heads)}


@pytest.mark.parametrize(
    ("code_base", "key", "name"),
    [
        (OPENSEG_RESNET, "module.backbone.resinit.bn3.weight", "backbone.conv3.norm.scale"),
        (OPENSEG_RESNET, "backbone.layer1.0.bn1.bias", "backbone.trunk.layer1.0.conv1.norm.bias"),
        (OPENSEG_HRNET, "backbone.layer1.0.bn1.bias", "backbone.layer1.0.conv1.norm.bias"),
        (IMAGENET_RESNET, "layer4.2.conv3.weight", "backbone.trunk.layer4.2.conv3.conv.kernel"),
        (OPENSEG_RESNET, "oc_module_pre.1.0.running_var", "head.pixels.norm.var"),  # the plain form of BatchNorm
        (OPENSEG_RESNET, "oc_module_pre.1.running_var", "head.pixels.norm.var"),  # in-place ABN
        (OPENSEG_RESNET, "context.2.context.2.conv_bn_dropout.0.weight", "head.context_norm.scale"),
        (OPENSEG_RESNET, "context.2.context.2.conv_bn_dropout.0.0.weight", "head.context_norm.scale"),
        (OCNET, "context.2.context.2.conv_bn_dropout.0.weight", "head.context_conv.kernel"),
        (OCNET, "context.2.context.2.conv_bn_dropout.1.weight", "head.context_norm.scale"),
        (OPENSEG_RESNET, "oc_module.stages.0.f_query.2.bias", "head.attention.query.1.conv.bias"),
        (OCNET, "context.stages.3.f_query.0.bias", "head.attentions.3.key.0.conv.bias"),
        (OPENSEG_RESNET, "asp_ocr_head.conv5.1.0.bias", "head.pyramid.branches.3.norm.bias"),
        (OPENSEG_RESNET, "isa_head.2.stages.0.long_range_sa.W.1.bias", "head.attentions.0.long_range.output.norm.bias"),
        (OPENSEG_RESNET, "cls_head.bias", "head.classifier.bias"),
        (OPENSEG_RESNET, "cls_head.3.weight", "head.classifier.output.kernel"),
        (OPENSEG_HRNET, "aux_head.2.bias", "head.aux.output.bias"),
        (OPENSEG_HRNET, "module.dir_head.1.running_var", "direction_head.hidden.norm.var"),
        (OPENSEG_HRNET, "mask_head.2.weight", "boundary_head.output.kernel"),
        (OPENSEG_HRNET, "backbone.transition0.1.0.1.bias", "backbone.trunk.transition0.1.norm.bias"),
        (MMSEG, "backbone.stage2.0.branches.0.0.bn1.weight", "backbone.trunk.stage2.0.branches.0.0.conv1.norm.scale"),
        (MMSEG, "decode_head.convs.0.conv.weight", "head.classifier.hidden.conv.kernel"),
        (MMSEG, "decode_head.conv_seg.bias", "head.classifier.output.bias"),
        (MMSEG, "decode_head.0.convs.0.bn.running_var", "head.aux.hidden.norm.var"),
        (MMSEG, "decode_head.1.bottleneck.conv.weight", "head.pixels.conv.kernel"),
        (MMSEG, f"{BLOCK}.query_project.1.bn.bias", "head.attention.query.1.norm.bias"),
        (MMSEG, f"{BLOCK}.value_project.conv.weight", "head.attention.value.0.conv.kernel"),
        (MMSEG, f"{BLOCK}.out_project.bn.weight", "head.attention.output.0.norm.scale"),
        (MMSEG, f"{BLOCK}.bottleneck.bn.running_mean", "head.fusion.norm.mean"),
        (TIMM_DEEP_STEM, "conv1.0.weight", "backbone.conv1.conv.kernel"),
        (TIMM_DEEP_STEM, "conv1.4.bias", "backbone.conv2.norm.bias"),
        (TIMM_DEEP_STEM, "bn1.weight", "backbone.conv3.norm.scale"),
        (IMAGENET_RESNET, "encoder.layer1.0.bn2.bias", "backbone.trunk.layer1.0.conv2.norm.bias"),
        (HRNET, "encoder.model.layer1.0.bn2.bias", "backbone.layer1.0.conv2.norm.bias"),
    ],
)  # fmt: skip
def test_arrays_have_the_keys_of_other_code_bases(code_base, key, name):
    assert code_base.plain(key) in keys_of(code_base, name)


@pytest.mark.parametrize(
    ("keys", "code_base"),
    [
        (["conv1.weight", "layer1.0.conv1.weight", "stage2.0.branches.0.0.bn1.bias"], HRNET),
        (["module.backbone.layer1.0.conv1.weight", "module.backbone.stage2.0.bn1.bias"], OPENSEG_HRNET),
        (["backbone.layer1.0.conv1.weight", "backbone.layer2.0.conv1.weight", "cls.weight"], OPENSEG_RESNET),
        (["layer1.0.conv1.weight", "layer2.0.conv1.weight", "cls.weight", "dsn.0.bias"], OCNET),
        (["layer1.0.conv1.weight", "layer2.0.conv1.weight", "fc.weight"], IMAGENET_RESNET),
    ],
)
def test_a_code_base_is_told_by_its_keys(keys, code_base):
    assert recognise(keys) is code_base


@pytest.mark.parametrize(
    ("head", "title"),
    [
        ("fcn", "a plain head"),
        ("ocr", "OCR in openseg's form"),
        ("asp_ocr", "ASP-OCR"),
        ("base_oc", "Base-OC"),
        ("asp_oc", "ASP-OC"),
        ("isa", "ISA"),
        ("ocnet_base_oc", "Base-OC of the first release"),
        ("ocnet_asp_oc", "ASP-OC of the first release"),
        ("pyramid_oc", "Pyramid-OC"),
    ],
)
def test_a_network_is_described_by_its_arrays_and_by_their_keys(tiny_model, head, title):
    tiny_model.backbone, tiny_model.head = openseg.network(head, "r_tiny")
    del tiny_model.offset
    check_description(tiny_model, title, f"ResNet (1, 1, 1, 1), {title}")


def test_an_ovenet_is_described_with_its_offsets(tiny_model):
    tiny_model.backbone.modules = (1, 1, 2)
    title = "OCR in HRNet's own form"
    check_description(tiny_model, title, f"HRNet (1, 1, 2), {title}, offsets")


def test_a_segfix_is_described_by_its_heads_and_stages():
    model = cityscapes.get_config("segfix_hx20").model
    model.backbone.update({"width": 4, "blocks": 1, "layer1_width": 4, "modules": (1, 2, 1)})
    title = "boundaries and directions"
    check_description(model, title, f"HRNet (1, 1, 2, 1), {title}")


def check_description(model, title, description):
    names, keys = list(arrays_of(create_model(model))), keys_of_network(model)
    assert recognise(keys).title_of(keys) == title_of_config(model.head) == title
    assert describe(names, title) == describe(keys, title) == description


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda keys: [*keys, "context.2.conv2.0.weight"], "cls, context, dsn, oc_module, oc_module_pre"),
        (lambda keys: [key for key in keys if ".conv_bn_dropout." not in key], "cls, dsn, oc_module, oc_module_pre"),
    ],
)
def test_a_head_that_is_not_known_is_no_other(tiny_model, change, parts):
    """Though it has all that Base-OC has, or most; and a config that names it is no file's."""
    tiny_model.backbone, tiny_model.head = openseg.network("base_oc", "r_tiny")
    del tiny_model.offset
    keys = change(keys_of_network(tiny_model))
    assert recognise(keys).title_of(keys) == f"unknown parts ({parts})"
    tiny_model.head.name = "new"
    assert title_of_config(tiny_model.head) == "the head 'new'"
    assert HRNET.title_of([]) == HRNET.title_of(["conv1.weight", "aux_head_offset.0.weight"]) == ""


def keys_of_network(model_config):
    return list(state_dict(model_config, arrays_of(create_model(model_config)), steps=7))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("model.stage4.0.branches.0.0.bn1.num_batches_tracked", "BatchNorm's step counters"),
        ("module.model.coords", "stored pixel grid"),
        ("loss.criterion.weight", "class weights of the loss"),
        ("model.criterion.weight", "class weights of the loss"),
        ("steps", "counter of averaged networks"),  # of mmengine
        ("downsamp_modules.0.0.weight", "ImageNet classification head"),
        ("classifier.bias", "ImageNet classification head"),
        ("fc.weight", "ImageNet classification head"),
        ("classifier.4.bias", None),
        ("cls_head.bias", None),
    ],
)
def test_what_is_ignored_has_a_reason(key, reason):
    assert why_ignored(key) == reason


needs_goldens = pytest.mark.skipif(not MANIFESTS, reason=f"no {SHARED.name}/goldens beside the project")


@needs_goldens
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("manifest", MANIFESTS or [None], ids=lambda path: path and path.stem)
def test_every_key_of_a_full_size_checkpoint_lands(manifest):
    content = json.loads(manifest.read_text())
    _, params, statistics = parameters.split(create_model(full_size(content)))
    expected = {name: value.shape for name, value in {**params, **statistics}.items()}
    keys = content["keys"] | content.get("additional_keys_in_training_checkpoints", {})
    code_base, names, found = recognise(keys), matched(expected, keys), {}
    assert names.keys() == {key for key in keys if why_ignored(key) is None}
    for key, name in names.items():
        shape, twice = keys[key], code_base is OCNET and ".f_query." in key
        assert (name in found) == twice, key
        found[name] = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else tuple(shape)
    if "imagenet" in content["name"]:
        assert found == {name: shape for name, shape in expected.items() if name.startswith("backbone.")}
        assert code_base.title_of(keys) == ""
    else:
        assert found == expected
        assert sum(value.size for value in params.values()) == content["params_without_coords"]
    folded = {names[key].partition(".")[0] for key in in_place_abn(keys)}
    assert folded == parts_with_in_place_abn(content["name"])


@needs_goldens
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("manifest", MANIFESTS or [None], ids=lambda path: path and path.stem)
def test_every_array_of_a_full_size_network_has_its_published_key(manifest):
    """And its shape; but for OVeNet's stored pixel grid, and the classifier of ImageNet weights."""
    content = json.loads(manifest.read_text())
    model, imagenet = full_size(content), "imagenet" in content["name"]
    arrays = arrays_of(create_model(model))
    arrays = {name: x for name, x in arrays.items() if name.startswith("backbone.") or not imagenet}
    found = {key: list(value.shape) for key, value in state_dict(model, arrays, steps=7).items()}
    extra = r"coords$" + r"|(incre_modules|downsamp_modules|final_layer|classifier)\." * imagenet
    assert found == {key: shape for key, shape in content["keys"].items() if not re.match(extra, key)}


@needs_goldens
def test_there_are_manifests():
    assert len(MANIFESTS) == 34


OPENSEG = {
    "openseg_fcnet": ("fcn", "r101"),
    "openseg_spatial_ocrnet": ("ocr", "r101"),
    "openseg_spatial_asp_ocrnet": ("asp_ocr", "r101"),
    "openseg_base_ocnet": ("base_oc", "r101"),
    "openseg_asp_ocnet": ("asp_oc", "r101"),
    "openseg_isanet": ("isa", "r101"),
    "openseg_hrnet_w48": ("fcn", "w48"),
    "openseg_hrnet_w48_ocr": ("ocr", "w48"),
    "openseg_hrnet_w48_asp_ocr": ("asp_ocr", "w48"),
    "ocnet_first_release_resnet101_base_oc": ("ocnet_base_oc", "r101"),
    "ocnet_first_release_resnet101_asp_oc": ("ocnet_asp_oc", "r101"),
    "ocnet_first_release_resnet101_pyramid_oc": ("ocnet_pyramid_oc", "r101"),
}


def parts_with_in_place_abn(name):
    """openseg's HRNet backbone has in-place ABN even under plain heads."""
    if name.startswith("openseg_segfix"):
        return {"backbone", "boundary_head", "direction_head"}
    if name.removesuffix("_torchsyncbn") not in OPENSEG:
        return set()
    if name.endswith("_torchsyncbn"):
        return {"backbone"} if "hrnet" in name else set()
    return {"backbone", "head"}


def full_size(manifest):
    """The config of the network that a manifest lists the keys of."""
    name = manifest["name"]
    has_offsets, has_ocr = "offset_branch" in manifest, "ocr" in name
    if name.startswith("openseg_segfix"):
        return cityscapes.get_config("segfix_hx20" if "2x" in name else "segfix_w48").model
    model = cityscapes.get_config("ovenet" if has_offsets else "hrnet").model
    model.num_classes = manifest.get("num_classes", 19)
    if name.removesuffix("_torchsyncbn") in OPENSEG:
        model.backbone, model.head = openseg.network(*OPENSEG[name.removesuffix("_torchsyncbn")])
        model.input.bgr = True
        if name.endswith("_torchsyncbn"):
            model.head.activation = model.head.aux.activation = "relu"
        return model
    model.head = common.ocr() if has_ocr else common.fcn()
    model.backbone.width = int(re.search(r"w(\d+)", name)[1])
    if "stages" in manifest:
        first, *stages = (manifest["stages"][f"STAGE{number}"] for number in (1, 2, 3, 4))
        model.backbone.layer1_blocks, model.backbone.layer1_width = (first["NUM_BLOCKS"][0], first["NUM_CHANNELS"][0])
        model.backbone.width, model.backbone.blocks = stages[0]["NUM_CHANNELS"][0], stages[0]["NUM_BLOCKS"][0]
        model.backbone.modules = tuple(stage["NUM_MODULES"] for stage in stages)
    if has_offsets:
        model.offset.branch = manifest["offset_branch"]
        modules = {"2": 1, "3": 3, "4": 2}  # stage2_2, stage3_2, stage4_2 as published
        model.offset.modules = tuple(modules[stage] for stage in "234" if int(stage) >= model.offset.branch)
    return model
