"""What a network says of single images of a split: for panels, and for the seed inspector of a report."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.inference import STRIDE, Segmentation
from ovenet_jax.evaluation.panel import panel
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.predictions import TITLES, Ranking, ranking
from ovenet_jax.supervision.task import Task

RANKS = 3  # classes kept per pixel, the most probable ones


class Inspected(NamedTuple):
    """An image and what a network says of it.

    image: uint8 [H, W, 3]. label: uint8 [H, W], 255 for ignored, or None. rankings: by prediction, the model's answer
    last, each [h, w, at most RANKS]; their pixels lie on `grid`. seed: float32 [h, w, 2], how many of the network's
    pixels its seed lies to the right and below, or None. confidence: float32 [h, w], or None; a SegFix's is that of a
    boundary. class_maps: uint8 [H, W] by prediction. offset: OVeNet's, [h, w, 2], or None. score: mIoU, or None.
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


def inspect(
    evaluator: Evaluator, params: Arrays, statistics: Arrays, scores: Mapping[int, float | None]
) -> dict[int, Inspected]:
    """The images of the split that have `scores`; on this process alone."""
    model = evaluator.config.model
    found = {}
    with evaluator.samples(sorted(scores)) as read:
        for samples, segmentation in evaluator.inference.over(read, params, statistics):
            maps, rankings, confidence, offset = jax.device_get(_explained(segmentation, task=evaluator.task))
            for row, sample in enumerate(samples):
                height, width = sample["label"].shape
                grid = Grid.of(segmentation, (height, width), model.align_corners)
                own = np.s_[row, :, :]
                if segmentation.logits is not None:
                    own = np.s_[row, : -(-height // STRIDE), : -(-width // STRIDE)]
                found[sample["index"]] = Inspected(
                    sample["name"],
                    sample["image"],
                    sample["label"],
                    {name: Ranking(*(x[own] for x in rankings[name])) for name in segmentation.scores},
                    grid,
                    None if offset is None else seeds(offset[row], model.offset.grid_align_corners),
                    None if confidence is None else confidence[own],
                    {name: maps[name][row, :height, :width] for name in segmentation.scores},
                    None if offset is None else offset[row],
                    scores[sample["index"]],
                )
    return found


def panels(evaluator: Evaluator, params: Arrays, statistics: Arrays) -> dict[str, np.ndarray]:
    """Of the images that the evaluator shows, by name; on this process alone."""
    found = inspect(evaluator, params, statistics, dict.fromkeys(evaluator.shown))
    return {one.name: picture(one, evaluator.task.classes) for one in found.values()}


def picture(inspected: Inspected, classes: Labels) -> np.ndarray:
    """As a panel."""
    maps = {TITLES[name]: class_map for name, class_map in inspected.class_maps.items()}
    confidence = None if inspected.offset is None else inspected.confidence
    return panel(inspected.image, inspected.label, maps, inspected.offset, confidence, classes)


def seeds(offset: np.ndarray, align_corners: bool) -> np.ndarray:
    """Inspected.seed of OVeNet's offsets [h, w, 2]. align_corners: as the network samples its scores."""
    size = np.array(offset.shape[1::-1])
    own = np.stack(np.meshgrid(*map(np.arange, size)), axis=-1)
    position = np.clip(own * (2 / np.maximum(1, size - 1)) - 1 + offset, -1, 1)
    pixel = (position + 1) / 2 * (size - 1) if align_corners else (position + 1) / 2 * size - 0.5
    return np.clip(pixel, 0, size - 1) - own


@partial(jax.jit, static_argnames="task")
def _explained(
    segmentation: Segmentation, *, task: Task
) -> tuple[dict[str, jax.Array], dict[str, Ranking], jax.Array | None, jax.Array | None]:
    """Class maps; at the pixels of maps the most probable classes, how sure OVeNet is of its seeds, or a SegFix of a
    boundary, and offsets."""
    rankings = {
        name: ranking(task.probabilities(x, segmentation.logits), task.class_map(x), RANKS)
        for name, x in segmentation.maps.items()
    }
    confidence = segmentation.confidence
    sure = task.boundary(segmentation.maps[segmentation.answer]) if confidence is None else confidence[..., 0]
    class_maps = {name: task.class_map(x) for name, x in segmentation.scores.items()}
    return class_maps, rankings, sure, segmentation.offset
