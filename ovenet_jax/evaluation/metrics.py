"""Confusion matrices and what is read from them; what a training run watches. CLU metrics, merged on the device."""

from operator import itemgetter
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics

from ovenet_jax.data.iou import class_iou
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation.suspects import Suspect


@flax.struct.dataclass
class ConfusionMatrix(metrics.Metric):
    """Pixel counts int32 [K, K], rows true classes, columns predicted ones; ignored pixels count nowhere.

    A cell overflows at 2^31 pixels: `evaluate.py` adds up images in int64 on the host.
    """

    counts: jax.Array

    @classmethod
    def from_model_output(
        cls, *, label: jax.Array, class_map: jax.Array, num_classes: int
    ) -> "ConfusionMatrix":
        """Counts of label and class_map [B, H, W]."""
        cell = label.astype(jnp.int32) * num_classes + class_map
        cell = jnp.where(label == IGNORE, num_classes**2, cell)  # one cell too many, and dropped
        counts = jnp.bincount(cell.ravel(), length=num_classes**2 + 1)[:-1]
        return cls(counts.reshape(num_classes, num_classes))

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        return type(self)(self.counts + other.counts)

    def compute(self) -> np.ndarray:
        return np.asarray(self.counts, np.int64)


def scores(matrix: np.ndarray) -> dict[str, Any]:
    """Scores of a confusion matrix [K, K].

    iou [K] = tp / (true + predicted - tp), accuracy [K] = tp / true, both 0 for a class that never occurs.
    miou, mean_accuracy: published means over all K classes. miou_present: over the classes that occur, in truth or
    prediction, as Cityscapes' official evaluator takes it (None if none does). pixel_accuracy.
    """
    matrix = np.asarray(matrix, np.float64)
    correct, iou = np.diag(matrix), class_iou(matrix)
    present, iou = ~np.isnan(iou), np.nan_to_num(iou)
    accuracy = correct / np.maximum(1.0, matrix.sum(1))
    return {
        "iou": iou,
        "accuracy": accuracy,
        "miou": float(iou.mean()),
        "miou_present": float(iou[present].mean()) if present.any() else None,
        "mean_accuracy": float(accuracy.mean()),
        "pixel_accuracy": float(correct.sum() / max(1.0, matrix.sum())),
    }


def offset_scores(matrix: np.ndarray) -> dict[str, float]:
    """Scores of a confusion matrix [1 + D, 1 + D] of SegFix's offsets, of which class 0 is none.

    boundary_f: of all pixels near a boundary 2 * found / (true + predicted), the harmonic mean of precision and recall.
    direction_accuracy: of those found, the share with the right direction.
    """
    matrix = np.asarray(matrix, np.float64)
    found, right = matrix[1:, 1:].sum(), np.trace(matrix[1:, 1:])
    return {
        "boundary_f": float(2 * found / max(1.0, matrix[1:].sum() + matrix[:, 1:].sum())),
        "direction_accuracy": float(right / max(1.0, found)),
    }


class ImageScore(NamedTuple):
    """The answer's mIoU on the image of this number in its split, over the classes that occur in it; None where nothing
    is labelled."""

    number: int
    name: str
    miou: float | None


class Evaluation(NamedTuple):
    """Confusion matrices int64 [K, K] by group (ACDC's condition, else "") and prediction; the score of each image;
    where they were wanted, the curves of curves.py and the suspects of suspects.py."""

    groups: dict[str, dict[str, np.ndarray]]
    images: list[ImageScore]
    curves: dict[str, np.ndarray] = {}
    suspects: list[Suspect] = []

    @property
    def matrices(self) -> dict[str, np.ndarray]:
        """Over all groups, by prediction; the last is the model's answer."""
        names = next(iter(self.groups.values()))
        return {name: np.sum([group[name] for group in self.groups.values()], axis=0) for name in names}

    @property
    def miou(self) -> float:
        """Of the model's answer, as published."""
        return scores(list(self.matrices.values())[-1])["miou"]

    def worst(self, count: int) -> list[ImageScore]:
        """The `count` labelled images with the lowest mIoU, the worst first."""
        labelled = [(image.miou, image) for image in self.images if image.miou is not None]
        return [image for _, image in sorted(labelled, key=itemgetter(0))][:count]


def training_metrics(measures: list[str]) -> type[metrics.Collection]:
    """A collection that averages the named measures over steps; each is given as [1], and so is a `mask`: whether the
    step counts."""
    return metrics.Collection.create(**{name: metrics.Average.from_output(name) for name in measures})
