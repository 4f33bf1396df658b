"""The published test protocols as geometry: which parts of an image go through the network, and where they count.

An image is resized to each scale, one side to base_size * scale, and run whole or in windows. The class scores of all
passes are brought back to the image's own size and summed. This module computes only the geometry, in numpy;
`inference.py` applies it. Source: the test code of HRNet, HRNet-OCR and OVeNet, and of openseg.
"""

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from ovenet_jax.data.sizes import padded_size, scaled_size
from ovenet_jax.models.layers import interpolation_weights

CANVAS_BUCKETS = 4


class Protocol(NamedTuple):
    """How an image is tested.

    windows: "cityscapes" (also ACDC, ADE20K): up to scale 1 the whole image, above it adjacent windows of size `window`
    (H, W), the last one shifted to end at the border. "generic": windows at every scale, two thirds of their size
    apart, the last ones filled up with black. "whole": the whole image at every scale (openseg). "overlapping": windows
    at every scale, a third of their size apart, the last one shifted likewise (SegFix).
    side: the side that is resized to base_size * scale, "long" or "short". base_size 0: both keep their own length at
    scale 1.
    sum: what the passes add up, "exp" of the logits, or the "logits" (openseg, SegFix).
    bucket: the other side is rounded to a multiple of bucket (1: not at all), to limit the number of compiled shapes:
    with side "long" at most 2 * base_size * scale / bucket per scale up to 1. Full-size windows are unaffected. Images
    lie on canvases whose sides are multiples of CANVAS_BUCKETS buckets.
    keep_shape: False makes every image a square of base_size * scale, as published for LIP.
    parts_align_corners: align_corners of the last resize of S_i and S_s; None: as for S_f. The published visualisation
    of ADE20K uses False for them and True for S_f.
    """

    base_size: int
    window: tuple[int, int]
    windows: str
    sum: str
    side: str = "long"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    bucket: int = 1
    keep_shape: bool = True
    parts_align_corners: bool | None = None

    @classmethod
    def from_config(cls, settings) -> "Protocol":
        """From `config.eval`."""
        values = {name: settings[name] for name in cls._fields if name in settings}
        return cls(**values | {"window": tuple(settings.window), "scales": tuple(map(float, settings.scales))})

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
    """Bilinear interpolation along one axis: target[i] = sum over t of weights[t, i] * source[indices[t, i]]."""

    indices: np.ndarray  # int32 [2, n]
    weights: np.ndarray  # float32 [2, n]


class Pass(NamedTuple):
    """One run of the network, on a window of the image at one scale.

    size: (h, w) of the network's input. read: taps of rows and columns that cut the window from the image; black
    outside of it. write, write_parts: taps that add the scores of the final prediction, or of S_i and S_s, to the
    image; overlapping windows share the weight. scale: of the window; whole: whether it holds the whole image.
    """

    size: tuple[int, int]
    read: tuple[Taps, Taps]
    write: tuple[Taps, Taps]
    write_parts: tuple[Taps, Taps]
    scale: float
    whole: bool


def canvas_size(size: tuple[int, int], protocol: Protocol) -> tuple[int, int]:
    """The size (H, W) of an image's canvas: multiples of CANVAS_BUCKETS * bucket, or its own size for bucket 1."""
    return padded_size(size, 1 if protocol.bucket == 1 else CANVAS_BUCKETS * protocol.bucket)


def shapes(size: tuple[int, int], protocol: Protocol, align_corners: bool) -> tuple:
    """What must agree for images to be run together: the canvas and the sizes of all passes."""
    return canvas_size(size, protocol), tuple(p.size for p in passes(size, protocol, align_corners))


@lru_cache(maxsize=256)
def passes(size: tuple[int, int], protocol: Protocol, align_corners: bool) -> tuple[Pass, ...]:
    """All passes of an image of `size` (H, W), which lies at the top left of its canvas."""
    result = []
    for scale in protocol.scales:
        scaled = _scaled(size, scale, protocol)
        rows, columns = (
            _passes_of_axis(axis, side, length, scale, protocol, align_corners)
            for axis, (side, length) in enumerate(zip(size, scaled, strict=True))
        )
        for (height, *row), (width, *column) in product(rows, columns):
            read, write, write_parts = zip(row, column, strict=True)
            whole = (height, width) == scaled
            result.append(Pass((height, width), read, write, write_parts, scale, whole))
    return tuple(result)


def _scaled(size: tuple[int, int], scale: float, protocol: Protocol) -> tuple[int, int]:
    """(h, w) of the image at `scale`. The side that base_size leaves free is rounded to its bucket by resizing; padding
    with black cost far more accuracy (measured on CamVid)."""
    sides = {"short": min, "long": max}
    side = (protocol.base_size or sides[protocol.side](size)) * scale
    if not protocol.keep_shape:
        return (int(side + 0.5),) * 2
    scaled = list(scaled_size(size, side, sides[protocol.side]))
    free = int(np.argmax(scaled) if protocol.side == "short" else np.argmin(scaled))
    for axis in (free,) if protocol.base_size else (0, 1):
        bucketed = max(1, round(scaled[axis] / protocol.bucket)) * protocol.bucket
        if protocol.windows == "whole" or (protocol.windows == "cityscapes" and scale <= 1):
            scaled[axis] = bucketed
        elif protocol.windows != "generic" and scaled[axis] < protocol.window[axis]:
            scaled[axis] = min(bucketed, protocol.window[axis])
    return scaled[0], scaled[1]


def _windows(scaled: int, scale: float, protocol: Protocol, axis: int) -> tuple[list[int], int]:
    """Where windows start along an axis of `scaled` pixels, and their length."""
    window = protocol.window[axis]
    if protocol.windows == "whole":
        return [0], scaled
    if protocol.windows == "generic":
        stride = int(window * 2 / 3)
        count = max(0, math.ceil((scaled - window) / stride)) + 1
        return [stride * i for i in range(count)], window
    if (scale <= 1 and protocol.windows == "cityscapes") or scaled <= window:
        return [0], scaled
    if protocol.windows == "overlapping":
        starts = list(range(0, scaled - window + 1, window // 3))
        return starts if starts[-1] + window == scaled else [*starts, scaled - window], window
    return [min(window * i, scaled - window) for i in range(math.ceil(scaled / window))], window


def _passes_of_axis(
    axis: int, side: int, scaled: int, scale: float, protocol: Protocol, align_corners: bool
) -> list[tuple[int, Taps, Taps, Taps]]:
    """(length, `read`, `write`, `write_parts`) of each window of an axis of `side` pixels, resized to `scaled` ones."""
    starts, length = _windows(scaled, scale, protocol, axis)
    canvas = canvas_size((side, side), protocol)[axis]
    covered = np.zeros(scaled)
    for start in starts:
        covered[start : start + length] += 1
    align_parts = align_corners if protocol.parts_align_corners is None else protocol.parts_align_corners
    read = _taps(side, scaled, align_corners=False)  # as OpenCV resizes images
    write, write_parts = (_taps(scaled, side, align_corners=align) for align in (align_corners, align_parts))
    return [
        (
            length,
            _padded(Taps(*(x[:, start : start + length] for x in read)), length),
            _padded(_inside(write, start, length, covered), canvas),
            _padded(_inside(write_parts, start, length, covered), canvas),
        )
        for start in starts
    ]


def _taps(source: int, target: int, *, align_corners: bool) -> Taps:
    left, right, weight = interpolation_weights(source, target, align_corners)
    return Taps(np.stack([left, right]).astype(np.int32), np.stack([1 - weight, weight]).astype(np.float32))


def _inside(taps: Taps, start: int, length: int, covered: np.ndarray) -> Taps:
    """Taps of the whole axis restricted to one window, with weights divided by the number of overlapping windows."""
    indices = taps.indices - start
    inside = (indices >= 0) & (indices < length)
    weights = np.where(inside, taps.weights / covered[taps.indices], 0)
    return Taps(np.clip(indices, 0, length - 1), weights.astype(np.float32))


def _padded(taps: Taps, length: int) -> Taps:
    """Padded with taps of weight 0."""
    return Taps(*(np.pad(x, ((0, 0), (0, length - x.shape[1]))) for x in taps))
