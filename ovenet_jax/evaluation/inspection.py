"""The network's output for single images of a split: for panels and the seed inspector of a report."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from ovenet_jax.data.labels import Labels
from ovenet_jax.devices import memory
from ovenet_jax.evaluation.colours import in_colors
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.inference import Segmentation
from ovenet_jax.evaluation.panel import panel
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.predictions import TITLES, Ranking, in_order, ranking
from ovenet_jax.segfix.shift import seed_offsets
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


@memory.enough_memory(memory.EVALUATION_MEMORY)
def inspect(evaluator: Evaluator, params: Arrays, statistics: Arrays, numbers: Iterable[int]) -> dict[int, Inspected]:
    """Runs the network on the images of the split with these numbers, on this process only; without scores."""
    align_corners = evaluator.config.model.get("offset", {}).get("grid_align_corners")
    found: dict[int, Inspected] = {}
    with evaluator.samples(sorted(set(numbers))) as read:
        for batch in evaluator.batches(read, params, statistics, warns=False):  # the evaluation has warned
            outputs = jax.device_get((batch.class_maps, *_read_off(batch.segmentation, task=evaluator.task)))
            for row, (sample, grid) in enumerate(zip(batch.samples, batch.grids, strict=True)):
                class_maps, rankings, confidence, offset = jax.tree.map(lambda x, row=row: x[row], outputs)
                whole, own = (tuple(map(slice, size)) for size in (sample["label"].shape, grid.size))
                found[int(sample["index"])] = Inspected(
                    sample["name"],
                    in_colors(sample["image"], evaluator.config.model.input.get("channels", ())),
                    sample["label"],
                    {name: Ranking(*(x[own] for x in ranking)) for name, ranking in in_order(rankings).items()},
                    grid,
                    None if offset is None else seed_offsets(offset, align_corners, whole=False)[..., ::-1],
                    None if confidence is None else confidence[own][..., 0],
                    {name: x[whole] for name, x in in_order(class_maps).items()},
                    offset,
                )
    return found


@partial(jax.jit, static_argnames="task")
def _read_off(
    segmentation: Segmentation, *, task: Task
) -> tuple[dict[str, Ranking], jax.Array | None, jax.Array | None]:
    """At the network's pixels: the most probable classes, OVeNet's confidence or SegFix's boundary, and offsets."""
    shares = {name: task.probabilities(x, segmentation.logits) for name, x in segmentation.maps.items()}
    rankings = {name: ranking(shares[name], task.class_map(x), RANKS) for name, x in segmentation.maps.items()}
    confidence = segmentation.confidence if task.of_regions else 1 - shares[segmentation.answer][..., :1]
    return rankings, confidence, segmentation.offset


def panels(evaluator: Evaluator, params: Arrays, statistics: Arrays) -> dict[str, np.ndarray]:
    """The panels of `evaluator.shown`, by image name; on this process only."""
    found = inspect(evaluator, params, statistics, evaluator.shown)
    return {one.name: picture(one, evaluator.task.classes) for one in found.values()}


def picture(inspected: Inspected, classes: Labels) -> np.ndarray:
    """Draws the panel."""
    maps = {TITLES[name]: class_map for name, class_map in inspected.class_maps.items()}
    confidence = None if inspected.offset is None else inspected.confidence
    return panel(inspected.image, inspected.label, maps, inspected.offset, confidence, classes)
