"""What the report of a run shows, from made-up numbers."""

import json
import re

import numpy as np
import pytest

from configs import demo
from ovenet_jax import described
from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation import run_page
from ovenet_jax.evaluation.curves import calibration_error
from ovenet_jax.evaluation.results import Evaluation, ImageScore, Region, Suspect
from ovenet_jax.supervision.classes import Classes
from tests.browser.pages import section, table

LABELS = Labels(("road", "car"), ((128, 64, 128), (0, 0, 142)), ((0,), (1,)))
WHAT = {"split": "val", "step": 7, "data": {"digest": "0123456789abcdef"}}
MADE = {"date": "2026-11-30 07:00", "versions": {"jax": "0.10.2"}}


@pytest.fixture
def page(tmp_path):
    """page(matrices, images ...) -> the page of an evaluation of a run in `tmp_path`."""

    def page(matrices, *parts, config=None) -> str:
        config = config or demo.get_config()
        task = Classes(config, LABELS)
        return run_page.page(Evaluation({"": matrices}, *parts, made=MADE), [], task, WHAT, config, tmp_path)

    return page


def charts(page: str) -> dict:
    return json.loads(re.search(r'id="charts">(.*?)</script>', page)[1])


def test_classes_have_the_iou_of_each_prediction_and_what_the_last_adds(page):
    matrices = {"initial": np.array([[6, 2], [2, 0]]), "fused": np.array([[8, 0], [0, 2]])}
    found = page(matrices, [ImageScore(0, "a", 0.25), ImageScore(1, "b", None)])
    assert table(found, "Classes") == [
        ["class", "share", "S_i", "S_f", "S_f − S_i", "accuracy"],
        ["road", "80.00", "60.00", "100.00", "+40.00", "100.00"],
        ["car", "20.00", "0.00", "100.00", "+100.00", "100.00"],
    ]
    assert charts(found) == {"confusion": [[8, 0], [0, 2]]}
    assert "<dt>mIoU, all classes</dt><dd>100.00 %</dd>" in found and "Step 7, 2 images" in found


def test_one_prediction_is_not_compared(page):
    (heads, *rows) = table(page({"main": np.diag([3, 0])}, [ImageScore(0, "a", 1)]), "Classes")
    assert heads == ["class", "share", "IoU", "accuracy"]
    assert [row[2] for row in rows] == ["100.00", "0.00"]


def test_where_nothing_is_labelled_there_are_no_scores(page):
    found = page({"initial": np.zeros((2, 2), int), "fused": np.zeros((2, 2), int)})
    assert "No pixel is labelled" in section(found, "Classes") and table(found, "Classes") == []
    assert "<dt>mIoU, all classes</dt><dd>– %</dd>" in found


def test_the_config_of_a_name_is_found_beside_the_package():
    assert described.published("demo-hrnet").model.backbone.name == "hrnet"
    assert described.published("nowhere-hrnet") is None


def test_learning_curves_pass_over_gaps_and_damaged_lines(page, tmp_path):
    lines = [
        b'{"step": 0, "eval_miou_main": 0.1, "eval_loss_main": 35.0}',
        b'{"step": 10, "loss_total": 2.0, "loss_fused": 1.0}',
        b'{"step": 20, "eval_miou_main": 0.5, "eval_loss_main": 0.7, "loss_aux": 3.0}',
        b'{"step": 30, "loss_total": NaN}',
        b'{"step": 40, "loss_\xff',
        b'{"step": 50, "loss_total": 1.0}',
        b'{"step": 60, "loss_total": Infinity}',
        b'{"step": 70, "loss_total": "low"}',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    found = page({"main": np.eye(2, dtype=int)})
    aux, fused, total = charts(found)["loss"]
    assert total == {"name": "total", "x": [10, 30, 50, 60, 70], "y": [2.0, None, 1.0, None, None]}
    assert (aux["x"], fused["name"]) == ([20], "fused S_f")
    assert "cannot be read: 1" in section(found, "Losses")
    assert charts(found)["eval_loss"] == [{"name": "prediction", "x": [20], "y": [0.7]}]
    assert charts(found)["eval_miou"] == [{"name": "prediction", "x": [0, 20], "y": [0.1, 0.5]}]


def test_without_metrics_there_are_no_learning_curves(tmp_path):
    assert run_page.learning_curves(tmp_path / "metrics.jsonl") == ({}, 0)


def test_calibration_error_is_the_mean_distance_from_what_was_said(page):
    counts = np.zeros((20, 3))
    counts[10] = 10, 5.2, 7  # said 0.52, was 0.7
    counts[19] = 30, 29.4, 29.4  # said 0.98, was 0.98
    assert calibration_error(counts) == pytest.approx(0.045)
    found = page({"main": np.eye(2, dtype=int)}, [], {"probability": counts})
    assert "probability of the class: 4.50 %." in section(found, "Calibration")
    assert charts(found)["calibration"] == [{"name": "probability of the class", "bins": counts.tolist()}]


def test_suspects_come_with_their_place_the_least_believed_first(page):
    images = [ImageScore(0, "a&b", 0.5), ImageScore(1, "c", None)]
    regions = [Region(1, 0, 20, 7, 9, 0.125)], [Region(0, 1, 30, 1, 2, 0.0625)]
    suspects = [Suspect(i, 0.3, found) for i, found in enumerate(regions)]
    found = page({"main": np.eye(2, dtype=int)}, images, {}, suspects)
    assert table(found, "Labels that look wrong")[1:] == [
        ["c", "road", "car", "1, 2", "6.25", "30.00"],
        ["a&b", "car", "road", "7, 9", "12.50", "30.00"],
    ]
    assert table(found, "Images")[1:] == [["a&b", "50.00"], ["c", "–"]]
    without = page({"main": np.eye(2, dtype=int)}, images, {}, [Suspect(0, 0.9, [])])
    assert "No region looks wrong." in section(without, "Labels that look wrong")


def test_the_config_is_compared_with_its_default_and_with_that_of_the_training(page, tmp_path):
    trained = demo.get_config()
    trained.steps, trained.eval.flip = 7, False
    (tmp_path / "config.json").write_text(trained.to_json())
    here = trained.copy_and_resolve_references()
    here.eval.flip, here.eval.scales = True, (0.5, 1.0)
    changed, unchanged = map(dict, run_page.settings(here, tmp_path))
    assert changed["steps"] == "7; default of demo-ovenet: 500"
    assert changed["eval.flip"] == "True here, False in training"
    assert changed["eval.scales"] == "[0.5, 1.0] here, [1.0] in training"
    assert "steps" not in unchanged
    assert unchanged["batch_size"] == "8"
    assert described.published("my-own") is None
    found = section(page({"main": np.eye(2, dtype=int)}, config=here), "What was run")
    assert "<dt>steps</dt><dd>7; default of demo-ovenet: 500</dd>" in found
    assert "<dd>toy_streets, split val, digest 0123456789ab</dd>" in found
