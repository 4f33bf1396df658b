"""The published test protocol as geometry: which parts of an image go through the network, and where they count.

An image is resized to each scale, the longer side to base_size * scale, and run whole or in windows. The class
scores of all passes are brought back to the image's own size and summed. Here all of that is numpy on the sizes
alone; `inference.py` does it to pixels. Source: the test code of HRNet, HRNet-OCR and OVeNet.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ovenet_jax.data.augment import scaled_size
from ovenet_jax.errors import UserError
from ovenet_jax.models.layers import interpolation_weights

WINDOWS = ("cityscapes", "generic")


class Protocol(NamedTuple):
    """How an image is tested.

    windows: "cityscapes" (also ACDC, ADE20K): up to scale 1 the whole image, above it windows of size `window`
    (H, W) side by side, the last ones pulled back inside. "generic": windows at every scale, two thirds of their size
    apart, the last ones filled up with black.
    bucket: 1, or a number that the short sides of passes are rounded to multiples of, so that a data set of
    varying image sizes needs few shapes. Windows of the full size are never touched by it.
    parts_align_corners: of the last resize of S_i and S_s; None: as the network. Published visualisation of ADE20K:
    False, where S_f has True.
    """

    base_size: int
    window: tuple[int, int]
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    windows: str = "cityscapes"
    bucket: int = 1
    parts_align_corners: bool | None = None

    @classmethod
    def from_config(cls, settings) -> "Protocol":
        """From `config.eval`.

        Raises:
          UserError: a value that no protocol can have.
        """
        scales = settings.scales if isinstance(settings.scales, tuple | list) else (settings.scales,)
        if not scales or not all(type(s) in (int, float) and 0 < s < math.inf for s in scales):
            raise UserError(
                f"config.eval.scales is {scales}; it must be positive numbers, like (0.5, 1.0, 1.5)."
            )
        window = tuple(settings.window)
        if len(window) != 2 or not all(isinstance(side, int) and side >= 32 for side in window):
            raise UserError(f"config.eval.window is {window}; it must be (height, width), both at least 32.")
        if settings.windows not in WINDOWS:
            raise UserError(f"config.eval.windows is {settings.windows!r}; known: {', '.join(WINDOWS)}.")
        for key in ("base_size", "bucket"):
            value = getattr(settings, key)
            if value < 1:
                raise UserError(f"config.eval.{key} is {value}; it must be at least 1.")
        return cls(
            base_size=settings.base_size,
            window=window,
            scales=tuple(map(float, scales)),
            flip=settings.flip,
            windows=settings.windows,
            bucket=settings.bucket,
            parts_align_corners=settings.parts_align_corners,
        )

    def __str__(self) -> str:
        """For people: "scales 0.5 1 2, flip"."""
        scales = " ".join(f"{scale:g}" for scale in self.scales)
        return f"scale{'s' * (len(self.scales) > 1)} {scales}{', flip' * self.flip}"

    @property
    def suffix(self) -> str:
        """For file names: "_0.5-1-2_flip"; nothing for one pass at scale 1."""
        scales = "" if self.scales == (1.0,) else "_" + "-".join(f"{scale:g}" for scale in self.scales)
        return scales + "_flip" * self.flip


class Taps(NamedTuple):
    """One axis of a bilinear read of n pixels: target[i] = sum over t of weight[t, i] * source[index[t, i]]."""

    index: np.ndarray  # int32 [2, n]
    weight: np.ndarray  # float32 [2, n]


class Pass(NamedTuple):
    """One run of the network, on a window of the image at one scale.

    size: (h, w) of the network's input. read: rows and columns of the image -> that window; black outside the image.
    write, write_parts: rows and columns of the window -> the image, where it counts, for the answer and for S_i, S_s;
    overlapping windows share their weight. scale: the window's, `whole`: whether it holds the whole image.
    """

    size: tuple[int, int]
    read: tuple[Taps, Taps]
    write: tuple[Taps, Taps]
    write_parts: tuple[Taps, Taps]
    scale: float
    whole: bool


def canvas_size(size: tuple[int, int], protocol: Protocol) -> tuple[int, int]:
    """The size (H, W) that an image is padded to, so that few sizes occur."""
    return tuple(-(-side // protocol.bucket) * protocol.bucket for side in size)


@lru_cache(maxsize=256)
def passes(size: tuple[int, int], protocol: Protocol, align_corners: bool) -> tuple[Pass, ...]:
    """All passes of an image of `size` (H, W), which lies at the top left of its canvas."""
    canvas = canvas_size(size, protocol)
    align_parts = align_corners if protocol.parts_align_corners is None else protocol.parts_align_corners
    result = []
    for scale in protocol.scales:
        scaled = _pass_size(size, scale, protocol)
        rows, columns = (
            _windows_of_axis(
                size[axis], canvas[axis], scaled[axis], *_tiling(scaled[axis], protocol.window[axis], scale, protocol),
                align_corners, align_parts,
            )
            for axis in (0, 1)
        )  # fmt: skip
        result += [
            Pass(
                size=(row.length, column.length),
                read=(row.read, column.read),
                write=(row.write, column.write),
                write_parts=(row.write_parts, column.write_parts),
                scale=scale,
                whole=len(rows) == len(columns) == 1,
            )
            for row in rows
            for column in columns
        ]
    return tuple(result)


def shapes(size: tuple[int, int], protocol: Protocol) -> tuple:
    """What must agree for images to be run together: the canvas and the sizes of all passes."""
    return canvas_size(size, protocol), tuple(p.size for p in passes(size, protocol, True))


def _pass_size(size: tuple[int, int], scale: float, protocol: Protocol) -> tuple[int, int]:
    """(h, w) of the image at `scale`; a short side that the network would see as it is goes to its bucket."""
    scaled = list(scaled_size(size, protocol.base_size * scale))
    short = int(np.argmin(scaled))
    if protocol.windows == "cityscapes" and (scale <= 1 or scaled[short] < protocol.window[short]):
        scaled[short] = max(1, round(scaled[short] / protocol.bucket)) * protocol.bucket
    return tuple(scaled)


def _tiling(scaled: int, window: int, scale: float, protocol: Protocol) -> tuple[list[int], int]:
    """Along one axis of `scaled` pixels: where windows start, and their length."""
    if protocol.windows == "generic":
        stride = int(window * 2 / 3)
        count = max(0, math.ceil((scaled - window) / stride)) + 1
        return [stride * i for i in range(count)], window
    if scale <= 1 or scaled <= window:
        return [0], scaled
    count = math.ceil(scaled / window)
    return [min(window * i, scaled - window) for i in range(count)], window


class _Window(NamedTuple):
    length: int
    read: Taps
    write: Taps
    write_parts: Taps


def _windows_of_axis(
    side: int,
    canvas: int,
    scaled: int,
    starts: list[int],
    length: int,
    align_corners: bool,
    align_parts: bool,
) -> list[_Window]:
    covered = np.zeros(scaled)
    for start in starts:
        covered[start : start + length] += 1
    read = _taps(side, scaled, align_corners=False)  # as OpenCV resizes images
    write, write_parts = (_taps(scaled, side, align_corners=align) for align in (align_corners, align_parts))
    return [
        _Window(
            length,
            read=_padded(Taps(read.index[:, start : start + length], read.weight[:, start : start + length]), length),
            write=_padded(_inside(write, start, length, covered), canvas),
            write_parts=_padded(_inside(write_parts, start, length, covered), canvas),
        )
        for start in starts
    ]  # fmt: skip


def _taps(source: int, target: int, *, align_corners: bool) -> Taps:
    left, right, weight = interpolation_weights(source, target, align_corners)
    return Taps(np.stack([left, right]).astype(np.int32), np.stack([1 - weight, weight]).astype(np.float32))


def _inside(taps: Taps, start: int, length: int, covered: np.ndarray) -> Taps:
    """The share that one window has in a read of the whole axis, as a read of that window."""
    index = taps.index - start
    inside = (index >= 0) & (index < length)
    weight = np.where(inside, taps.weight / covered[taps.index], 0)
    return Taps(np.clip(index, 0, length - 1), weight.astype(np.float32))


def _padded(taps: Taps, length: int) -> Taps:
    """Filled up with reads of nothing."""
    missing = ((0, 0), (0, length - taps.index.shape[1]))
    return Taps(np.pad(taps.index, missing), np.pad(taps.weight, missing))
