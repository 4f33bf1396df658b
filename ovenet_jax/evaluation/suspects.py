"""Labels that look wrong, by how little a network believes them.

An image's score is the softmin over its pixels of the probability that the network gives to their labels: few pixels
that it does not believe at all pull it down. Source: Lad and Mueller, "Estimating label quality and errors in semantic
segmentation data via any model", 2023. A region's, a connected component of one label, is the mean over its pixels.
"""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation.evaluator import Batch, Evaluator
from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.results import Evaluation, Region, Suspect
from ovenet_jax.supervision.task import Task

TEMPERATURE = 0.1  # of the softmin, as published
SMALLEST = 8  # pixels of the network, of a region
KEPT, DOUBTED = 3, 0.5  # regions of an image, at most so many and with a score below that


class Suspects:
    """An `Observer` of the least believed labels, where classes are regions and a pass saw whole images."""

    def __init__(self, evaluator: Evaluator):
        self._task, self._align_corners = evaluator.task, evaluator.config.model.align_corners

    def measure(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array] | None:
        maps, label = batch.segmentation.maps, batch.network_label
        if maps is None or label is None or not self._task.of_regions:
            return None
        return label, *_judged(maps[batch.segmentation.answer], label, task=self._task)

    def found(self, samples: list[dict], measured: tuple | None) -> Evaluation:
        if measured is None:
            return Evaluation()
        suspects = []
        for sample, label, belief, seen in zip(samples, *map(list, measured), strict=False):
            score = softmin(belief[label != IGNORE])
            if score is not None:
                (x, y), (dx, dy) = Grid.over(sample["label"].shape, label.shape, self._align_corners)
                least = [
                    region._replace(x=round(x + region.x * dx), y=round(y + region.y * dy))
                    for region in regions(label, belief, seen)[:KEPT]
                    if region.score < DOUBTED
                ]
                suspects.append(Suspect(int(sample["index"]), score, least))
        return Evaluation(suspects=suspects)


@partial(jax.jit, static_argnames="task")
def _judged(scores: jax.Array, label: jax.Array, *, task: Task) -> tuple[jax.Array, jax.Array]:
    """The probability of the label, float32, and the answer, uint8, [B, h, w]."""
    known = jnp.where(label == IGNORE, 0, label).astype(jnp.int32)
    belief = jnp.take_along_axis(task.probabilities(scores), known[..., None], axis=-1)
    return belief[..., 0], task.class_map(scores)


def softmin(belief: np.ndarray) -> float | None:
    """The score of an image, of the probabilities of the labels [n]; None where nothing is labelled."""
    if not belief.size:
        return None
    weight = np.exp((1 - belief) / TEMPERATURE)
    return float((weight * belief).sum() / weight.sum())


def regions(label: np.ndarray, belief: np.ndarray, seen: np.ndarray) -> list[Region]:
    """All regions of `label` with at least SMALLEST pixels, the least believed first; x and y are columns and rows.

    label, belief, seen: [h, w], what is given, the probability of that, and what the network says.
    """
    found = []
    for given in np.setdiff1d(np.unique(label), IGNORE).tolist():
        count, numbers = cv2.connectedComponents((label == given).astype(np.uint8), connectivity=4)
        flat = numbers.ravel()
        pixels = np.bincount(flat, minlength=count)
        scores = np.bincount(flat, belief.ravel(), count) / np.maximum(1, pixels)
        for number in 1 + np.flatnonzero(pixels[1:] >= SMALLEST):
            inside = np.flatnonzero(flat == number)
            y, x = divmod(int(inside[len(inside) // 2]), label.shape[1])
            most = int(np.bincount(seen.ravel()[inside]).argmax())
            found.append(Region(given, most, int(pixels[number]), x, y, float(scores[number])))
    return sorted(found, key=lambda region: region.score)
