"""Scores of confusion matrices, worked by hand."""

import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from ovenet_jax.supervision.measures import class_scores, confusion_matrix

# True classes in rows: 4 pixels of class 0 (3 found), 2 of class 1 (1 found), class 2 never occurs.
MATRIX = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_confusion_counts_by_true_row_and_predicted_column_and_skips_ignored_pixels():
    label = jnp.asarray([[[0, 0, 0, 0, 1, 1, 255, 255]]], jnp.uint8)
    predicted = jnp.asarray([[[0, 0, 0, 1, 0, 1, 0, 2]]], jnp.uint8)
    np.testing.assert_array_equal(confusion_matrix(label, predicted, 3), MATRIX)


def test_scores_by_hand():
    result = class_scores(MATRIX)
    assert_allclose(result["iou"], [3 / 5, 1 / 3, 0])
    assert_allclose(result["accuracy"], [3 / 4, 1 / 2, 0])
    assert_allclose(result["miou"], (3 / 5 + 1 / 3) / 3)  # an absent class counts 0
    assert_allclose(result["mean_accuracy"], (3 / 4 + 1 / 2) / 3)
    assert_allclose(result["pixel_accuracy"], 4 / 6)


def test_scores_of_counts_beyond_float32_are_exact():
    big = np.diag([2**60, 1]).astype(np.int64)
    assert_allclose(class_scores(big)["iou"], [1, 1])
