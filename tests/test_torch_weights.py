import json
import os
import pickle
import re

import numpy as np
import pytest

from configs import cityscapes, common
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.layers import InitialValues
from ovenet_jax.models.zoo import create_model
from ovenet_jax.torch_weights import (
    fill,
    holds_backbone_only,
    read_pth,
    rename,
    why_ignored,
)
from tests.conftest import SHARED
from tests.published_keys import load_state_dict, published

FAMILY = re.compile("(ovenet|thesis|hrnet_w|hrnetv2_w48_imagenet)")
MANIFESTS = [
    path for path in sorted((SHARED / "goldens" / "manifests").glob("*.json")) if FAMILY.match(path.name)
]


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
def test_published_keys_have_our_names(key, name):
    assert rename(key) == name


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("model.stage4.0.branches.0.0.bn1.num_batches_tracked", "BatchNorm's step counters"),
        ("module.model.coords", "stored pixel grid"),
        ("loss.criterion.weight", "class weights of the loss"),
        ("downsamp_modules.0.0.weight", "ImageNet classification head"),
        ("classifier.bias", "ImageNet classification head"),
        ("classifier.4.bias", None),
        ("cls_head.bias", None),
    ],
)
def test_what_is_ignored_has_a_reason(key, reason):
    assert why_ignored(key) == reason


def plain_hrnet(tiny_model):
    """HRNet with the plain head, and its arrays by name."""
    del tiny_model.offset
    tiny_model.head = common.fcn()
    model = create_model(tiny_model)
    _, params, statistics = parameters.split(model)
    return model, params | statistics


def test_a_whole_published_network_is_taken_over(tiny_model):
    model, arrays = plain_hrnet(tiny_model)
    doubled = {name: 2 * value for name, value in arrays.items()}
    loaded = load_state_dict(model, published(doubled, prefix="model."), "weights.pth")
    _, params, statistics = parameters.split(loaded)
    for name, value in (params | statistics).items():
        np.testing.assert_array_equal(value, doubled[name], err_msg=name)


def test_everything_that_does_not_fit_is_listed_at_once(tiny_model):
    model, _ = plain_hrnet(tiny_model)
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


def test_two_keys_for_one_array_are_both_named(tiny_model):
    model, _ = plain_hrnet(tiny_model)
    state_dict = {"conv1.weight": np.zeros((8, 3, 3, 3)), "model.conv1.weight": np.zeros((8, 3, 3, 3))}
    with pytest.raises(
        UserError, match="model.conv1.weight and conv1.weight are both backbone.conv1.conv.kernel"
    ):
        load_state_dict(model, state_dict, "weights.pth")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1, 2], "bn1.bias holds int64, not floating-point numbers"),
        ([1.0, np.nan], "bn1.bias holds numbers that are not finite"),
        ([1.0, 1e300], "bn1.bias holds numbers that are not finite"),  # in float32
    ],
)
def test_values_that_no_network_has_are_refused(values, sentence):
    expected = {"backbone.conv1.norm.bias": np.zeros(2, np.float32)}
    with pytest.raises(UserError, match=sentence):
        fill(expected, {"bn1.bias": np.asarray(values)}, "weights.pth")


def test_half_precision_is_widened():
    expected = {"backbone.conv1.norm.bias": np.zeros(2, np.float32)}
    filled = fill(expected, {"bn1.bias": np.asarray([1.5, 0.1], np.float16)}, "weights.pth")
    assert filled["backbone.conv1.norm.bias"].dtype == np.float32
    np.testing.assert_array_equal(filled["backbone.conv1.norm.bias"], np.float16([1.5, 0.1]))


def test_a_backbone_alone_is_recognised():
    backbone = ["conv1.weight", "layer1.0.bn1.weight", "stage2.0.branches.0.0.bn1.num_batches_tracked"]
    assert holds_backbone_only([*backbone, "final_layer.1.bias", "classifier.weight"])
    assert not holds_backbone_only([*backbone, "last_layer.0.weight"])


needs_goldens = pytest.mark.skipif(not MANIFESTS, reason=f"no {SHARED.name}/goldens beside the project")


@needs_goldens
@pytest.mark.parametrize("manifest", MANIFESTS or [None], ids=lambda path: path and path.stem)
def test_every_key_of_a_full_size_checkpoint_lands(manifest, monkeypatch):
    # Only shapes are asked for, and drawing a hundred million values takes seconds.
    monkeypatch.setattr(
        InitialValues, "backbone_kernel", lambda _, shape: np.broadcast_to(np.float32(0), shape)
    )
    monkeypatch.setattr(InitialValues, "default", lambda _, shape, *__: np.broadcast_to(np.float32(0), shape))
    content = json.loads(manifest.read_text())
    _, params, statistics = parameters.split(create_model(full_size(content)))
    expected = {name: value.shape for name, value in {**params, **statistics}.items()}
    keys = content["keys"] | content.get("additional_keys_in_training_checkpoints", {})
    found = {}
    for key, shape in keys.items():
        if why_ignored(key) is None:
            assert rename(key) not in found, f"{key} is the second for {rename(key)}"
            found[rename(key)] = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else tuple(shape)
    if holds_backbone_only(keys):
        assert "imagenet" in content["name"]
        assert found == {name: shape for name, shape in expected.items() if name.startswith("backbone.")}
    else:
        assert found == expected
        assert sum(value.size for value in params.values()) == content["params_without_coords"]


@needs_goldens
def test_there_are_manifests():
    assert len(MANIFESTS) == 17


def full_size(manifest):
    """The config of the network that a manifest lists the keys of."""
    name = manifest["name"]
    has_offsets, has_ocr = "offset_branch" in manifest, "ocr" in name
    model = cityscapes.get_config("ovenet" if has_offsets else "hrnet").model
    model.head = common.ocr() if has_ocr else common.fcn()
    model.num_classes = manifest.get("num_classes", 19)
    model.backbone.width = int(re.search(r"w(\d+)", name)[1])
    if "stages" in manifest:
        first, *stages = (manifest["stages"][f"STAGE{number}"] for number in (1, 2, 3, 4))
        model.backbone.layer1_blocks, model.backbone.layer1_width = (
            first["NUM_BLOCKS"][0],
            first["NUM_CHANNELS"][0],
        )
        model.backbone.width, model.backbone.blocks = stages[0]["NUM_CHANNELS"][0], stages[0]["NUM_BLOCKS"][0]
        model.backbone.modules = tuple(stage["NUM_MODULES"] for stage in stages)
    if has_offsets:
        model.offset.branch = manifest["offset_branch"]
        modules = {"2": 1, "3": 3, "4": 2}  # stage2_2, stage3_2, stage4_2 as published
        model.offset.modules = tuple(modules[stage] for stage in "234" if int(stage) >= model.offset.branch)
    return model


def goldens_with_pth():
    return sorted(path.parent for path in (SHARED / "goldens").glob("0*/weights.pth"))


@needs_goldens
@pytest.mark.parametrize("folder", goldens_with_pth() or [None], ids=lambda path: path and path.name)
@pytest.mark.usefixtures("torch")
def test_a_pth_file_reads_as_the_same_arrays_as_its_npz(folder):
    arrays = np.load(folder / "weights.npz")
    state_dict = read_pth(folder / "weights.pth")
    assert state_dict.keys() == set(arrays.files)
    for key, value in state_dict.items():
        np.testing.assert_array_equal(value, arrays[key])


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: .pth files cannot be read here")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_old_and_new_files_plain_or_of_a_training_are_read(torch, tmp_path, wrapped, zipped):
    state_dict = {"bn1.weight": torch.nn.Parameter(torch.arange(3.0))}
    content = {"epoch": 3, "state_dict": state_dict} if wrapped else state_dict
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    read = read_pth(tmp_path / "weights.pth")
    assert read.keys() == {"bn1.weight"}
    np.testing.assert_array_equal(read["bn1.weight"], [0, 1, 2])


NOT_READ = r"cannot be read as a PyTorch checkpoint \(\w+\); check that it is a whole .pth file"


@pytest.mark.parametrize("content", [b"", b"no zip file", b"<!DOCTYPE html>", b"PK\x03\x04" + bytes(100)])
@pytest.mark.usefixtures("torch")
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(UserError, match=f"broken.pth {NOT_READ}"):
        read_pth(tmp_path / "broken.pth")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_file_is_named(torch, tmp_path, zipped):
    file = tmp_path / "cut.pth"
    torch.save({"bn1.weight": torch.zeros(1000)}, file, _use_new_zipfile_serialization=zipped)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UserError, match=f"cut.pth {NOT_READ}"):
        read_pth(file)


class Harmful:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_file_is_named_and_not_run(torch, tmp_path, zipped):
    trace = tmp_path / "trace"
    torch.save({"bn1": Harmful(trace)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        UserError, match=r"w.pth holds Python objects \(posix.mkdir\), and loading those would run"
    ):
        read_pth(tmp_path / "w.pth")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harmful(trace)))  # what would have happened
    assert trace.exists()


def test_a_whole_pickled_network_is_refused_with_its_class(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth")
    with pytest.raises(UserError, match=r"holds Python objects \(torch.nn.modules.linear.Linear\)"):
        read_pth(tmp_path / "network.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": [1]}, {"bn1.weight": {"a": 1}}])
def test_a_checkpoint_without_a_state_dict_is_named(torch, tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth holds no state dict"):
        read_pth(tmp_path / "w.pth")


@pytest.mark.usefixtures("torch")
def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.pth is no file"):
        read_pth(tmp_path / "nowhere.pth")
