"""A tiny run in this process, on eight devices: what it leaves, and that no config key is idle."""

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import ovenet_jax
from configs import camvid, cityscapes, demo
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.train import train
from tests.camvid_tree import write_tree

ALL_CONFIGS = [
    (file, variant)
    for file, variants in (
        (demo, ("ovenet", "hrnet_ocr", "hrnet")),
        (camvid, ("ovenet", "hrnet_ocr", "hrnet", "ovenet_tiny", "hrnet_ocr_tiny", "hrnet_tiny")),
        (cityscapes, ("ovenet", "hrnet_ocr", "hrnet")),
    )
    for variant in variants
]


class Recording:
    """A config that remembers which of its keys were read."""

    def __init__(self, config: ConfigDict, read: set[str], prefix: str = ""):
        self._config, self._read, self._prefix = config, read, prefix

    def __getattr__(self, name):
        value = getattr(self._config, name)
        if name == "to_dict":
            return value
        if isinstance(value, ConfigDict):
            return Recording(value, self._read, f"{self._prefix}{name}.")
        self._read.add(self._prefix + name)
        return value

    def __contains__(self, name):
        return name in self._config


def leaves(config: ConfigDict, prefix: str = "") -> set[str]:
    return {
        leaf
        for key, value in config.items()
        for leaf in (leaves(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else {prefix + key})
    }


def shrunk(config: ConfigDict, folder: Path) -> ConfigDict:
    """Two steps of a config on a made-up CamVid of 24x32."""
    data = write_tree(folder, counts={"train": 9, "val": 5, "test": 1})
    config.data.update(data)
    config.model.backbone.update({"width": 4, "stem_width": 8, "layer1_blocks": 1, "layer1_width": 4})
    config.augment.update({"base_size": 32, "crop": (32, 32)})
    config.eval.update({"size": (24, 32), "batch_size": 8, "panels": 2})
    config.update(
        {"batch_size": 8, "steps": 2, "report_every": 1, "evaluate_every": 2, "checkpoint_every": 1}
    )
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder of a finished run, its config, the keys that it read)."""
    folder = tmp_path_factory.mktemp("ovenet")
    config, read = shrunk(camvid.get_config("ovenet_tiny"), folder), set()
    assert train(Recording(config, read), folder / "run")
    return folder / "run", config, read


@pytest.fixture(scope="module")
def keys_read(run, tmp_path_factory):
    folder, read = tmp_path_factory.mktemp("hrnet"), set()
    config = shrunk(camvid.get_config("hrnet_tiny"), folder)
    assert train(Recording(config, read), folder / "run")
    return read | run[2] | {"name"}  # main.py names the workdir after it


@pytest.mark.parametrize(("file", "variant"), ALL_CONFIGS, ids=lambda x: getattr(x, "__name__", x))
def test_no_config_has_a_key_that_nothing_reads(keys_read, file, variant):
    assert leaves(file.get_config(variant)) <= keys_read


def test_a_run_leaves_metrics_of_every_term(run):
    folder, *_ = run
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    report, _, evaluation = lines
    terms = {f"loss_{name}" for name in ("initial", "seed", "fused", "confidence", "total")}
    accuracies = {f"accuracy_{name}" for name in ("initial", "seed", "fused")}
    others = {"learning_rate", "confidence", "offset_length", "images_per_second", "step"}
    assert report.keys() == terms | accuracies | others
    assert all(np.isfinite(list(report.values())))
    assert {"eval_miou_initial", "eval_miou_seed", "eval_miou_fused"} <= evaluation.keys()


def test_a_run_leaves_a_report_of_every_image_and_pixel(run):
    folder, *_ = run
    report = json.loads((folder / "evaluation" / "val.json").read_text())
    assert (report["images"], report["step"]) == (5, 2)
    counted = np.sum(report["fused"]["confusion"])
    labels_with_void = np.arange(24 * 32) // 3 % 12
    assert counted == 5 * (labels_with_void != 11).sum()
    assert list(report["fused"]["iou"]) == list(report["initial"]["iou"])
    pictures = sorted(path.name for path in (folder / "evaluation").glob("**/*.png"))
    assert pictures == ["val_00.png", "val_04.png", "val_confusion.png"]
    assert (folder / "panels" / "step_000002" / "val_00.png").exists()


def test_the_best_network_loads_by_its_folder(run):
    folder, config, _ = run
    model = ovenet_jax.load_model(folder)
    fresh = ovenet_jax.create_model(config.model)
    loaded, initial = parameters.split(model)[1], parameters.split(fresh)[1]
    assert loaded.keys() == initial.keys()
    name = "head.classifier.kernel"
    assert (np.asarray(loaded[name]) != np.asarray(initial[name])).any()


def test_loading_from_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        ovenet_jax.load_model(tmp_path)


def test_a_folder_of_another_config_is_refused(run):
    folder, config, _ = run
    other = config.copy_and_resolve_references()
    other.steps = 3
    with pytest.raises(UserError, match="steps is 2 there and 3 here"):
        train(other, folder)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(run, tmp_path):
    _, config, _ = run
    config = config.copy_and_resolve_references()
    config.update({"steps": 4, "report_every": 4, "evaluate_every": 4})
    config.optimizer.rate = 1e30
    with pytest.raises(
        UserError, match="The loss was not finite at step 2, so training stopped; checkpoint 1"
    ):
        train(config, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]


@pytest.mark.parametrize("key", ["batch_size", "eval.batch_size"])
def test_a_batch_that_does_not_divide_is_named(run, tmp_path, key):
    config = run[1].copy_and_resolve_references()
    config.update_from_flattened_dict({key: 12})
    with pytest.raises(UserError, match=f"config.{key}=12 cannot be split over 8 devices"):
        train(config, tmp_path / "new")
