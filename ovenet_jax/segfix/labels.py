"""SegFix's ground truth as one class per pixel: it is cropped, mirrored, drawn and scored like any other label.

Training classes: `direction` in the interior, D + `direction` near a boundary, of D directions; the direction counts
wherever a boundary is predicted. Evaluation classes are offsets: 0 none, 1 + `direction` near a boundary.
"""

import colorsys
from typing import TYPE_CHECKING

import numpy as np

from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.segfix.directions import angle_of, direction_classes, offset_table, stored_angle

if TYPE_CHECKING:  # ground truth needs OpenCV, losses and metrics do not
    from ovenet_jax.segfix.ground_truth import GroundTruth

NO_OFFSET_COLOR = (255, 255, 255)


def training_classes(directions: int) -> Labels:
    """Classes 0 to 2D - 1, interior before boundary; mirroring swaps opposite directions."""
    return Labels(
        names=tuple(f"{where} {name}" for where in ("inside", "near") for name in _names(directions)),
        colors=(*_colors(directions, saturation=0.2), *_colors(directions, saturation=1.0)),
        ids=tuple((class_id,) for class_id in range(2 * directions)),
        flip_pairs=_mirrored(directions, first=0) + _mirrored(directions, first=directions),
    )


def evaluation_classes(directions: int) -> Labels:
    """Classes 0 to D; their label ids are the training classes."""
    return Labels(
        names=("none", *_names(directions)),
        colors=(NO_OFFSET_COLOR, *_colors(directions, saturation=1.0)),
        ids=(tuple(range(directions)), *((directions + direction,) for direction in range(directions))),
        flip_pairs=_mirrored(directions, first=1),
    )


def offset_of_class(directions: int) -> np.ndarray:
    """The offset (row, column) of each of `evaluation_classes`, int8 [1 + D, 2]."""
    return np.concatenate([np.zeros((1, 2), np.int8), offset_table(directions)])


def training_label(truth: "GroundTruth", ignored: np.ndarray, directions: int, near: int = 5) -> np.ndarray:
    """The training class of every pixel, IGNORE where `ignored` [H, W]: uint8 [H, W]. near: the largest distance from a
    border, in pixels, that counts as near a boundary."""
    stored = np.arange(256)
    boundary = np.where(stored <= near, directions, 0).astype(np.uint8)
    direction = direction_classes(stored_angle(stored), directions).astype(np.uint8)
    label = boundary.take(truth.distance) + direction.take(truth.direction)
    label[ignored] = IGNORE
    return label


def boundary_and_direction(label, directions: int):
    """Training classes [...], of numpy or jax, as boundary (1 near one, else 0) and direction; both are IGNORE where
    the label is."""
    xp = label.__array_namespace__()
    known = label != IGNORE
    return xp.where(known, label // directions, IGNORE), xp.where(known, label % directions, IGNORE)


def _names(directions: int) -> tuple[str, ...]:
    return tuple(f"({row}, {column})" for row, column in offset_table(directions).tolist())


def _colors(directions: int, saturation: float) -> tuple[tuple[int, int, int], ...]:
    """The hue is the direction's, as in the pictures of OVeNet's offsets: right red, down yellow-green, left cyan."""
    angles = angle_of(offset_table(directions).astype(float))
    colors = [colorsys.hsv_to_rgb(angle % 360 / 360, saturation, 1.0) for angle in angles]
    return tuple((round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in colors)


def _mirrored(directions: int, first: int) -> tuple[tuple[int, int], ...]:
    """The pairs of classes whose offsets are mirror images, direction 0 having the class `first`."""
    table = offset_table(directions).tolist()
    mirrored = [table.index([row, -column]) for row, column in table]
    return tuple((first + a, first + b) for a, b in enumerate(mirrored) if a < b)
