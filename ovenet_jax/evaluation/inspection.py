"""What a network says of single images of a split: for panels, and for the seed inspector of a report."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.inference import Segmentation
from ovenet_jax.evaluation.panel import panel
from ovenet_jax.evaluation.protocol import Protocol
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.predictions import TITLES, Ranking, ranking
from ovenet_jax.supervision.task import Task

RANKS = 3  # classes kept per pixel, the most probable ones
STRIDE = 4  # of rankings where no pass saw the whole image


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
    evaluator: Evaluator,
    params: Arrays,
    statistics: Arrays,
    scores: Mapping[int, float | None],
) -> dict[int, Inspected]:
    """The images of the split that have `scores`; on this process alone."""
    model, protocol = evaluator.config.model, evaluator.inference.protocol
    offsets = model.get("offset", {})
    explain = partial(_explained, task=evaluator.task, protocol=protocol)
    found = {}
    with evaluator.samples(sorted(scores)) as read:
        for samples, segmentation in evaluator.inference.over(read, params, statistics):
            maps, rankings, confidence, offset = jax.device_get(explain(segmentation))
            for row, sample in enumerate(samples):
                size = height, width = sample["label"].shape
                if segmentation.maps is None:
                    grid = Grid((0.0, 0.0), (float(STRIDE), float(STRIDE)))
                    own = np.s_[row, : -(-height // STRIDE), : -(-width // STRIDE)]
                else:
                    network = segmentation.maps[segmentation.answer].shape[1:3]
                    grid, own = Grid.over(size, network, model.align_corners), np.s_[row, :, :]
                found[sample["index"]] = Inspected(
                    sample["name"],
                    sample["image"],
                    sample["label"],
                    {name: Ranking(*(x[own] for x in rankings[name])) for name in segmentation.scores},
                    grid,
                    None if offset is None else seeds(offset[row], offsets.grid_align_corners),
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


@partial(jax.jit, static_argnames=("task", "protocol"))
def _explained(
    segmentation: Segmentation, *, task: Task, protocol: Protocol
) -> tuple[dict[str, jax.Array], dict[str, Ranking], jax.Array | None, jax.Array | None]:
    """Class maps; the most probable classes; how sure OVeNet is of its seeds, or a SegFix of a boundary; offsets.

    All but class maps at the network's pixels or, where no pass saw the whole image, of summed scores at every
    STRIDE-th of the image's.
    """
    maps, logits = segmentation.maps, None  # as the network's are
    if maps is None:
        maps = {name: x[:, ::STRIDE, ::STRIDE] for name, x in segmentation.scores.items()}
        logits = protocol.sum == "logits"
        if logits:
            maps = {name: x / len(protocol.scales) for name, x in maps.items()}
        else:
            maps = {name: x / x.sum(-1, keepdims=True) for name, x in maps.items()}
    rankings = {
        name: ranking(task.probabilities(x, logits), task.class_map(x), RANKS) for name, x in maps.items()
    }
    confidence = segmentation.confidence
    sure = task.boundary(maps[segmentation.answer]) if confidence is None else confidence[..., 0]
    class_maps = {name: task.class_map(x) for name, x in segmentation.scores.items()}
    return class_maps, rankings, sure, segmentation.offset
