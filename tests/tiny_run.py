"""Configs of runs that take seconds, and how two runs are compared."""

import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from configs import camvid
from tests.camvid_tree import write_tree

TIMES = {"images_per_second", "seconds_waiting", "compilations", "compilation_seconds", "time"}


def tiny_config(folder: Path, **changes) -> ConfigDict:
    """A made-up CamVid under `folder` and a ResNet of a few features with dropout; reports span checkpoints and
    evaluations."""
    config = camvid.get_config("fcn_r_tiny")
    config.data.update(write_tree(folder, counts={"train": 9, "val": 3, "test": 1}))
    config.model.backbone.update({"stem": (8, 8, 8), "widths": (4, 4, 4, 4)})
    for classifier in (config.model.head.classifier, config.model.head.aux):
        classifier.hidden_features = 8
    config.augment.update({"base_size": 32, "crop": (32, 32)})
    config.eval.update({"base_size": 32, "images_per_device": 1, "panels": 1, "worst": 0})
    config.update(
        {"batch_size": 8, "steps": 6, "report_every": 4, "evaluate_every": 3, "checkpoint_every": 2, "ema": 0.9}
    )
    config.update(changes)
    return config


def shrunk(config: ConfigDict, folder: Path) -> ConfigDict:
    """Two steps of a config on a made-up CamVid of 24x32."""
    data = write_tree(folder, counts={"train": 9, "val": 5, "test": 1})
    config.data.update(data)
    if config.model.backbone.name == "hrnet":
        backbone = {"width": 4, "blocks": 1, "stem_width": 8, "layer1_blocks": 1, "layer1_width": 4}
        config.model.backbone.update(backbone)
    config.augment.update({"base_size": 32, "crop": (32, 32)})
    config.eval.update({"base_size": 32, "images_per_device": 1, "panels": 2, "worst": 1})
    config.update(
        {"batch_size": 8, "steps": 2, "report_every": 1, "evaluate_every": 2, "checkpoint_every": 1, "ema": 0.9}
    )
    return config


def metrics(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl, without what a clock measured."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_same_end(whole: Path, resumed: Path, step: int) -> None:
    """Both runs ended at `step` with the same state, metrics and report, bit for bit."""
    assert metrics(whole) == metrics(resumed)
    reports = [json.loads((folder / "evaluation/val/report.json").read_text()) for folder in (whole, resumed)]
    for report in reports:  # commit 27140ce said less of what a report is on
        report.pop("made", None)
        report["what"].pop("data", None)
    assert reports[0] == reports[1]
    for item in ("model", "training"):
        states = [_arrays(folder / "checkpoints" / str(step) / item) for folder in (whole, resumed)]
        jax.tree.map(np.testing.assert_array_equal, *states)


def _arrays(saved: Path) -> dict:
    """What Orbax has saved there, whichever devices held it."""
    with ocp.StandardCheckpointer() as checkpointer:
        described = checkpointer.metadata(saved.absolute()).item_metadata.tree
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), described)
        return checkpointer.restore(saved.absolute(), like)
