"""Imports of checkpoints as PyTorch writes them, made from a tiny network's own arrays."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import ovenet_jax
from configs import demo, openseg
from ovenet_jax.errors import UserError
from ovenet_jax.import_weights import import_weights
from ovenet_jax.run import workdir
from ovenet_jax.weights.torch_weights import in_place_abn
from tests import command_line
from tests.places import ROOT
from tests.published_keys import arrays_of, assert_same, published, trained, write_pth

pytestmark = pytest.mark.usefixtures("torch")

IMAGENET_HEAD = {
    "incre_modules.0.0.bn1.num_batches_tracked": np.asarray(7),
    "final_layer.0.weight": np.zeros((8, 4, 1, 1), np.float32),
    "classifier.weight": np.zeros((10, 8), np.float32),
}


@pytest.fixture
def config(tiny_model):
    config = demo.get_config("ovenet")
    config.model = tiny_model
    return config


def test_a_training_checkpoint_comes_back_as_our_network(config, tmp_path, capsys):
    arrays = trained(config.model)
    state_dict = published(arrays, config.model, prefix="model.")
    state_dict |= {"model.coords": np.zeros((2, 4, 4, 2)), "loss.criterion.weight": np.ones(5)}
    file = write_pth(tmp_path / "ovenet.pth", state_dict, epoch=484, best_mIoU=np.float64(0.8))
    import_weights(config, Path(f"{file}:state_dict"), tmp_path / "imported")

    assert_same(arrays_of(ovenet_jax.load_model(tmp_path / "imported")), arrays)
    assert workdir.read_config(tmp_path / "imported").model.offset.threshold == config.model.offset.threshold
    report = json.loads((tmp_path / "imported" / "import.json").read_text())
    assert report["arrays"] == dict.fromkeys(arrays, "loaded from ovenet.pth:state_dict")
    assert report["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert report["ignored"].keys() == {key for key in state_dict if "num_batches" in key} | {
        "model.coords",
        "loss.criterion.weight",
    }
    printed = capsys.readouterr().out
    counts = {part: sum(name.startswith(f"{part}.") for name in arrays) for part in ("backbone", "offset_head")}
    assert f"{file}:state_dict holds a whole network." in printed
    assert f"backbone: {counts['backbone']} arrays loaded from ovenet.pth:state_dict" in printed
    assert f"offset_head: {counts['offset_head']} arrays loaded from ovenet.pth:state_dict" in printed
    assert "ignored: 1 key, stored pixel grid" in printed

    again = write_pth(tmp_path / "again.pth", published(arrays, config.model))
    with pytest.raises(UserError, match="imported holds a run or an import already; choose another --workdir"):
        import_weights(config, again, tmp_path / "imported")
    with workdir.held(tmp_path / "held"), pytest.raises(UserError, match="which trains or imports there"):
        import_weights(config, again, tmp_path / "held")
    assert_same(arrays_of(ovenet_jax.load_model(tmp_path / "imported")), arrays)
    assert json.loads((tmp_path / "imported" / "import.json").read_text()) == report
    assert not (tmp_path / "held" / "checkpoints").exists()


def test_imagenet_weights_fill_the_backbone_and_the_offset_trunk(config, tmp_path, capsys):
    config.model.backbone.modules = (1, 1, 2)  # and one in the offset trunk
    arrays = {name: x for name, x in trained(config.model).items() if name.startswith("backbone.")}
    file = write_pth(tmp_path / "imagenet.pth", published(arrays, config.model) | IMAGENET_HEAD)
    import_weights(config, file, tmp_path / "imported")

    expected = arrays_of(ovenet_jax.create_model(config.model, config.seed)) | arrays
    for name in expected:
        if name.startswith("offset_trunk."):
            expected[name] = arrays[name.replace("offset_trunk.", "backbone.trunk.")]
    assert_same(arrays_of(ovenet_jax.load_model(tmp_path / "imported")), expected)
    printed = capsys.readouterr().out
    assert "holds a backbone alone, as ImageNet weights are" in printed
    assert "arrays copied from the backbone of imagenet.pth" in printed
    heads = [line for line in printed.splitlines() if "initialised" in line]
    assert [line.split(":")[0] for line in heads] == ["head", "offset_head"]
    assert "ignored: 3 keys, ImageNet classification head" in printed


@pytest.fixture
def base_oc(config):
    """`config` with openseg's Base-OC on a tiny ResNet."""
    config.model.backbone, config.model.head = openseg.network("base_oc", "r_tiny")
    config.model.input.update(openseg.RESNET_INPUT)
    del config.model.offset
    return config


def set_relu(config):
    config.model.head.activation = config.model.head.aux.activation = "relu"


def test_opensegs_in_place_abn_becomes_batch_norm(base_oc, tmp_path, capsys):
    arrays = trained(base_oc.model)
    state_dict = published(arrays, base_oc.model, prefix="module.")
    state_dict |= {key: -state_dict[key] for key in in_place_abn(state_dict)}
    file = write_pth(tmp_path / "base_oc.pth", state_dict, config_dict={"network": {"bn_type": "inplace_abn"}})
    import_weights(base_oc, file, tmp_path / "imported")

    assert_same(arrays_of(ovenet_jax.load_model(tmp_path / "imported")), arrays)
    report = json.loads((tmp_path / "imported" / "import.json").read_text())
    assert report["code_base"] == "openseg (ResNet)"
    assert report["batch_norm"] == "in-place ABN in backbone and head: scales are |weight| + 1e-05"
    printed = capsys.readouterr().out
    assert f"named as in openseg (ResNet), with {report['batch_norm']}." in printed
    assert "Note:" not in printed


def test_opensegs_plain_batch_norm_comes_back_as_it_is(base_oc, tmp_path, capsys):
    set_relu(base_oc)
    arrays = trained(base_oc.model)
    state_dict = published(arrays, base_oc.model, prefix="module.")
    assert "module.oc_module.stages.0.f_query.3.0.running_mean" in state_dict
    import_weights(base_oc, write_pth(tmp_path / "base_oc.pth", state_dict, epoch=1), tmp_path / "imported")
    assert_same(arrays_of(ovenet_jax.load_model(tmp_path / "imported")), arrays)
    assert "Its arrays are named as in openseg (ResNet), with plain BatchNorm." in capsys.readouterr().out


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_heads_get_the_activation_of_their_batch_norm(base_oc, tmp_path, capsys, activation):
    """Plain BatchNorm comes with ReLU, in-place ABN with its own."""
    other = base_oc.copy_and_resolve_references()
    set_relu(base_oc if activation == "relu" else other)
    file = write_pth(tmp_path / "base_oc.pth", published(trained(base_oc.model), base_oc.model))
    import_weights(other, file, tmp_path / "imported")
    head = workdir.read_config(tmp_path / "imported").model.head
    assert head.activation == head.aux.activation == activation
    flags = f"--config.model.head.activation={activation} --config.model.head.aux.activation={activation}"
    assert f"was trained with {flags}; the import follows it." in capsys.readouterr().out


def test_a_segfix_comes_back_with_both_heads(tiny_model, tmp_path):
    config = demo.get_config("segfix")
    config.model.backbone = tiny_model.backbone
    config.model.num_classes = 9
    config.model.input.update(openseg.HRNET_INPUT)
    arrays = trained(config.model)
    state_dict = published(arrays, config.model, prefix="module.")
    assert state_dict.keys() >= {"module.mask_head.0.weight", "module.dir_head.2.weight"}
    import_weights(config, write_pth(tmp_path / "segfix.pth", state_dict), tmp_path / "imported")
    assert_same(arrays_of(ovenet_jax.load_model(tmp_path / "imported")), arrays)

    config.model.head.activation = "relu"
    import_weights(config, tmp_path / "segfix.pth", tmp_path / "again")
    assert workdir.read_config(tmp_path / "again").model.head.activation == "leaky_relu"


def test_the_input_follows_the_file_but_for_what_the_command_line_sets(base_oc, tmp_path, capsys):
    file = write_pth(tmp_path / "base_oc.pth", published(trained(base_oc.model), base_oc.model))
    base_oc.model.input.update(openseg.HRNET_INPUT | {"bgr": False})
    import_weights(base_oc, file, tmp_path / "imported", given={"model.input.bgr"})
    found = workdir.read_config(tmp_path / "imported").model.input
    assert found.to_dict() == openseg.RESNET_INPUT | {"bgr": False}
    trained_with = f"Note: {file}, of openseg (ResNet), was trained with --config.model.input"
    printed = capsys.readouterr().out
    assert f"{trained_with}.divisor=1.0 --config.model.input.mean=(102.9801,115.9465,122.7717)" in printed
    assert f"{trained_with}.bgr=True; the config says otherwise and is kept." in printed


def test_a_normalisation_of_ones_own_is_kept(base_oc, tmp_path, capsys):
    file = write_pth(tmp_path / "base_oc.pth", published(trained(base_oc.model), base_oc.model))
    base_oc.model.input.mean = own = (90.0, 91.0, 92.0)
    import_weights(base_oc, file, tmp_path / "imported")
    assert workdir.read_config(tmp_path / "imported").model.input.mean == own
    assert "mean=(102.9801,115.9465,122.7717); the config says otherwise and is kept." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("configured", "ours"),
    [
        (("isa", "r_tiny"), r"ResNet \(1, 1, 1, 1\), ISA"),
        (("ocnet_base_oc", "r_tiny"), r"ResNet \(1, 1, 1, 1\), Base-OC of the first release"),
        (("base_oc", "tiny"), r"HRNet \(1, 1, 1\), Base-OC"),
    ],
)
def test_another_network_is_named_in_one_sentence(base_oc, tmp_path, configured, ours):
    file = write_pth(tmp_path / "base_oc.pth", published(trained(base_oc.model), base_oc.model))
    base_oc.model.backbone, base_oc.model.head = openseg.network(*configured)
    theirs = r"the file holds ResNet \(1, 1, 1, 1\), Base-OC"
    with pytest.raises(UserError, match=f"base_oc.pth .*: {theirs}, and the config makes {ours}; choose") as error:
        import_weights(base_oc, file, tmp_path / "imported")
    assert len(str(error.value)) < 400
    assert not (tmp_path / "imported").exists()


def test_imagenet_weights_of_a_resnet_fill_the_backbone_and_the_offset_trunk(config, tmp_path, capsys):
    config.model.backbone, config.model.head = openseg.network("base_oc", "r_tiny")
    config.model.backbone.blocks = (1, 1, 1, 2)
    config.model.backbone.multi_grid = (1, 1)
    arrays = {name: x for name, x in trained(config.model).items() if name.startswith("backbone.")}
    set_relu(config)  # plain BatchNorm
    state_dict = {
        key.removeprefix("backbone.").removeprefix("resinit."): value
        for key, value in published(arrays, config.model).items()
    } | {"fc.weight": np.zeros((10, 8)), "fc.bias": np.zeros(10)}
    import_weights(config, write_pth(tmp_path / "imagenet.pth", state_dict), tmp_path / "imported")

    loaded = arrays_of(ovenet_jax.load_model(tmp_path / "imported"))
    trunk = {name for name in loaded if name.startswith("offset_trunk.")}
    assert {name.split(".")[1:3][-1] for name in trunk} == {"0"}  # config.model.offset.modules
    for name in trunk:
        np.testing.assert_array_equal(loaded[name], arrays[name.replace("offset_trunk.", "backbone.trunk.")])
    assert_same({name: x for name, x in loaded.items() if name in arrays}, arrays)
    printed = capsys.readouterr().out
    assert "Its arrays are named as in ResNet with a deep stem on ImageNet, with plain BatchNorm." in printed
    assert f"offset_trunk: {len(trunk)} arrays copied from the backbone of imagenet.pth" in printed
    assert "ignored: 2 keys, ImageNet classification head" in printed
    assert "Note:" not in printed


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_widened_and_said(torch, config, tmp_path, capsys, kind):
    arrays = trained(config.model)
    state_dict = {key: torch.from_numpy(np.asarray(x)) for key, x in published(arrays, config.model).items()}
    narrow = {k: x.to(getattr(torch, kind)) if x.is_floating_point() else x for k, x in state_dict.items()}
    torch.save({"state_dict": narrow}, tmp_path / "half.pth")
    import_weights(config, tmp_path / "half.pth", tmp_path / "imported")
    loaded = arrays_of(ovenet_jax.load_model(tmp_path / "imported"))
    assert {value.dtype for value in loaded.values()} == {np.dtype(np.float32)}
    for name, value in loaded.items():
        np.testing.assert_allclose(value, arrays[name], rtol=0.01)
    assert f"half.pth holds {kind} numbers, which are widened to float32" in capsys.readouterr().out


def test_an_empty_state_dict_is_named(config, tmp_path):
    file = write_pth(tmp_path / "empty.pth", {})
    with pytest.raises(UserError, match="empty.pth holds an empty state dict"):
        import_weights(config, file, tmp_path / "imported")


def test_a_run_without_a_checkpoint_yet_is_not_imported_into(config, tmp_path):
    workdir.claim(tmp_path / "run", config)
    file = write_pth(tmp_path / "w.pth", published(trained(config.model), config.model))
    with pytest.raises(UserError, match="run holds a run or an import already"):
        import_weights(config, file, tmp_path / "run")


def whole(model_config):
    return published(trained(model_config), model_config)


def of_other_classes(model_config):
    model_config = model_config.copy_and_resolve_references()
    model_config.num_classes = 7
    return whole(model_config)


def of_other_width(model_config):
    model_config = model_config.copy_and_resolve_references()
    model_config.backbone.width = 6
    return whole(model_config)


def of_baseline(model_config):
    return {key: value for key, value in whole(model_config).items() if "_2." not in key and "offset" not in key}


def of_resnet(_):
    keys = ("conv1.weight", *(f"layer2.{block}.conv1.weight" for block in range(3)), "fc.weight")
    return {key: np.zeros((3, 3), np.float32) for key in keys}


def of_something_else(_):
    return {"blocks.0.attn.qkv.weight": np.zeros((3, 3), np.float32)}


BAD_INPUT = {
    "extra keys": (
        lambda model: whole(model) | {"ema.decay": np.ones(1)},
        r"\(1 problem\).*\n  ema.decay has no target$",
    ),
    "another class count": (
        of_other_classes,
        r": it has 7 classes in aux_head.3.bias, and the config makes 5; choose a config of its data\.$",
    ),
    "another width": (
        of_other_width,
        r"stage2.0.branches.0.0.conv1.weight has shape \(3, 3, 6, 6\) .* needs \(3, 3, 4, 4\).*\n  and 355 more$",
    ),
    "half of its heads": (
        lambda model: {key: value for key, value in whole(model).items() if not key.startswith("aux_head.")},
        r"\(8 problems\).*\n  nothing fills head.aux.hidden.conv.bias",
    ),
    "no backbone": (
        lambda model: {key: value for key, value in whole(model).items() if "head" in key or "conv3x3" in key},
        r"the file holds no backbone known here, OCR in HRNet's own form, offsets, and the config makes HRNet",
    ),
    "no offsets": (
        of_baseline,
        r"the file holds HRNet \(1, 1, 1\), OCR in HRNet's own form, and the config makes .* form, offsets; choose",
    ),
    "another architecture": (
        of_resnet,
        r"the file holds ResNet of basic blocks \(3,\), and the config makes HRNet \(1, 1, 1\); choose",
    ),
    "something else": (
        of_something_else,
        r"the file holds no backbone known here, unknown parts \(blocks\), and the config makes",
    ),
    "integers": (
        lambda model: {key: value.astype(np.int8) for key, value in whole(model).items()},
        "conv1.weight holds int8, not floating-point numbers",
    ),
}


@pytest.mark.parametrize("fault", BAD_INPUT)
def test_what_does_not_fit_is_listed_and_nothing_is_written(config, tmp_path, fault):
    make, sentence = BAD_INPUT[fault]
    file = write_pth(tmp_path / "bad.pth", make(config.model))
    with pytest.raises(UserError, match=f"(?s)bad.pth does not fit the configured model.*{sentence}"):
        import_weights(config, file, tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


def test_an_import_without_a_source_says_what_is_missing(config, tmp_path):
    with pytest.raises(UserError, match="--mode=import needs the file to read: --source=FILE.pth"):
        import_weights(config, None, tmp_path)


def test_of_two_imports_at_once_the_second_leaves_what_the_first_has_written(config, tmp_path, monkeypatch):
    file = write_pth(tmp_path / "w.pth", published(trained(config.model), config.model))
    held = workdir.held

    def held_once_the_other_has_ended(folder):
        (folder / "checkpoints/0").mkdir(parents=True)
        (folder / workdir.IMPORT_REPORT).write_text("the other's")
        return held(folder)

    monkeypatch.setattr(workdir, "held", held_once_the_other_has_ended)
    with pytest.raises(UserError, match="imported holds a run or an import already"):
        import_weights(config, file, tmp_path / "imported")
    assert (tmp_path / "imported" / workdir.IMPORT_REPORT).read_text() == "the other's"


def test_a_file_that_is_no_checkpoint_is_named():
    with pytest.raises(UserError, match="README.md cannot be read as a checkpoint"):
        import_weights(demo.get_config("hrnet"), ROOT / "README.md", ROOT / "nowhere")


def test_the_command_line_imports(tmp_path):
    config = demo.get_config("hrnet")
    config.model.backbone.width = 4
    file = write_pth(tmp_path / "hrnet.pth", published(trained(config.model), config.model))
    command = ["--config=configs/demo.py:hrnet", "--mode=import", f"--workdir={tmp_path / 'imported'}"]
    small = "--config.model.backbone.width=4"
    assert "arrays loaded from hrnet.pth" in command_line.output(*command, small, f"--source={file}")
    assert_same(arrays_of(ovenet_jax.load_model(tmp_path / "imported")), trained(config.model))
