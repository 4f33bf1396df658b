"""Finds probable label errors, by the network's probability of each label.

An image's score is the softmin over its pixels of the probability of their labels: a few pixels of low probability pull
it down. Source: Lad and Mueller, "Estimating label quality and errors in semantic segmentation data via any model",
2023. The score of a region, a connected component of one label, is the mean over its pixels.
"""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation import inference, results
from ovenet_jax.evaluation.evaluator import Batch, Evaluator
from ovenet_jax.supervision.task import Task

TEMPERATURE = 0.1  # of the softmin, as published
SMALLEST = 8  # pixels of a region, at the network's resolution
KEPT, DOUBTED = 3, 0.5  # at most KEPT regions of an image, with a score below DOUBTED


class Suspects:
    """An `Observer` of the least probable labels; finds none for SegFix."""

    def __init__(self, evaluator: Evaluator):
        self._task = evaluator.task
        evaluator.inference.programs.append(_judged)

    def measure(self, batch: Batch) -> tuple:
        if not self._task.of_regions:
            return [], [], [], []
        label = batch.network_label
        return batch.grids, label, *_judged(batch.segmentation, label, task=self._task)

    def found(self, samples: list[dict], measured: tuple) -> results.Evaluation:
        suspects = []
        for sample, ((x, y), (dx, dy), _), label, belief, seen in zip(samples, *map(list, measured), strict=False):
            score = softmin(belief[label != IGNORE])
            if score is not None:
                least = [
                    region._replace(x=round(x + region.x * dx), y=round(y + region.y * dy))
                    for region in regions(label, belief, seen)[:KEPT]
                    if region.score < DOUBTED
                ]
                suspects.append(results.Suspect(int(sample["index"]), score, least))
        return results.Evaluation(suspects=suspects)


@partial(jax.jit, static_argnames="task")
def _judged(segmentation: inference.Segmentation, label: jax.Array, *, task: Task) -> tuple[jax.Array, jax.Array]:
    """The probability of the label, float32 [B, h, w], and the final prediction, uint8 [B, h, w]."""
    scores = segmentation.maps[segmentation.answer]
    known = jnp.where(label == IGNORE, 0, label).astype(jnp.int32)
    shares = task.probabilities(scores, segmentation.logits)
    return jnp.take_along_axis(shares, known[..., None], axis=-1)[..., 0], task.class_map(scores)


def softmin(belief: np.ndarray) -> float | None:
    """An image's score from the probabilities of its labels [n]; None where nothing is labelled."""
    if not belief.size:
        return None
    weight = np.exp((1 - belief) / TEMPERATURE)
    return float((weight * belief).sum() / weight.sum())


def regions(label: np.ndarray, belief: np.ndarray, seen: np.ndarray) -> list[results.Region]:
    """All regions of `label` with at least SMALLEST pixels, by rising score; x and y are columns and rows.

    label, belief, seen: [h, w], the labels, their probability and the predicted classes.
    """
    found = []
    for given in np.setdiff1d(np.unique(label), IGNORE).tolist():
        _, numbers = cv2.connectedComponents((label == given).astype(np.uint8), connectivity=4)
        for number in 1 + np.flatnonzero(np.bincount(numbers.ravel())[1:] >= SMALLEST):
            inside = np.flatnonzero(numbers == number)
            y, x = divmod(int(inside[len(inside) // 2]), label.shape[1])
            most = int(np.bincount(seen.ravel()[inside]).argmax())
            score = float(belief.ravel()[inside].mean(dtype=np.float64))
            found.append(results.Region(given, most, len(inside), x, y, score))
    return sorted(found, key=lambda region: region.score)
