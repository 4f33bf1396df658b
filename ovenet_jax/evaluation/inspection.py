"""The network's output for single images of a split: for panels and the seed inspector of a report."""

from collections import deque
from collections.abc import Container, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation import inference, results
from ovenet_jax.evaluation.evaluator import Batch, Evaluator
from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.panel import panel
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.predictions import TITLES, Ranking, in_order, ranking
from ovenet_jax.supervision.task import Task

RANKS = 3  # classes kept per pixel, the most probable ones


class Inspected(NamedTuple):
    """An image and the network's output for it.

    image: uint8 [H, W, 3]. label: uint8 [H, W], 255 for ignored, or None. rankings: for each prediction, the final
    one last, [h, w, at most RANKS] at the pixels of `grid`. seed: float32 [h, w, 2], the offset (x, y) to the seed in
    network pixels, or None. confidence: float32 [h, w], or None; for SegFix the probability of a boundary.
    class_maps: uint8 [H, W] by prediction. offset: OVeNet's, [h, w, 2], or None. score: mIoU, or None.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    rankings: Mapping[str, Ranking]
    grid: Grid
    seed: np.ndarray | None = None
    confidence: np.ndarray | None = None
    class_maps: Mapping[str, np.ndarray] = {}
    offset: np.ndarray | None = None
    score: float | None = None


class Shown:
    """An `Observer` that keeps this process's images that the report shows: those with panels and the worst ones.

    kept: by image number.
    """

    def __init__(self, evaluator: Evaluator):
        self._evaluator = evaluator
        self._explained = deque[tuple[Batch, Any]]()
        self._worst: list[tuple[float, int]] = []
        self.kept: dict[int, Inspected] = {}

    def measure(self, batch: Batch) -> None:
        self._explained.append(_explained(self._evaluator, batch))

    def found(self, samples: list[dict], _: None) -> results.Evaluation:
        scored = [(sample["miou"], int(sample["index"])) for sample in samples if sample["miou"] is not None]
        self._worst = sorted([*self._worst, *scored])[: self._evaluator.config.eval.worst]
        wanted = {*self._evaluator.shown, *(number for _, number in self._worst)}
        self.kept |= _inspected(self._evaluator, *self._explained.popleft(), wanted)
        self.kept = {number: one for number, one in self.kept.items() if number in wanted}
        return results.Evaluation()


def inspect(
    evaluator: Evaluator, params: Arrays, statistics: Arrays, scores: Mapping[int, float | None]
) -> dict[int, Inspected]:
    """Runs the network on the images of the split with `scores`, on this process only."""
    found: dict[int, Inspected] = {}
    with evaluator.samples(sorted(scores)) as read:
        scored = (sample | {"miou": scores[sample["index"]]} for sample in read)
        for batch in evaluator.batches(scored, params, statistics):
            found |= _inspected(evaluator, *_explained(evaluator, batch), scores)
    return found


def _explained(evaluator: Evaluator, batch: Batch) -> tuple[Batch, Any]:
    """A batch without its scores, which take memory, and on the devices its class maps and what `_read_off` gives."""
    explained = batch.class_maps, *_read_off(batch.segmentation, task=evaluator.task)
    return batch._replace(segmentation=replace(batch.segmentation, scores={})), explained


def _inspected(evaluator: Evaluator, batch: Batch, explained: Any, wanted: Container[int]) -> dict[int, Inspected]:
    """The images of a batch whose numbers are `wanted`."""
    found = {}
    rows = [row for row, sample in enumerate(batch.samples) if sample["index"] in wanted]
    fetched = jax.device_get(explained) if rows else None
    for row in rows:
        sample = batch.samples[row]
        class_maps, rankings, confidence, offset = jax.tree.map(lambda x, row=row: x[row].copy(), fetched)
        height, width = sample["label"].shape
        own = np.s_[:, :]
        if batch.segmentation.logits is not None:
            own = np.s_[: -(-height // inference.STRIDE), : -(-width // inference.STRIDE)]
        found[int(sample["index"])] = Inspected(
            sample["name"],
            sample["image"],
            sample["label"],
            {name: Ranking(*(x[own] for x in ranking)) for name, ranking in in_order(rankings).items()},
            batch.grids[row],
            None if offset is None else seeds(offset, evaluator.config.model.offset.grid_align_corners),
            None if confidence is None else confidence[own],
            {name: x[:height, :width] for name, x in in_order(class_maps).items()},
            offset,
            sample["miou"],
        )
    return found


@partial(jax.jit, static_argnames="task")
def _read_off(
    segmentation: inference.Segmentation, *, task: Task
) -> tuple[dict[str, Ranking], jax.Array | None, jax.Array | None]:
    """At the network's pixels: the most probable classes, OVeNet's confidence or SegFix's boundary, and offsets."""
    rankings = {
        name: ranking(task.probabilities(x, segmentation.logits), task.class_map(x), RANKS)
        for name, x in segmentation.maps.items()
    }
    confidence = segmentation.confidence
    sure = task.boundary(segmentation.maps[segmentation.answer]) if confidence is None else confidence[..., 0]
    return rankings, sure, segmentation.offset


def panels(evaluator: Evaluator, params: Arrays, statistics: Arrays) -> dict[str, np.ndarray]:
    """The panels of `evaluator.shown`, by image name; on this process only."""
    found = inspect(evaluator, params, statistics, dict.fromkeys(evaluator.shown))
    return {one.name: picture(one, evaluator.task.classes) for one in found.values()}


def picture(inspected: Inspected, classes: Labels) -> np.ndarray:
    """Draws the panel."""
    maps = {TITLES[name]: class_map for name, class_map in inspected.class_maps.items()}
    confidence = None if inspected.offset is None else inspected.confidence
    return panel(inspected.image, inspected.label, maps, inspected.offset, confidence, classes)


def seeds(offset: np.ndarray, align_corners: bool) -> np.ndarray:
    """Converts normalised offsets [h, w, 2] to network pixels. align_corners: as in the seed gather."""
    size = np.array(offset.shape[1::-1])
    own = np.stack(np.meshgrid(*map(np.arange, size)), axis=-1)
    position = np.clip(own * (2 / np.maximum(1, size - 1)) - 1 + offset, -1, 1)
    pixel = (position + 1) / 2 * (size - 1) if align_corners else (position + 1) / 2 * size - 0.5
    return np.clip(pixel, 0, size - 1) - own
