"""Confusion matrices and what is read from them; what a training run watches. CLU metrics, merged on the device."""

from operator import itemgetter
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation.suspects import Suspect
from ovenet_jax.supervision.measures import class_scores


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


class ImageScore(NamedTuple):
    """The answer's mIoU on the image of this number in its split, over the classes that occur in it; None where nothing
    is labelled."""

    number: int
    name: str
    miou: float | None


class Evaluation(NamedTuple):
    """Confusion matrices int64 [K, K] by group (ACDC's condition, else "") and prediction; the score of each image;
    where they were wanted, the curves of curves.py and the suspects of suspects.py.

    answer: the name of the network's answer. made: when and with which versions, where it is read from a report.
    """

    groups: dict[str, dict[str, np.ndarray]]
    images: list[ImageScore]
    answer: str
    curves: dict[str, np.ndarray] = {}
    suspects: list[Suspect] = []
    made: dict = {}

    @property
    def matrices(self) -> dict[str, np.ndarray]:
        """Over all groups, by prediction."""
        names = next(iter(self.groups.values()))
        return {name: np.sum([group[name] for group in self.groups.values()], axis=0) for name in names}

    @property
    def miou(self) -> float:
        """Of the answer, as published."""
        return class_scores(self.matrices[self.answer])["miou"]

    def worst(self, count: int) -> list[ImageScore]:
        """The `count` labelled images with the lowest mIoU, the worst first."""
        labelled = [(image.miou, image) for image in self.images if image.miou is not None]
        return [image for _, image in sorted(labelled, key=itemgetter(0))][:count]


def training_metrics(measures: list[str]) -> type[metrics.Collection]:
    """A collection that averages the named measures over steps; each is given as [1], and so is a `mask`: whether the
    step counts."""
    return metrics.Collection.create(**{name: metrics.Average.from_output(name) for name in measures})
