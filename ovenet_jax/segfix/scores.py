"""What refinement changes: IoU and boundary F-score of every class, before and after."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.segfix.boundary import WIDTHS, BoundaryScores, boundary_scores

COLUMNS = ("IoU", *(f"F at {width} px" for width in WIDTHS))


class Scores(NamedTuple):
    """Of any number of images, before and after. confusion: pixel counts int64 [2, K + 1, K + 1], rows true classes,
    the last row and column no class."""

    confusion: np.ndarray
    before: BoundaryScores
    after: BoundaryScores

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(*(a + b for a, b in zip(self, other, strict=True)))


def no_scores(num_classes: int) -> Scores:
    """Of no image."""
    none = BoundaryScores(np.zeros((len(WIDTHS), num_classes)), np.zeros(num_classes, np.int64), 0)
    return Scores(np.zeros((2, num_classes + 1, num_classes + 1), np.int64), none, none)


def scores_of(true: np.ndarray, before: np.ndarray, after: np.ndarray, num_classes: int) -> Scores:
    """Of one image's true label, and of its label before and after, uint8 train ids [H, W]."""
    confusion = np.stack([_confusion(true, label, num_classes) for label in (before, after)])
    return Scores(confusion, *(boundary_scores(true, label, num_classes) for label in (before, after)))


def _confusion(true: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    side = num_classes + 1
    rows, columns = (np.minimum(part[true != IGNORE], num_classes).astype(np.intp) for part in (true, label))
    return np.bincount(rows * side + columns, minlength=side**2).reshape(side, side)


def means(scores: Scores) -> dict[str, np.ndarray]:
    """Two kinds of means over the classes, of COLUMNS before and after, [columns, 2]."""
    parts = scores.before, scores.after
    iou = np.stack([_iou(matrix) for matrix in scores.confusion])
    occurring = [np.nanmean(iou, axis=-1), *np.stack([part.mean_present for part in parts], axis=-1)]
    published = [np.nan_to_num(iou).mean(-1), *np.stack([part.mean_published for part in parts], axis=-1)]
    return {"mean of those that occur": np.array(occurring), "mean as published": np.array(published)}


def table(scores: Scores, names: Sequence[str]) -> str:
    """IoU and boundary scores of every class, and their means, before and after, in percent."""
    iou = np.stack([_iou(matrix) for matrix in scores.confusion])
    boundary = np.stack([part.present for part in (scores.before, scores.after)], axis=1)
    columns = np.concatenate([iou[None], boundary])
    rows = [*zip(names, np.moveaxis(columns, -1, 0), strict=True), *means(scores).items()]
    lines = [
        f"{'[%]':26}" + "".join(f"{title:>19}" for title in COLUMNS),
        " " * 26 + f"{'before':>11}{'after':>8}" * len(COLUMNS),
    ]
    for title, pairs in rows:
        cells = (f"{percent(before):>11}{percent(after):>8}" for before, after in pairs)
        lines.append(f"{title:26}" + "".join(cells))
    return "\n".join(lines)


def _iou(confusion: np.ndarray) -> np.ndarray:
    """Of each class, [K]; nan where it does not occur."""
    correct, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return (correct / np.where(union, union, np.nan))[:-1]


def percent(share: float) -> str:
    """With two decimals; "-" for nan."""
    return "-" if np.isnan(share) else f"{100 * share:.2f}"
