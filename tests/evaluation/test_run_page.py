"""What the report of a run shows, from made-up numbers."""

import json

import numpy as np
import pytest

from ovenet_jax.data.labels import TOY_STREETS, Labels, numbered
from ovenet_jax.evaluation import run_page
from ovenet_jax.evaluation.metrics import Evaluation, ImageScore
from ovenet_jax.evaluation.suspects import Region, Suspect


def texts(section, column):
    return [row[column].text for row in section.table.rows]


def test_classes_have_the_iou_of_each_prediction_and_what_the_last_adds():
    classes = numbered(2)
    before, after = np.array([[6, 2], [2, 0]]), np.array([[8, 0], [0, 2]])
    section = run_page.class_section({"initial": before, "fused": after}, "fused", classes)
    assert section.table.columns == ["class", "share", "S_i", "S_f", "S_f − S_i", "accuracy"]
    assert texts(section, 1) == ["80.00", "20.00"]
    assert texts(section, 2) == ["60.00", "0.00"]
    assert texts(section, 4) == ["+40.00", "+100.00"]
    assert [row[4].bar for row in section.table.rows] == pytest.approx([0.4, 1])


def test_one_prediction_is_not_compared():
    section = run_page.class_section({"main": np.diag([3, 0])}, "main", numbered(2))
    assert section.table.columns == ["class", "share", "IoU", "accuracy"]
    assert texts(section, 2) == ["100.00", "0.00"]


@pytest.mark.parametrize("count", [2, 150])
def test_the_confusion_matrix_shows_counts_and_shares(count):
    matrix = np.zeros((count, count), np.int64)
    matrix[0, :2] = 3, 1
    names = ("<b>one</b>", *numbered(count).names[1:])
    section = run_page.confusion_section(matrix, Labels(names, numbered(count).colors, numbered(count).ids))
    (heat,) = section.charts["confusion"]["data"]
    assert heat["customdata"][0][:2] == [[3, 0.75], [1, 0.25]]
    assert heat["customdata"][1][0] == [0, 0]
    assert heat["x"][0] == "&lt;b&gt;one&lt;/b&gt;"


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
    (curve,) = losses.charts["losses"]["data"]
    assert (curve["x"], curve["y"]) == ([10, 30, 50], [2.0, None, 1.0])
    assert "cannot be read: 1" in losses.text
    assert validation.charts["validation"]["data"][0]["y"] == [0.5]


def test_without_metrics_there_are_no_learning_curves(tmp_path):
    assert list(run_page.learning_sections(tmp_path / "metrics.jsonl")) == []


def test_calibration_error_is_the_mean_distance_from_what_was_said():
    counts = np.zeros((20, 3))
    counts[10] = 10, 5.2, 7  # said 0.52, was 0.7
    counts[19] = 30, 29.4, 29.4  # said 0.98, was 0.98
    (section,) = run_page.curve_sections({"probability": counts})
    assert "probability of the answer: 4.50 %" in section.text
    assert section.charts["calibration"]["data"][0]["x"] == pytest.approx([0.52, 0.98])


def test_accuracy_near_boundaries():
    counts = np.zeros((8, 3))
    counts[0], counts[7] = (4, 0, 1), (10, 0, 9)
    (section,) = run_page.curve_sections({"distance fused": counts})
    assert section.charts["distance"]["data"][0]["y"] == [0.25, *[None] * 6, 0.9]


def test_suspects_are_linked_where_the_inspector_has_their_image():
    images = [ImageScore(0, "a&b", 0.5), ImageScore(1, "c", None)]
    regions = [Region(1, 3, 20, 7, 9, 0.125)], [Region(0, 2, 30, 1, 2, 0.0625)]
    suspects = [Suspect(i, 0.3, found) for i, found in enumerate(regions)]
    evaluation = Evaluation({"": {"main": np.eye(8)}}, images, "main", {}, suspects)
    (section,) = run_page.suspect_sections(evaluation, TOY_STREETS, {"a&b"})
    assert texts(section, 0) == ["c", "a&b"]
    assert [row[0].href for row in section.table.rows] == ["", "#image=a%26b&layer=truth&x=7&y=9"]
    assert texts(section, 1) == [TOY_STREETS.names[0], TOY_STREETS.names[1]]
    assert texts(section, 4) == ["6.25", "12.50"]


def test_charts_are_json(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss_total": Infinity}\n')
    (section,) = run_page.learning_sections(tmp_path / "metrics.jsonl")
    json.dumps(section.charts, allow_nan=False)
