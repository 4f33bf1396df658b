"""Runs compared: worked values of means, intervals and paired differences."""

import json
import re

import numpy as np
import pytest

from ovenet_jax.data.labels import numbered
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation import comparison
from ovenet_jax.evaluation.results import Evaluation, ImageScore
from tests.browser.pages import CLASSES, made_up, table


def evaluation(right: int, mious, names=("a", "b", "c"), count: int = 2) -> Evaluation:
    """`right` of ten pixels of each class are right."""
    matrix = np.full((count, count), (10 - right) // (count - 1))
    np.fill_diagonal(matrix, right)
    images = [ImageScore(i, name, miou) for i, (name, miou) in enumerate(zip(names, mious, strict=True))]
    return Evaluation({"": {"main": matrix}}, images)


def test_students_interval():
    found = comparison.interval([0.5, 0.6, 0.7])
    assert found["mean"] == pytest.approx(0.6)
    assert found["margin"] == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-6)


def test_one_value_has_no_interval():
    assert comparison.interval([0.5]) == {"mean": 0.5, "margin": None}


def test_differences_are_paired_over_images():
    groups = {
        "base": [evaluation(8, (0.5, 0.6, None)), evaluation(8, (0.7, 0.6, None))],
        "other": [evaluation(9, (0.9, 0.5, None))],
    }
    found = comparison.numbers(groups, numbered(2))
    assert found["groups"]["base"]["runs"] == 2
    assert found["groups"]["base"]["iou"]["class 0"] == {"mean": pytest.approx(8 / 12), "margin": 0}
    assert found["groups"]["other"]["miou"]["mean"] == pytest.approx(9 / 11)
    assert found["differences"]["other"]["mean"] == pytest.approx((0.3 - 0.1) / 2)


def test_images_on_which_groups_differ_most_come_first():
    groups = {"base": [evaluation(8, (0.5, 0.5, None))], "other": [evaluation(8, (0.6, 0.1, None))]}
    assert comparison.most_different(groups, 2) == [1, 0]


def test_other_images_are_refused():
    groups = {"base": [evaluation(8, (1, 1, 1))], "other": [evaluation(8, (1, 1, 1), names=("a", "b", "d"))]}
    with pytest.raises(UserError, match="other images"):
        comparison.numbers(groups, numbered(2))


def test_the_page_shows_both_side_by_side(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss_total": 2}\n')
    count = len(CLASSES.names)
    groups = {name: [evaluation(r, (0.5, r / 10, 1), count=count)] for name, r in (("base", 3), ("other", 2))}
    found = comparison.numbers(groups, CLASSES)
    views = {"base": [made_up(0, (20, 30), name="b")], "other": [made_up(1, (20, 30), name="b", offsets=False)]}
    logs = {name: [tmp_path / "metrics.jsonl"] for name in groups}
    page = comparison.page(found, views, logs, CLASSES, "val")
    assert 'id="maps-1-0"' in page
    (charts,) = re.findall(r'id="charts">(.*?)</script>', page)
    assert [line["name"] for line in json.loads(charts)["loss"]] == ["base", "other"]
    assert table(page, "mIoU") == [
        ["network", "runs", "mIoU [%]", "difference per image"],
        ["base", "1", "17.65", "–"],
        ["other", "1", "12.50", "-3.33 ± 14.34"],
    ]
    heads, first, *_ = table(page, "Classes")
    assert heads == ["class", "base", "other", "difference, other"]
    assert first == [CLASSES.names[0], "17.65", "12.50", "-5.15"]
    assert "<h1>2 networks on val</h1>" in page
