"""Labels and offsets as colours: RGB, uint8 [H, W, 3]."""

from collections.abc import Sequence

import cv2
import numpy as np

from ovenet_jax.data.labels import COLORS, IGNORE, Labels


def label_colors(label: np.ndarray, classes: Labels) -> np.ndarray:
    """The palette's colours of `label` [H, W] (train ids), uint8 [H, W, 3]; 255, ignored, is black.

    Raises ValueError for any other value.
    """
    outside = label[((label < 0) | (label >= len(classes.names))) & (label != IGNORE)]
    if outside.size:
        fault = f"label value {outside[0]} is outside the table of {len(classes.names)} classes"
        raise ValueError(f"{fault}: expected 0 to {len(classes.names) - 1}, or {IGNORE} for ignored")
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes.colors)] = classes.colors
    return table[label]


def offset_colors(offset: np.ndarray, max_length: float) -> np.ndarray:
    """The colour wheel: `offset` [H, W, 2], pixels, x right and y down -> uint8 [H, W, 3].

    Hue is the direction (right red, down yellow-green, left cyan, up violet), saturation the length: white at 0, full
    at `max_length` pixels (above 0) and beyond.
    """
    x, y = offset[..., 0].astype(np.float32), offset[..., 1].astype(np.float32)
    hue = np.degrees(np.arctan2(y, x)) % 360
    saturation = np.clip(np.hypot(x, y) / max_length, 0, 1)
    hsv = np.stack([hue, saturation, np.ones_like(hue)], axis=-1).astype(np.float32)
    return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


def in_colors(image: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """An image, uint8 RGB, or uint16 [H, W, C] of named channels, to look at: uint8 [H, W, 3]. Of named channels red,
    green and blue are shown, else the first three, or of two the first as grey; large values are scaled down to 255."""
    if image.dtype == np.uint8:
        return image
    named = [channels.index(color) for color in COLORS if color in channels]
    shown = image[..., named if len(named) == 3 else [0, 1, 2] if len(channels) > 2 else [0, 0, 0]]
    return np.minimum(shown * (255 / max(255, np.percentile(shown, 99))), 255).astype(np.uint8)


def overlay(image: np.ndarray, class_map: np.ndarray, classes: Labels) -> np.ndarray:
    """`image` [H, W, 3] blended 1:1 with the colours of `class_map` [H, W] (train ids): uint8 of the same size."""
    return cv2.addWeighted(image, 0.5, label_colors(class_map, classes), 0.5, 0)
