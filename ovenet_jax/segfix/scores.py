"""What refinement changes: IoU and boundary F-score of every class, before and after."""

from collections.abc import Sequence
from operator import add
from typing import NamedTuple

import numpy as np

from ovenet_jax.data.iou import class_iou
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.segfix.boundary import WIDTHS, BoundaryScores, boundary_scores
from ovenet_jax.tables import aligned, percent

MEANS = ("mean of those that occur", "mean as published")
COLUMNS = ("IoU", *(f"F at {width} px" for width in WIDTHS))


class Scores(NamedTuple):
    """Scores before and after refinement, summed over images by `+`. confusion: pixel counts int64 [2, K + 1, K + 1],
    rows true classes; the last row and column count other ids."""

    confusion: np.ndarray
    before: BoundaryScores
    after: BoundaryScores

    def __add__(self, other: "Scores") -> "Scores":  # type: ignore[override]  # tuples concatenate
        return Scores(*map(add, self, other))


def no_scores(num_classes: int) -> Scores:
    """Scores of no image."""
    none = BoundaryScores(np.zeros((len(WIDTHS), num_classes)), np.zeros(num_classes, np.int64), 0)
    return Scores(np.zeros((2, num_classes + 1, num_classes + 1), np.int64), none, none)


def scores_of(true: np.ndarray, before: np.ndarray, after: np.ndarray, num_classes: int) -> Scores:
    """Scores of one image: its true label, and its label before and after, uint8 train ids [H, W]."""
    confusion = np.stack([_confusion(true, label, num_classes) for label in (before, after)])
    return Scores(confusion, *(boundary_scores(true, label, num_classes) for label in (before, after)))


def _confusion(true: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    side = num_classes + 1
    rows, columns = (np.minimum(part[true != IGNORE], num_classes).astype(np.intp) for part in (true, label))
    return np.bincount(rows * side + columns, minlength=side**2).reshape(side, side)


def means(scores: Scores) -> dict[str, np.ndarray]:
    """Two kinds of means over the classes, of COLUMNS before and after, [columns, 2]."""
    if not scores.confusion.any():
        return dict.fromkeys(MEANS, np.full((len(COLUMNS), 2), np.nan))
    parts, iou = (scores.before, scores.after), _iou(scores)
    occurring = [np.nanmean(iou, axis=-1), *np.stack([part.mean_present for part in parts], axis=-1)]
    published = [np.nan_to_num(iou).mean(-1), *np.stack([part.mean_published for part in parts], axis=-1)]
    return dict(zip(MEANS, map(np.array, (occurring, published)), strict=True))


def table(scores: Scores, names: Sequence[str]) -> str:
    """IoU and boundary scores of every class, and their means, before and after, in percent."""
    boundary = np.stack([part.present for part in (scores.before, scores.after)], axis=1)
    columns = np.concatenate([_iou(scores)[None], boundary])
    rows = [*zip(names, np.moveaxis(columns, -1, 0), strict=True), *means(scores).items()]
    titles = ["[%]", *(cell for title in COLUMNS for cell in (title, ""))]
    lines = [titles, ["", *["before", "after"] * len(COLUMNS)]]
    text = aligned([*lines, *([title, *map(percent, pairs.ravel())] for title, pairs in rows)])
    return text if scores.confusion.any() else f"{text}\nNo pixel is labelled: there is nothing to compare with."


def _iou(scores: Scores) -> np.ndarray:
    """Before and after, of each class, [2, K]; nan where it does not occur."""
    return np.stack([class_iou(matrix)[:-1] for matrix in scores.confusion])
