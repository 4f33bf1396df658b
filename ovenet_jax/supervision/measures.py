"""Metrics of training batches, and of confusion matrices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.data.iou import class_iou
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.models.contracts import Output
from ovenet_jax.models.layers import resize_bilinear
from ovenet_jax.models.ovenet import OVeNetOutput
from ovenet_jax.models.segfix import SegFixOutput, offset_classes
from ovenet_jax.segfix.labels import boundary_and_direction

MEANS = {  # the means among the metrics of `class_scores` and `offset_scores`, with their titles
    "miou": "mIoU, all classes",
    "miou_present": "mIoU, official",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "boundary_f": "F of boundary pixels",
    "direction_accuracy": "direction accuracy",
}

# (output, label [B, H, W], labels [A, B, H, W] of all micro-batches) -> scalars by name, whose means over micro-batches
# are the values of the whole batch.
Measure = Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]


def most_probable(scores: jax.Array) -> jax.Array:
    """The class of the largest score: [..., K] -> uint8 [...]."""
    return scores.argmax(-1).astype(jnp.uint8)


def class_measures(output: Output, label: jax.Array, labels: jax.Array, *, align_corners: bool) -> dict[str, jax.Array]:
    """A `Measure`: pixel accuracy of each prediction; for OVeNet also mean confidence, and mean offset length in label
    pixels."""
    valid_pixels = jnp.maximum((labels != IGNORE).sum(), 1) / labels.shape[0]
    resize = partial(resize_bilinear, size=label.shape[1:3], align_corners=align_corners)
    measures = {}
    for name, scores in output.predictions.items():
        correct = (most_probable(resize(scores)) == label) & (label != IGNORE)
        measures[f"accuracy_{name}"] = correct.sum() / valid_pixels
    if isinstance(output, OVeNetOutput):
        _, height, width = label.shape
        pixels = output.offset * jnp.array([(width - 1) / 2, (height - 1) / 2])
        measures["confidence"] = output.confidence.mean()
        measures["offset_length"] = jnp.linalg.norm(pixels, axis=-1).mean()
    return measures


def offset_measures(output: SegFixOutput, label: jax.Array, *, align_corners: bool) -> dict[str, jax.Array]:
    """The metrics of `offset_scores` for SegFix's output and a batch of training classes [B, H, W]."""
    boundary, direction = boundary_and_direction(label, output.direction.shape[-1])
    (scores,) = output.predictions.values()
    offset_class = offset_classes(resize_bilinear(scores, label.shape[1:3], align_corners=align_corners))
    true, found = boundary == 1, (offset_class > 0) & (boundary != IGNORE)
    both = true & found
    right = both & (offset_class - 1 == direction)
    return {
        "boundary_f": 2 * both.sum() / jnp.maximum(true.sum() + found.sum(), 1),
        "direction_accuracy": right.sum() / jnp.maximum(both.sum(), 1),
    }


def confusion_matrix(label: jax.Array, class_map: jax.Array, num_classes: int) -> jax.Array:
    """Pixel counts int32 [K, K] of arrays of one shape: rows true classes, columns predicted ones; ignored pixels are
    not counted. A cell overflows at 2^31 pixels."""
    cell = label.astype(jnp.int32) * num_classes + class_map
    cell = jnp.where(label == IGNORE, num_classes**2, cell)  # an extra cell, dropped below
    return jnp.bincount(cell.ravel(), length=num_classes**2 + 1)[:-1].reshape(num_classes, num_classes)


def class_scores(matrix: np.ndarray) -> dict[str, Any]:
    """Metrics of a confusion matrix [K, K].

    iou [K] = tp / (true + predicted - tp), accuracy [K] = tp / true, both 0 for a class that never occurs.
    miou, mean_accuracy: means over all K classes, as in the papers. miou_present: over the classes that occur in label
    or prediction, as in Cityscapes' official evaluator. pixel_accuracy. These are None if no pixel is labelled.
    """
    matrix = np.asarray(matrix, np.float64)
    correct, iou = np.diag(matrix), class_iou(matrix)
    present, iou = ~np.isnan(iou), np.nan_to_num(iou)
    accuracy = correct / np.maximum(1.0, matrix.sum(1))
    means: dict[str, Any] = dict.fromkeys(("miou", "miou_present", "mean_accuracy", "pixel_accuracy"))
    if present.any():
        values = iou.mean(), iou[present].mean(), accuracy.mean(), correct.sum() / matrix.sum()
        means = dict(zip(means, map(float, values), strict=True))
    return {"iou": iou, "accuracy": accuracy, **means}


def offset_scores(matrix: np.ndarray) -> dict[str, float | None]:
    """Metrics of a confusion matrix [1 + D, 1 + D] of SegFix's offsets; class 0 is no offset.

    boundary_f: 2 * tp / (true + predicted) of boundary pixels, the harmonic mean of precision and recall.
    direction_accuracy: the share of true positives with the right direction.
    """
    matrix = np.asarray(matrix, np.float64)
    if not matrix.any():
        return {"boundary_f": None, "direction_accuracy": None}
    found, right = matrix[1:, 1:].sum(), np.trace(matrix[1:, 1:])
    return {
        "boundary_f": float(2 * found / max(1.0, matrix[1:].sum() + matrix[:, 1:].sum())),
        "direction_accuracy": float(right / max(1.0, found)),
    }
