"""Samples maps where offsets point to: the label of a pixel at a boundary is taken from inside of its object.

A map is sampled bilinearly at position + offset, clipped to the image. Ids are rounded (half to even), masks
thresholded at 0.5. With whole offsets that is the value of one pixel, and only the pixels that move are processed.

Source: the refinement scripts of SegFix's code. They normalise positions so that -1 and 1 are the centres of the outer
pixels, as PyTorch's `grid_sample` did by default then. `align_corners` False reproduces runs on newer versions, where
they are the outer edges: then labels are interpolated, and mixed, all over the image.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy import ndimage

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.segfix.files import Offsets

SEMANTIC_SCALE, INSTANCE_SCALE = 2.0, 1.0  # of boundary offsets, for label maps and for instances; published
SURE = 0.5  # seeds whose confidence is above it count
Shift = Callable[[np.ndarray], np.ndarray]


def shift_of(
    offsets: Offsets, scale: float = SEMANTIC_SCALE, threshold: float = SURE, align_corners: bool = True
) -> Shift:
    """The shift by offsets: those of boundaries times `scale`, or those to seeds where their confidence is above
    `threshold`, which is OVeNet's fusion with confidences of 1 and 0."""
    offset, confidence = offsets
    if confidence is None:
        return shift_by(offset, scale, align_corners)
    return shift_by(np.where(confidence[..., None] > threshold, offset, 0), align_corners=align_corners)


def shift_by(offset: np.ndarray, scale: float = 1.0, align_corners: bool = True) -> Shift:
    """A function of maps [H, W] of numbers, that samples them by `scale` * `offset` [H, W, 2], (row, column) in pixels.

    It returns maps of the same type where offsets are integers and the scale is whole, else float32.
    """
    if offset.dtype.kind in "iu" and float(scale).is_integer() and align_corners:
        return _shift_by_pixels(offset, int(scale))
    return _shift_between_pixels(offset * np.float32(scale), align_corners)


def seed_offsets(offset: np.ndarray, align_corners: bool = True, whole: bool = True) -> np.ndarray:
    """OVeNet's offsets [H, W, 2], normalised, x first, as offsets (row, column) in pixels to each seed or, `whole`, to
    the pixel nearest to it, int32; seeds beyond the image lie at its edge. `align_corners`: as the network samples its
    scores."""
    size = np.array(offset.shape[:2])
    own = np.moveaxis(np.indices(offset.shape[:2]), 0, -1)
    position = np.clip(own * (2 / np.maximum(1, size - 1)) - 1 + offset[..., ::-1], -1, 1)
    pixel = (position + 1) / 2 * (size - 1) if align_corners else (position + 1) / 2 * size - 0.5
    pixel = np.clip(pixel, 0, size - 1)
    return (np.rint(pixel) - own).astype(np.int32) if whole else pixel - own


def refined_numbers(label: np.ndarray, shift: Shift) -> np.ndarray:
    """Train ids, uint8 [H, W], after `shift`. Interpolation between two classes may give a third."""
    shifted = shift(label)
    return shifted if shifted.dtype == np.uint8 else np.rint(shifted).astype(np.uint8)


def refined_ids(ids: np.ndarray, numbers: np.ndarray, shift: Shift) -> np.ndarray:
    """Label ids, uint8 [H, W], after `shift`. numbers: lookup table uint8 [256] from ids to train ids.

    A pixel whose train id does not change keeps its id. Otherwise it takes the id of the pixel that its offset leads
    to. Between pixels it takes an id of the rounded mean of their train ids, but keeps its own if the map has no such
    id or one of these pixels is void.
    """
    own, shifted = numbers[ids], shift(ids)
    if shifted.dtype == np.uint8:
        return np.where(numbers[shifted] == own, ids, shifted)
    refined = refined_numbers(own, shift)
    of_void = shift((own == IGNORE).astype(np.uint8))
    unmixed = (of_void == 0) | (of_void == 1)
    present = np.unique(ids)
    id_of, holds = np.zeros(256, np.uint8), np.zeros(256, bool)
    id_of[numbers[present]], holds[numbers[present]] = present, True
    return np.where(unmixed & holds[refined] & (refined != own), id_of[refined], ids)


def refined_mask(mask: np.ndarray, shift: Shift) -> np.ndarray:
    """Mask, bool [H, W], after `shift`."""
    return shift(mask.astype(np.uint8)) > 0.5


def _shift_by_pixels(offset: np.ndarray, scale: int) -> Shift:
    height, width = offset.shape[:2]
    rows, columns = (offset[..., axis] for axis in (0, 1))
    # In memory order: that of MATLAB's arrays, or C.
    order: Literal["C", "F"] = "F" if rows.flags.f_contiguous else "C"
    rows, columns = rows.ravel(order), columns.ravel(order)
    moved = np.flatnonzero((rows | columns) != 0)
    y, x = np.unravel_index(moved, (height, width), order)
    source_y = np.clip(y + scale * rows[moved].astype(np.intp), 0, height - 1)
    source_x = np.clip(x + scale * columns[moved].astype(np.intp), 0, width - 1)
    moved, source = y * width + x, source_y * width + source_x

    def shift(values: np.ndarray) -> np.ndarray:
        shifted = values.copy()
        shifted.ravel()[moved] = values.ravel()[source]
        return shifted

    return shift


def _shift_between_pixels(offset: np.ndarray, align_corners: bool) -> Shift:
    position = np.indices(offset.shape[:2]) + np.moveaxis(offset, -1, 0)
    if not align_corners:
        size = np.array(offset.shape[:2], np.float32).reshape(2, 1, 1)
        position = position * (size / (size - 1)) - 0.5
    return lambda values: ndimage.map_coordinates(values.astype(np.float32), position, order=1, mode="nearest")
