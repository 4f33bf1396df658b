"""Labels that look wrong, by how little a network believes them.

An image's score is the softmin over its pixels of the probability that the network gives to their labels: few pixels
that it does not believe at all pull it down. Source: Lad and Mueller, "Estimating label quality and errors in semantic
segmentation data via any model", 2023. A region's, a connected component of one label, is the mean over its pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation.inspection import Grid

TEMPERATURE = 0.1  # of the softmin, as published
SMALLEST = 8  # pixels of the network, of a region
KEPT, DOUBTED = 3, 0.5  # regions of an image, at most so many and with a score below that


class Region(NamedTuple):
    """A connected component of the label `given`, of which the network says it is `seen`.

    pixels: of the network. x, y: the position in the image, in pixels, of the pixel in its middle. score: 0 to 1.
    """

    given: int
    seen: int
    pixels: int
    x: int
    y: int
    score: float


class Suspect(NamedTuple):
    """The image `number` of the split, its score, and its least believed regions, at most KEPT."""

    number: int
    score: float
    regions: list[Region]


def as_suspect(content: Sequence) -> Suspect:
    """From JSON."""
    number, score, found = content
    return Suspect(number, score, [Region(*region) for region in found])


def suspect(
    number: int, label: np.ndarray, belief: np.ndarray, seen: np.ndarray, grid: Grid
) -> Suspect | None:
    """Of an image, whose maps [h, w] lie on `grid`; None where nothing is labelled. See `regions`."""
    score = softmin(belief[label != IGNORE])
    if score is None:
        return None
    least = [
        region._replace(
            x=round(grid.origin[0] + region.x * grid.spacing[0]),
            y=round(grid.origin[1] + region.y * grid.spacing[1]),
        )
        for region in regions(label, belief, seen)[:KEPT]
        if region.score < DOUBTED
    ]
    return Suspect(number, score, least)


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
