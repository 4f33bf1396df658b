"""What refinement changes: IoU and boundary F-score of every class, before and after."""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np

from ovenet_jax.data.iou import class_iou
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.segfix.boundary import WIDTHS, boundary_scores
from ovenet_jax.tables import aligned, percent

MEANS = ("mean of those that occur", "mean as published")
COLUMNS = ("IoU", *(f"F at {width} px" for width in WIDTHS))


class Scores(NamedTuple):
    """Sums over images, before and after refinement.

    confusion: pixel counts int64 [2, K + 1, K + 1], rows true classes; the last row and column count other ids.
    boundary: F-scores [2, W, K] of the images in which the class has an outline. outlined: the number of these, [2, K].
    images: number of all images.
    """

    confusion: np.ndarray
    boundary: np.ndarray
    outlined: np.ndarray
    images: int


def scores_of(true: np.ndarray, before: np.ndarray, after: np.ndarray, num_classes: int) -> Scores:
    """Scores of one image: its true label, and its label before and after, uint8 train ids [H, W]."""
    confusion = np.stack([_confusion(true, label, num_classes) for label in (before, after)])
    boundary = np.stack([boundary_scores(true, label, num_classes) for label in (before, after)])
    return Scores(confusion, np.nan_to_num(boundary), np.isfinite(boundary[:, 0]).astype(np.int64), 1)


def summed(scores: Iterable[Scores]) -> Scores:
    """The scores of several images, at least one."""
    return reduce(lambda total, one: Scores(*map(add, total, one)), scores)


def _confusion(true: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    side = num_classes + 1
    rows, columns = (np.minimum(part[true != IGNORE], num_classes).astype(np.intp) for part in (true, label))
    return np.bincount(rows * side + columns, minlength=side**2).reshape(side, side)


def means(scores: Scores) -> dict[str, np.ndarray]:
    """Two kinds of means over the classes, of COLUMNS before and after, [columns, 2]; nan if no pixel is labelled."""
    if not scores.confusion.any():
        return dict.fromkeys(MEANS, np.full((len(COLUMNS), 2), np.nan))
    occurring, absent = _of_classes(scores), scores.images - scores.outlined
    published = [np.nan_to_num(occurring[:, :1]), (scores.boundary + absent[:, None]) / scores.images]
    both = np.ma.masked_invalid(occurring).mean(-1).filled(np.nan), np.concatenate(published, axis=1).mean(-1)
    return {title: mean.T for title, mean in zip(MEANS, both, strict=True)}


def table(scores: Scores, names: Sequence[str]) -> str:
    """IoU and boundary scores of every class, and their means, before and after, in percent."""
    rows = [*zip(names, _of_classes(scores).T, strict=True), *means(scores).items()]
    titles = ["[%]", *(cell for title in COLUMNS for cell in (title, ""))]
    lines = [titles, ["", *["before", "after"] * len(COLUMNS)]]
    text = aligned([*lines, *([title, *map(percent, pairs.ravel())] for title, pairs in rows)])
    return text if scores.confusion.any() else f"{text}\nNo pixel is labelled: there is nothing to compare with."


def _of_classes(scores: Scores) -> np.ndarray:
    """COLUMNS before and after of each class, [2, columns, K]; nan where it does not occur, or has no outline."""
    iou = np.stack([class_iou(matrix)[:-1] for matrix in scores.confusion])[:, None]
    return np.concatenate([iou, scores.boundary / np.where(scores.outlined, scores.outlined, np.nan)[:, None]], axis=1)
