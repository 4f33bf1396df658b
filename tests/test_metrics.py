import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from ovenet_jax.metrics import NO_STEP, ConfusionMatrix, scores, training_metrics

# True classes in rows: 4 pixels of class 0 (3 found), 2 of class 1 (1 found), class 2 never occurs.
MATRIX = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_confusion_counts_by_true_row_and_predicted_column_and_skips_ignored_pixels():
    label = jnp.asarray([[[0, 0, 0, 0, 1, 1, 255, 255]]], jnp.uint8)
    predicted = jnp.asarray([[[0, 0, 0, 1, 0, 1, 0, 2]]], jnp.uint8)
    metric = ConfusionMatrix.from_model_output(label=label, class_map=predicted, num_classes=3)
    np.testing.assert_array_equal(metric.compute(), MATRIX)
    np.testing.assert_array_equal(metric.merge(metric).compute(), 2 * MATRIX)


def test_scores_by_hand():
    result = scores(MATRIX)
    assert_allclose(result["iou"], [3 / 5, 1 / 3, 0])
    assert_allclose(result["accuracy"], [3 / 4, 1 / 2, 0])
    assert_allclose(result["miou"], (3 / 5 + 1 / 3) / 3)  # an absent class counts 0
    assert_allclose(result["mean_accuracy"], (3 / 4 + 1 / 2) / 3)
    assert_allclose(result["pixel_accuracy"], 4 / 6)


def test_scores_of_counts_beyond_float32_are_exact():
    big = np.diag([2**60, 1]).astype(np.int64)
    assert_allclose(scores(big)["iou"], [1, 1])


def test_training_metrics_average_and_remember_the_first_non_finite_step():
    collection = training_metrics(["loss_total", "parameter_norm"])

    @jax.jit
    def add(collected, loss, norm, step):
        measures = {"loss_total": loss, "parameter_norm": norm, "step": step}
        return collected.merge(collection.single_from_model_output(**measures))

    finite = collection.empty()
    for step, loss in ((4, 1.0), (5, 3.0)):
        finite = add(finite, loss, 2.0, step)
    assert finite.compute() == {"loss_total": 2.0, "parameter_norm": 2.0, "first_non_finite": NO_STEP}
    for bad_loss, bad_norm in ((np.nan, 1.0), (1.0, np.inf)):
        collected = finite
        for step, loss, norm in ((6, bad_loss, bad_norm), (7, 1.0, 1.0), (8, np.inf, 1.0)):
            collected = add(collected, loss, norm, step)
        assert collected.compute()["first_non_finite"] == 6
