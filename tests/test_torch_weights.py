import json

import numpy as np
import pytest

from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.torch_weights import IGNORED, load_state_dict, read_pth, rename
from tests.conftest import SHARED

MANIFESTS = sorted((SHARED / "goldens" / "manifests").glob("ovenet_hrnet_w48_ocr_*.json")) + sorted(
    (SHARED / "goldens" / "manifests").glob("hrnet_w48_*.json")
)


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
        ("cls_head.weight", "head.classifier.kernel"),
        ("ocr_distri_head.object_context_block.f_pixel.3.0.weight", "head.attention.query.1.norm.scale"),
        ("ocr_distri_head.object_context_block.f_up.0.weight", "head.attention.output.0.conv.kernel"),
        ("ocr_distri_head.conv_bn_dropout.1.0.bias", "head.fusion.norm.bias"),
    ],
)
def test_published_keys_have_our_names(key, name):
    assert rename(key) == name


def published(tiny_model):
    """A state dict in the published form (a few keys of it suffice here) and its model: HRNet with the plain head."""
    del tiny_model.offset
    tiny_model.head = {"name": "fcn"}
    model = create_model(tiny_model)
    _, params, statistics = parameters.split(model)
    return model, params, statistics


def test_everything_that_does_not_fit_is_listed_at_once(tiny_model):
    model, *_ = published(tiny_model)
    state_dict = {"conv1.weight": np.zeros((8, 3, 5, 5), np.float32), "surprise.weight": np.zeros(3)}
    with pytest.raises(UserError) as error:
        load_state_dict(model, state_dict, "weights.pth")
    message = str(error.value)
    assert message.startswith("weights.pth does not fit the configured model (")
    assert "surprise.weight has no target" in message
    assert "nothing fills backbone.conv2.conv.kernel (3, 3, 8, 8)" in message
    assert (
        "conv1.weight has shape (5, 5, 3, 8) (channels last), backbone.conv1.conv.kernel needs (3, 3, 3, 8)"
        in message
    )


needs_goldens = pytest.mark.skipif(not MANIFESTS, reason=f"no {SHARED.name}/goldens beside the project")


@needs_goldens
@pytest.mark.parametrize("manifest", MANIFESTS or [None], ids=lambda path: path and path.stem)
def test_every_key_of_a_full_size_checkpoint_lands(manifest):
    content = json.loads(manifest.read_text())
    model = create_model(full_size(content))
    _, params, statistics = parameters.split(model)
    expected = {name: value.shape for name, value in {**params, **statistics}.items()}
    found = {}
    for key, shape in content["keys"].items():
        if not IGNORED.search(key):
            assert rename(key) not in found, f"{key} is the second for {rename(key)}"
            found[rename(key)] = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else tuple(shape)
    assert found == expected
    assert sum(value.size for value in params.values()) == content["params_without_coords"]


@needs_goldens
def test_there_are_manifests():
    assert len(MANIFESTS) >= 10


def full_size(manifest):
    from configs import cityscapes

    name = manifest["name"]
    variant = "ovenet" if name.startswith("ovenet") else "hrnet_ocr" if "ocr" in name else "hrnet"
    model = cityscapes.get_config(variant).model
    model.num_classes = manifest["num_classes"]
    if variant == "ovenet":
        model.offset.branch = manifest["offset_branch"]
        modules = {"2": 1, "3": 3, "4": 2}  # stage2_2, stage3_2, stage4_2 as published
        model.offset.modules = tuple(modules[stage] for stage in "234" if int(stage) >= model.offset.branch)
    return model


def goldens_with_pth():
    return sorted(path.parent for path in (SHARED / "goldens").glob("0*/weights.pth"))


@needs_goldens
@pytest.mark.parametrize("folder", goldens_with_pth() or [None], ids=lambda path: path and path.name)
def test_a_pth_file_reads_as_the_same_arrays_as_its_npz(folder):
    pytest.importorskip("torch", reason="PyTorch is not installed: .pth files cannot be read here")
    arrays = np.load(folder / "weights.npz")
    state_dict = read_pth(folder / "weights.pth")
    assert state_dict.keys() == set(arrays.files)
    for key, value in state_dict.items():
        np.testing.assert_array_equal(value, arrays[key])


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_state_dict_is_named(tmp_path, content):
    pytest.importorskip("torch", reason="PyTorch is not installed: .pth files cannot be read here")
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(UserError, match="broken.pth cannot be read as a PyTorch state dict"):
        read_pth(tmp_path / "broken.pth")


def test_two_keys_for_one_array_are_both_named(tiny_model):
    model, *_ = published(tiny_model)
    state_dict = {"conv1.weight": np.zeros((8, 3, 3, 3)), "model.conv1.weight": np.zeros((8, 3, 3, 3))}
    with pytest.raises(
        UserError, match="model.conv1.weight and conv1.weight are both backbone.conv1.conv.kernel"
    ):
        load_state_dict(model, state_dict, "weights.pth")
