"""A tiny run in this process, on eight devices: what it leaves, and that no config key is idle."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

import ovenet_jax
from configs import camvid, openseg
from ovenet_jax.configs.keys import ALWAYS, KEYS, PART
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.run import workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.run.state import TrainState
from ovenet_jax.train import train
from tests.imagenet import NORMALISATION
from tests.recording import Recording
from tests.tiny_run import shrunk
from tests.tiny_step import small_resnet


def trained(config: ConfigDict, folder: Path) -> tuple[Path, ConfigDict, set[str]]:
    """(folder of a finished run, its config, the keys that it read)."""
    config, read = shrunk(config, folder), set()
    assert train(Recording(config, read), folder / "run")
    return folder / "run", config, read


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = camvid.get_config("ovenet_tiny")
    config.model.backbone, config.model.offset.modules = small_resnet(), (1,)
    return trained(config, tmp_path_factory.mktemp("ovenet"))


@pytest.fixture(scope="module")
def segfix(tmp_path_factory):
    config = camvid.get_config("segfix_tiny")
    config.model.backbone = small_resnet()
    return trained(config, tmp_path_factory.mktemp("segfix"))


@pytest.mark.parametrize("network", ["run", "segfix"])
def test_a_key_with_an_effect_everywhere_is_read(request, network):
    """The others' readers depend on the network: tests/test_configs.py."""
    *_, read = request.getfixturevalue(network)
    everywhere = {key for key, known in KEYS.items() if known.when is ALWAYS and known.default is not PART}
    of_other_modes = {"name", "deterministic", "data.test_split"}  # main.py's, prediction's
    assert everywhere <= read | of_other_modes


def test_a_run_leaves_metrics_of_every_term(run):
    folder, *_ = run
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 2]  # evaluated at initialisation and at the end
    _, report, _, evaluation = lines
    terms = {f"loss_{name}" for name in ("initial", "seed", "fused", "confidence", "total")}
    accuracies = {f"accuracy_{name}" for name in ("initial", "seed", "fused")}
    others = {"epoch", "learning_rate", "confidence", "offset_length", "parameter_norm", "step"}
    times = {"images_per_second", "seconds_waiting", "compilations", "compilation_seconds", "time"}
    assert [line["epoch"] for line in lines] == [0, 8 / 9, 16 / 9, 16 / 9]
    assert report.keys() == terms | accuracies | others | times
    assert all(np.isfinite(list(report.values())))
    assert {
        f"eval_{key}_{name}" for key in ("miou", "loss") for name in ("initial", "seed", "fused")
    } <= evaluation.keys()
    ious = [value for key, value in evaluation.items() if key.startswith("eval_iou_")]
    assert len(ious) == 11 and np.mean(ious) == pytest.approx(evaluation["eval_miou_fused"])


def test_a_run_leaves_a_report_of_every_image_and_pixel(run):
    folder, *_ = run
    report = json.loads((folder / "evaluation" / "val" / "report.json").read_text())
    assert (report["images"], report["what"]["step"]) == (5, 2)
    counted = np.sum(report["fused"]["confusion"])
    labels_with_void = np.arange(24 * 32) // 3 % 12
    assert counted == 5 * (labels_with_void != 11).sum()
    assert list(report["fused"]["iou"]) == list(report["initial"]["iou"])
    evaluation = folder / "evaluation" / "val"
    assert sorted(path.name for path in (evaluation / "panels").iterdir()) == ["val_00.png", "val_04.png"]
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert report["fused"]["loss"] == pytest.approx(last["eval_loss_fused"]) and last["eval_loss_fused"] > 0
    (worst,) = report["worst"]
    assert [path.stem for path in (evaluation / "worst").iterdir()] == [worst["name"]]
    assert (evaluation / "confusion.png").exists()
    assert (folder / "panels" / "step_000002" / "val_00.png").exists()


def test_a_segfix_leaves_scores_of_its_boundaries(segfix):
    folder, *_ = segfix
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    _, report, _, evaluation = lines
    assert {"loss_boundary", "loss_direction", "boundary_f", "direction_accuracy"} <= report.keys()
    assert {
        "eval_miou_offset",
        "eval_loss_offset",
        "eval_boundary_f_offset",
        "eval_direction_accuracy_offset",
    } <= evaluation.keys()
    written = json.loads((folder / "evaluation" / "val" / "report.json").read_text())["offset"]
    assert len(written["iou"]) == 9
    matrix = np.array(written["confusion"])
    found, true = matrix[1:, 1:].sum(), matrix[1:].sum()
    assert true > 0
    assert written["boundary_f"] == pytest.approx(2 * found / (true + matrix[:, 1:].sum()))
    assert evaluation["eval_boundary_f_offset"] == written["boundary_f"]


def test_the_best_network_loads_by_its_folder(run):
    folder, config, _ = run
    model = ovenet_jax.load_model(folder)
    fresh = ovenet_jax.create_model(config.model)
    loaded, initial = parameters.split(model)[1], parameters.split(fresh)[1]
    assert loaded.keys() == initial.keys()
    name = "head.classifier.kernel"
    assert (np.asarray(loaded[name]) != np.asarray(initial[name])).any()


def test_a_folder_knows_what_its_network_is_fed(run, tmp_path):
    folder, config, _ = run
    assert ovenet_jax.load_normalisation(folder) == NORMALISATION
    config = config.copy_and_resolve_references()
    config.model.input.update(openseg.RESNET_INPUT)
    workdir.claim(tmp_path, config)
    expected = Normalisation((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), divisor=1.0, bgr=True)
    assert ovenet_jax.load_normalisation(tmp_path) == expected


def test_the_averages_are_what_a_run_with_them_loads(run):
    folder, *_ = run
    with ocp.StandardCheckpointer() as checkpointer:
        model, training = (
            checkpointer.restore((folder / "checkpoints" / "2" / item).absolute()) for item in ("model", "training")
        )
    loaded = parameters.split(ovenet_jax.load_model(folder))[1:]
    jax.tree.map(np.testing.assert_array_equal, loaded, (model["params"], model["statistics"]))
    assert any((value != training["params"][name]).any() for name, value in loaded[0].items())


def test_loading_from_a_folder_without_a_run_says_so(tmp_path):
    for load in (ovenet_jax.load_model, ovenet_jax.load_normalisation):
        with pytest.raises(UserError, match="holds no run"):
            load(tmp_path)
        with pytest.raises(UserError, match="there is no home folder ~nobody-here; give the path without ~"):
            load("~nobody-here/run")


def test_a_folder_of_another_config_is_refused(run):
    folder, config, _ = run
    other = config.copy_and_resolve_references()
    other.steps = 3
    with pytest.raises(UserError, match="steps is 2 in the run and 3 now"):
        train(other, folder)


def test_the_better_checkpoint_is_loaded_whichever_is_later(run, tmp_path):
    folder, config, _ = run
    shutil.copy(folder / "config.json", tmp_path)
    _, params, statistics = parameters.split(ovenet_jax.create_model(config.model))
    with closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        for step, miou in ((1, 0.2), (2, 0.4), (3, 0.3)):
            filled = {name: np.full_like(value, step) for name, value in params.items()}
            state = TrainState(jnp.int32(step), *jax.device_put((filled, statistics)), opt_state=())
            checkpoints.save(state)
            checkpoints.score(step, miou)
    loaded = parameters.split(ovenet_jax.load_model(tmp_path))[1]
    assert {float(value.max()) for value in loaded.values()} == {2.0}


MISTAKES = {
    "accumulate": (2, "batch_size=8 cannot be split into config.accumulate=2 micro-batches over 8 devices"),
    "model.num_classes": (12, "config.loss.class_weights has 11 entries for config.model.num_classes=12"),
    "loss.class_weights": ((1.0, 2.0), "config.loss.class_weights has 2 entries"),
    "data.eval_split": ("valid", "camvid has no split 'valid'; choose one of train, val, test"),
}


@pytest.mark.parametrize("key", MISTAKES)
def test_a_wrong_value_is_named_before_anything_is_written(run, tmp_path, key):
    value, sentence = MISTAKES[key]
    config = run[1].copy_and_resolve_references()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=sentence):
        train(config, tmp_path / "new")
    assert not (tmp_path / "new" / "checkpoints").exists() or not any((tmp_path / "new" / "checkpoints").iterdir())


def test_a_model_for_another_number_of_classes_than_the_data_has_is_named(run, tmp_path):
    config = run[1].copy_and_resolve_references()
    config.model.num_classes = 12
    config.loss.class_weights = ()
    with pytest.raises(UserError, match="config.model.num_classes=12, but camvid has 11 classes"):
        train(config, tmp_path / "new")


def test_class_maps_are_not_refined_in_training(run, tmp_path):
    config = run[1].copy_and_resolve_references()
    config.eval.segfix = "runs/other"
    with pytest.raises(UserError, match="config.eval.segfix refines in --mode=evaluate; leave it out of the training"):
        train(config, tmp_path / "new")


def test_a_first_training_without_the_weights_it_is_made_for_says_so(tmp_path, capsys):
    config = shrunk(camvid.get_config("hrnet"), tmp_path)
    with workdir.held(tmp_path / "run"), pytest.raises(UserError, match="run is held by"):  # before it compiles
        train(config, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "Note: training starts from random values, N(0, 0.001^2), not from ImageNet weights; take them by" in printed


def test_a_batch_that_does_not_divide_is_named(run, tmp_path):
    config = run[1].copy_and_resolve_references()
    config.batch_size = 12
    with pytest.raises(UserError, match="config.batch_size=12 cannot be split over 8 devices"):
        train(config, tmp_path / "new")
