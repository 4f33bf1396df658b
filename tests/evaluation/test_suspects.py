"""Labels that look wrong."""

import numpy as np
import pytest

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation.suspects import regions, softmin


def test_one_pixel_that_is_not_believed_pulls_the_score_down():
    belief = np.ones(100)
    assert softmin(belief) == 1
    belief[7] = 0
    assert softmin(belief) == pytest.approx(99 / (99 + np.exp(10)))


def test_without_labels_there_is_no_score():
    assert softmin(np.zeros(0)) is None


def test_the_region_with_another_label_comes_first():
    seen = np.zeros((10, 12), np.uint8)
    label = seen.copy()
    label[2:6, 3:7] = 2  # 16 pixels
    label[8, :3] = 1  # too small
    label[:, 11] = IGNORE
    belief = np.where(label == seen, 0.9, 0.05)
    first, second = regions(label, belief, seen)
    assert (first.given, first.seen, first.pixels) == (2, 0, 16)
    assert label[first.y, first.x] == 2
    assert first.score == pytest.approx(0.05)
    assert (second.given, second.seen) == (0, 0)
    assert second.score == pytest.approx(0.9)
