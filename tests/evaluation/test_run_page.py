"""What the report of a run shows, from made-up numbers."""

import json

import numpy as np
import pytest

from configs import demo
from ovenet_jax import described
from ovenet_jax.evaluation import run_page
from ovenet_jax.evaluation.report import made_now
from ovenet_jax.evaluation.results import Evaluation, ImageScore, Region, Suspect


def column(section, number):
    return [row[number] for row in section.rows]


def titles(section):
    return [title for title, _ in section.columns]


def test_classes_have_the_iou_of_each_prediction_and_what_the_last_adds():
    before, after = np.array([[6, 2], [2, 0]]), np.array([[8, 0], [0, 2]])
    section = run_page.class_section({"initial": before, "fused": after})
    assert titles(section) == ["class", "share", "S_i", "S_f", "S_f − S_i", "accuracy"]
    assert column(section, 0) == [0, 1]
    assert column(section, 1) == pytest.approx([0.8, 0.2])
    assert column(section, 2) == pytest.approx([0.6, 0])
    assert column(section, 4) == pytest.approx([0.4, 1])


def test_one_prediction_is_not_compared():
    section = run_page.class_section({"main": np.diag([3, 0])})
    assert titles(section) == ["class", "share", "IoU", "accuracy"]
    assert column(section, 2) == [1, 0]


def test_where_nothing_is_labelled_there_are_no_scores():
    section = run_page.class_section({"initial": np.zeros((2, 2)), "fused": np.zeros((2, 2))})
    assert "No pixel is labelled" in section.text and not section.rows


def test_the_config_of_a_name_is_found_beside_the_package():
    assert described.published("demo-hrnet").model.backbone.name == "hrnet"
    assert described.published("nowhere-hrnet") is None


def test_learning_curves_pass_over_gaps_and_damaged_lines(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [
        b'{"step": 10, "loss_total": 2.0}',
        b'{"step": 20, "eval_miou_main": 0.5}',
        b'{"step": 30, "loss_total": NaN}',
        b'{"step": 40, "loss_\xff',
        b'{"step": 50, "loss_total": 1.0}',
    ]
    file.write_bytes(b"\n".join(lines))
    losses, validation = run_page.learning_sections(file)
    (curve,) = losses.charts["loss_"]["lines"]
    assert (curve["x"], curve["y"]) == ((10, 30, 50), [2.0, None, 1.0])
    assert "cannot be read: 1" in losses.text
    assert validation.charts["eval_miou_"]["lines"][0]["y"] == [0.5]


def test_without_metrics_there_are_no_learning_curves(tmp_path):
    assert list(run_page.learning_sections(tmp_path / "metrics.jsonl")) == []


def test_calibration_error_is_the_mean_distance_from_what_was_said():
    counts = np.zeros((20, 3))
    counts[10] = 10, 5.2, 7  # said 0.52, was 0.7
    counts[19] = 30, 29.4, 29.4  # said 0.98, was 0.98
    (section,) = run_page.curve_sections({"probability": counts})
    assert "probability of the class: 4.50 %" in section.text
    assert section.charts["calibration"]["lines"][0]["x"] == pytest.approx([0.52, 0.98])


def test_accuracy_near_boundaries():
    counts = np.zeros((8, 3))
    counts[0], counts[7] = (4, 0, 1), (10, 0, 9)
    (section,) = run_page.curve_sections({"distance fused": counts})
    assert section.charts["distance"]["lines"][0]["y"] == [0.25, *[None] * 6, 0.9]


def test_suspects_come_with_their_place_the_least_believed_first():
    images = [ImageScore(0, "a&b", 0.5), ImageScore(1, "c", None)]
    regions = [Region(1, 3, 20, 7, 9, 0.125)], [Region(0, 2, 30, 1, 2, 0.0625)]
    suspects = [Suspect(i, 0.3, found) for i, found in enumerate(regions)]
    (section,) = run_page.suspect_sections(Evaluation({}, images, {}, suspects))
    assert section.rows == [
        ({"image": "c", "layer": "truth", "x": 1, "y": 2}, 0, 2, "1, 2", 0.0625, 0.3),
        ({"image": "a&b", "layer": "truth", "x": 7, "y": 9}, 1, 3, "7, 9", 0.125, 0.3),
    ]


def test_the_config_is_compared_with_its_default_and_with_that_of_the_training(tmp_path):
    trained = demo.get_config()
    trained.steps, trained.eval.flip = 7, False
    (tmp_path / "config.json").write_text(trained.to_json())
    here = trained.copy_and_resolve_references()
    here.eval.flip, here.eval.scales = True, (0.5, 1.0)
    what = {"split": "val", "step": 7, "data": {"digest": "0123456789abcdef"}}
    section = run_page.run_section(what, made_now(), here, tmp_path)
    facts, folded = dict(section.facts), dict(section.folded)
    assert facts["steps"] == "7; default of demo-ovenet: 500"
    assert facts["eval.flip"] == "True here, False in training"
    assert facts["eval.scales"] == "[0.5, 1.0] here, [1.0] in training"
    assert "steps" not in folded
    assert folded["batch_size"] == "8"
    assert described.published("my-own") is None


def test_charts_are_json(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss_total": Infinity}\n')
    (section,) = run_page.learning_sections(tmp_path / "metrics.jsonl")
    json.dumps(section.charts, allow_nan=False)
