import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from ovenet_jax.evaluation.metrics import ConfusionMatrix, training_metrics
from ovenet_jax.supervision.measures import class_scores

# True classes in rows: 4 pixels of class 0 (3 found), 2 of class 1 (1 found), class 2 never occurs.
MATRIX = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_confusion_counts_by_true_row_and_predicted_column_and_skips_ignored_pixels():
    label = jnp.asarray([[[0, 0, 0, 0, 1, 1, 255, 255]]], jnp.uint8)
    predicted = jnp.asarray([[[0, 0, 0, 1, 0, 1, 0, 2]]], jnp.uint8)
    metric = ConfusionMatrix.from_model_output(label=label, class_map=predicted, num_classes=3)
    np.testing.assert_array_equal(metric.compute(), MATRIX)
    np.testing.assert_array_equal(metric.merge(metric).compute(), 2 * MATRIX)


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


def test_training_metrics_average_over_the_steps_that_count():
    collection = training_metrics(["loss_total"])

    @jax.jit
    def add(collected, loss, counts):
        return collected.merge(collection.single_from_model_output(loss_total=loss[None], mask=counts[None]))

    collected = collection.empty()
    for loss, counts in ((1.0, True), (np.nan, False), (4.0, True), (np.inf, False)):
        collected = add(collected, jnp.float32(loss), jnp.asarray(counts))
    assert collected.compute() == {"loss_total": 2.5}
