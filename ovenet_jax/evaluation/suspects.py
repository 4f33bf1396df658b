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
from ovenet_jax.evaluation.inference import Segmentation
from ovenet_jax.evaluation.results import Evaluation, Region, Suspect
from ovenet_jax.supervision.task import Task

TEMPERATURE = 0.1  # of the softmin, as published
SMALLEST = 8  # pixels of the network, of a region
KEPT, DOUBTED = 3, 0.5  # regions of an image, at most so many and with a score below that


class Suspects:
    """An `Observer` of the least believed labels, where classes are regions."""

    def __init__(self, evaluator: Evaluator):
        self._task = evaluator.task

    def measure(self, batch: Batch) -> tuple:
        if not self._task.of_regions:
            return [], [], [], []
        label = batch.network_label
        return batch.grids, label, *_judged(batch.segmentation, label, task=self._task)

    def found(self, samples: list[dict], measured: tuple) -> Evaluation:
        suspects = []
        for sample, ((x, y), (dx, dy)), label, belief, seen in zip(samples, *map(list, measured), strict=False):
            score = softmin(belief[label != IGNORE])
            if score is not None:
                least = [
                    region._replace(x=round(x + region.x * dx), y=round(y + region.y * dy))
                    for region in regions(label, belief, seen)[:KEPT]
                    if region.score < DOUBTED
                ]
                suspects.append(Suspect(int(sample["index"]), score, least))
        return Evaluation(suspects=suspects)


@partial(jax.jit, static_argnames="task")
def _judged(segmentation: Segmentation, label: jax.Array, *, task: Task) -> tuple[jax.Array, jax.Array]:
    """The probability of the label, float32, and the answer, uint8, [B, h, w]."""
    scores = segmentation.maps[segmentation.answer]
    known = jnp.where(label == IGNORE, 0, label).astype(jnp.int32)
    shares = task.probabilities(scores, segmentation.logits)
    return jnp.take_along_axis(shares, known[..., None], axis=-1)[..., 0], task.class_map(scores)


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
