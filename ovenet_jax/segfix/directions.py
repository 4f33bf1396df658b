"""Directions as angles, as classes and as offsets.

Offsets are whole pixels, (row, column). Angles are in degrees, atan2(row, column): 0 points right, 90 down, -90 up,
both -180 and 180 left.

Source: Yuan, Xie, Chen, Wang, "SegFix: Model-agnostic boundary refinement for segmentation", ECCV 2020, and its code.
"""

import numpy as np

COUNTS = (4, 8, 16, 32)  # of direction classes; published models have 8


def offset_table(count: int) -> np.ndarray:
    """The offset of each of `count` direction classes, int8 [count, 2].

    Clockwise from left, on a square of half side 1 pixel (16 classes: 2, 32 classes: 4). With 4 classes the offsets are
    diagonal, class 0 up and left.
    """
    step = 360 / count
    angles = np.radians(np.arange(count) * step - 180 + (step / 2 if count == 4 else 0))
    unit = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    on_square = unit / np.abs(unit).max(axis=-1, keepdims=True)
    return np.rint(on_square * max(1, count // 8)).astype(np.int8)


def angle_of(vectors: np.ndarray) -> np.ndarray:
    """The angle of `vectors` [..., 2], (row, column) -> [...]; 0 for the vector (0, 0)."""
    return np.arctan2(vectors[..., 0], vectors[..., 1]) * (180 / np.pi)


def stored_angle(direction: np.ndarray) -> np.ndarray:
    """The angle, in even degrees, of a byte from 0 to 180 in a ground truth file: float32 [...]."""
    return direction.astype(np.float32) * 2 - 180


def direction_classes(angle: np.ndarray, count: int = 8) -> np.ndarray:
    """The class of each angle [...], int32, 0 to count - 1: that with the nearest angle.

    Halfway between two classes the counterclockwise one counts. With 4 classes each is a quadrant with its first angle.
    """
    turned = (angle + 180) / (360 / count)
    if count == 4:
        return np.clip(np.floor(turned), 0, 3).astype(np.int32)
    return np.ceil(turned - 0.5).astype(np.int32) % count
