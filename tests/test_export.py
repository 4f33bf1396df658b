"""A network leaves, is read by what it left for, and says the same there."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import ovenet_jax
from configs import camvid
from ovenet_jax import export, files, load_model, load_normalisation
from ovenet_jax.data import pipeline
from ovenet_jax.data.image_files import decode_label, write_picture
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.import_weights import import_weights
from ovenet_jax.models import parameters
from ovenet_jax.models.layers import resize_bilinear
from ovenet_jax.predict import predict
from ovenet_jax.run import identity, workdir
from ovenet_jax.supervision.task import task_of
from ovenet_jax.weights.network import restore_network
from tests import command_line
from tests.camvid_tree import write_tree
from tests.tiny_step import small_resnet
from tests.untrained import narrow, save_untrained, tiny


@pytest.fixture
def make_run(tmp_path):
    """A function: the config and the folder of an untrained network of this variant."""

    def make(variant):
        config, data = camvid.get_config(variant), write_tree(tmp_path, size=(32, 48))
        if config.model.backbone.name == "resnet":
            config.model.backbone.update(small_resnet())
            config.data.update(data)
            config.eval.update({"base_size": 48, "window": (32, 48)})
        else:
            tiny(config, data, narrow(config.model.backbone))
        return config, save_untrained(config, tmp_path / "run")

    return make


FIVE_LINES = """
from pathlib import Path
import jax, numpy as np
program = jax.export.deserialize(bytearray(Path("{program}").read_bytes()))
label_map, scores = program.call(np.load("{images}"))
"""


@pytest.mark.parametrize(
    "variant", [pytest.param("ovenet_tiny", marks=pytest.mark.slow), "segfix_tiny", "ovenet_base_oc_r_tiny"]
)
def test_jax_alone_runs_a_program_that_says_what_the_network_says(make_run, tmp_path, variant, capsys):
    config, folder = make_run(variant)
    export.export(config, folder, "stablehlo")
    program, images = folder / "export/stablehlo/network.stablehlo", tmp_path / "images.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)
    np.save(images, pixels)
    code = FIVE_LINES.format(program=program, images=images)
    code += f"np.savez('{tmp_path / 'out.npz'}', label_map=label_map, scores=scores)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "out.npz")

    output = jax.jit(load_model(folder))(load_normalisation(folder)(pixels))
    *_, scores = output.predictions.values()
    scores = resize_bilinear(scores, (32, 48), align_corners=True)
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-4, atol=1e-4)
    assert found["label_map"].dtype == np.uint8
    assert (found["label_map"] == task_of(config).class_map(scores)).mean() > 0.999  # ties, to rounding

    said = json.loads((program.parent / "export.json").read_text())
    assert said["image"] == [32, 48] and said["classes"] == list(task_of(config).classes.names)
    assert said["largest_error"] < 1e-4 and said["largest_score"] > 0
    assert abs(said["miou"] - said["network_miou"]) < 1e-3
    network = restore_network(config.model, folder)
    evaluated = Evaluator(config, network.graphdef).run(network.params, network.statistics)
    assert said["network_miou"] == pytest.approx(evaluated.miou, abs=1e-3)
    printed = capsys.readouterr().out
    assert f"the largest score is {said['largest_score']:.2g}" in printed
    assert f"Written, read back and run: {program}" in printed


@pytest.mark.parametrize(
    "variant",
    [
        "ovenet_ocr_tiny",
        "ovenet_base_oc_r_tiny",
        "segfix_tiny",
        *(pytest.param(variant, marks=pytest.mark.slow) for variant in ("ovenet_tiny", "isa_r_tiny")),
    ],
)
def test_onnxruntime_says_what_the_network_says_at_sizes_of_any_images(make_run, variant, capsys):
    runtime = pytest.importorskip("onnxruntime")
    config, folder = make_run(variant)
    export.export(config, folder, "onnx")
    program = folder / "export/onnx/network.onnx"
    said = json.loads((program.parent / "export.json").read_text())
    assert said["miou"] == pytest.approx(said["network_miou"], abs=1e-3)
    assert said["largest_error"] < 1e-4 * max(1, said["largest_score"])
    assert f"Written, read back and run: {program}.\n" in capsys.readouterr().out

    pixels = np.random.default_rng(0).integers(0, 256, (2, 61, 83, 3), np.uint8)
    label_map, scores = runtime.InferenceSession(program).run(None, {"image": pixels})
    output = jax.jit(load_model(folder))(load_normalisation(folder)(pixels))
    *_, expected = output.predictions.values()
    expected = resize_bilinear(expected, (61, 83), align_corners=True)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert label_map.dtype == np.uint8
    assert (label_map == task_of(config).class_map(expected)).mean() > 0.999


def test_what_onnx_cannot_hold_is_refused(make_run):
    pytest.importorskip("onnxruntime")
    config, folder = make_run("pyramid_oc_r_tiny")
    with pytest.raises(UserError, match="A network with Pyramid-OC cannot be an ONNX program for images of any size"):
        export.export(config, folder, "onnx")
    config.eval.precision = "bfloat16"
    with pytest.raises(UserError, match="--form=onnx computes in float32"):
        export.export(config, folder, "onnx")
    assert not (folder / "export/onnx").exists()


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_a_state_dict_comes_back_bit_for_bit(make_run, tmp_path, form, request, capsys):
    if form == "torch":
        request.getfixturevalue("torch")
    config, folder = make_run("hrnet_ocr_tiny")
    export.export(config, folder, form)
    file = folder / "export" / form / export.FORMS[form][1]
    if form == "torch":
        import_weights(config, file, tmp_path / "back")
        (_, *arrays), (_, *back) = (parameters.split(load_model(at)) for at in (folder, tmp_path / "back"))
        jax.tree.map(np.testing.assert_array_equal, arrays, back)
    said = json.loads((file.parent / "export.json").read_text())
    assert said["largest_error"] == 0 and said["miou"] == said["network_miou"]
    assert "named as in HRNet, HRNet + OCR or OVeNet." in capsys.readouterr().out


def test_small_scales_of_in_place_abn_leave_up_to_their_last_bit(make_run, monkeypatch):
    pytest.importorskip("safetensors")
    config, folder = make_run("fcn_no_aux_r_tiny")
    network = restore_network(config.model, folder)
    small = {"head.classifier.hidden.norm.scale": np.full(64, 1e-4, np.float32)}
    assert small.keys() <= network.params.keys()
    monkeypatch.setattr(export, "restore_network", lambda *_: network._replace(params=network.params | small))
    export.export(config, folder, "safetensors")
    assert (folder / "export/safetensors/network.safetensors").is_file()


def test_a_folder_for_the_hub_is_loaded_with_equal_pixels(make_run, tmp_path):
    pytest.importorskip("safetensors")
    config, folder = make_run("ovenet_tiny")
    identity.write(folder, identity.Identity(pipeline.classes(config.data)))
    config.init.update({"base": str(tmp_path / "base"), "trunk": str(tmp_path / "base/init/timm")})
    files.write_json(tmp_path / "base/import.json", {"source": f"{tmp_path}/resnet.pth"})  # as an earlier version did
    files.write_json(tmp_path / "base/init/timm/import.json", {"source": "hub:timm/tiny@main", "sha256": "1234"})
    export.export(config, folder, "hub")
    target = (folder / "export/hub").rename(tmp_path / "copied")
    assert {file.name for file in target.iterdir()} >= {"config.json", "data.json", "model.safetensors", "README.md"}
    assert all(str(tmp_path) not in (target / name).read_text() for name in ("config.json", "README.md"))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    theirs, ours = (ovenet_jax.load(at).predict(pixels) for at in (target, folder))
    np.testing.assert_array_equal(theirs.label_map, ours.label_map)
    np.testing.assert_array_equal(theirs.overlay(), ours.overlay())
    said, card = (json.loads((target / "export.json").read_text()), (target / "README.md").read_text())
    assert card.count("It started from ") == 2
    assert "It started from resnet.pth (SHA-256 not recorded; licence: not recorded)." in card
    assert "It started from hub:timm/tiny@main (SHA-256 1234; licence: not recorded)." in card
    assert card.startswith("---\nlicense: other\n") and "trained with ovenet_jax: OVeNet with OCR" in card
    assert f"resized to 32x48, in a single pass: mIoU {100 * said['miou']:.2f} %." in card
    for name, iou in zip(task_of(config).classes.names, said["iou"], strict=True):
        assert f"| {name} | {100 * iou:.2f} |\n" in card

    write_picture(tmp_path / "one.png", pixels)  # other commands read it, too
    predict(workdir.config_of(target), target, tmp_path / "one.png")
    written = decode_label((target / "predictions/one/label_maps/one.png").read_bytes())
    np.testing.assert_array_equal(written, pipeline.classes(config.data).label_ids()[ours.label_map])
    (_, *arrays), (_, *back) = (parameters.split(load_model(at)) for at in (folder, target))
    jax.tree.map(np.testing.assert_array_equal, arrays, back)
    with pytest.raises(UserError, match="holds weights, not a run; train from them with --config.init.base="):
        workdir.check(target, config)


def test_exports_that_cannot_be_are_refused(make_run, tmp_path, monkeypatch):
    config, folder = make_run("hrnet_tiny")
    for form, said in ((None, "--form is missing"), ("tflite", "--form=tflite")):
        with pytest.raises(UserError, match=f"{said}: it must be one of torch, safetensors, hub, stablehlo, onnx"):
            export.export(config, folder, form)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(UserError, match=r"`pip install safetensors`, or ovenet_jax with its extra \[safetensors"):
            export.export(config, folder, "safetensors")
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(UserError, match=r"`pip install onnxruntime`, or ovenet_jax with its extra \[onnx"):
            export.export(config, folder, "onnx")
    whole = restore_network(config.model, folder)
    name = min(whole.params)
    broken = whole._replace(params=whole.params | {name: whole.params[name] + np.float32(np.nan)})
    with monkeypatch.context() as patch, pytest.raises(UserError, match="holds numbers that are not finite"):
        patch.setattr(export, "restore_network", lambda *_: broken)
        export.export(config, folder, "safetensors")
    assert not any((folder / "export").iterdir())
    with pytest.raises(UserError, match="nowhere holds no run"):
        export.export(config, tmp_path / "nowhere", "stablehlo")
    workdir.claim(tmp_path / "untrained", config)
    with pytest.raises(UserError, match="checkpoints does not exist; train first"):
        export.export(config, tmp_path / "untrained", "stablehlo")
    (folder / "export/stablehlo").mkdir(parents=True)
    with pytest.raises(UserError, match="stablehlo exists already and is not overwritten; move it away[.]"):
        export.export(config, folder, "stablehlo")


def test_the_command_line_exports(make_run):
    _, folder = make_run("hrnet_tiny")
    sentence = command_line.refusal("--config=configs/camvid.py:hrnet_tiny", "--mode=export", f"--workdir={folder}")
    assert sentence.startswith("--form is missing: it must be")
