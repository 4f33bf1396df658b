"""What the seed inspector of a report knows of an image, packed to travel inside the page.

All maps are kept at the network's own resolution. A packed map is a plane of integers: probabilities in steps of
1 / `levels`, seeds in parts of a network's pixel. What neighbours foretell is subtracted, so that deflate finds little
left; the page adds it again. An image that would take more than its share of the page is packed in coarser steps, and
the page says which.
"""

import base64
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ovenet_jax.models.predictions import Ranking

RANKS = 3  # classes kept per pixel, the most probable ones
MOST_PIXELS = 2**21  # of a picture, as many as 1024x2048 has; larger ones are reduced
STEPS = ((1000, 64), (200, 16), (100, 8), (50, 4), (25, 4))  # a probability's and a pixel's, finest first
QUALITIES = (90, 80, 65, 45, 25)  # of pictures, WebP
PICTURE_SHARE = 0.4  # of an image's bytes


class Grid(NamedTuple):
    """Where the network's pixels lie in the image: the centre of the first one, and their distance, (x, y) in pixels.

    The centre of the image's first pixel is (0, 0).
    """

    origin: tuple[float, float]
    spacing: tuple[float, float]

    def indices(self, axis: int, network: int, image: int) -> np.ndarray:
        """The pixels of the image nearest to the network's along x (0) or y (1): int [network]."""
        positions = self.origin[axis] + self.spacing[axis] * np.arange(network)
        return np.clip(np.floor(positions + 0.5), 0, image - 1).astype(int)

    @classmethod
    def over(cls, image: tuple[int, int], network: tuple[int, int], align_corners: bool) -> "Grid":
        """Of a map of size `network` (h, w) that covers an `image` (H, W), its corner pixels on the image's or not."""
        (height, width), (rows, columns) = image, network
        if align_corners:
            return cls((0.0, 0.0), ((width - 1) / max(1, columns - 1), (height - 1) / max(1, rows - 1)))
        x, y = width / columns, height / rows
        return cls(((x - 1) / 2, (y - 1) / 2), (x, y))


class Inspected(NamedTuple):
    """An image and what a network says of it.

    image: uint8 [H, W, 3]. label: uint8 [H, W], 255 for ignored, or None. rankings: by prediction, the model's answer
    last, each [h, w, at most RANKS]. seed: float32 [h, w, 2], how many of the network's pixels its seed lies to the
    right and below, or None. confidence: float32 [h, w], or None. score: its mIoU, or None.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    rankings: Mapping[str, Ranking]
    grid: Grid
    seed: np.ndarray | None = None
    confidence: np.ndarray | None = None
    score: float | None = None


def seeds(offset: np.ndarray, align_corners: bool) -> np.ndarray:
    """Inspected.seed of OVeNet's offsets [h, w, 2]. align_corners: as the network samples its scores."""
    size = np.array(offset.shape[1::-1])
    own = np.stack(np.meshgrid(*map(np.arange, size)), axis=-1)
    position = np.clip(own * (2 / np.maximum(1, size - 1)) - 1 + offset, -1, 1)
    pixel = (position + 1) / 2 * (size - 1) if align_corners else (position + 1) / 2 * size - 0.5
    return np.clip(pixel, 0, size - 1) - own


def packed(views: Sequence[Inspected], most_bytes: int) -> dict:
    """What the page needs of one image as one or more networks see it, fit for JSON, in at most about `most_bytes`.

    Arrays are base64 of zlib's format. `stride` says how many pixels became one, `levels` and `parts` how fine steps
    are.
    """
    image, label = views[0].image, views[0].label
    height, width = image.shape[:2]
    stride = math.ceil(math.sqrt(height * width / MOST_PIXELS))
    picture = _picture(image, stride, PICTURE_SHARE * most_bytes)
    truth = "" if label is None else _deflated(label[::stride, ::stride].tobytes())
    rest = most_bytes - len(picture) - len(truth)
    return {
        "name": views[0].name,
        "size": [width, height],
        "stride": stride,
        "label_size": [-(-width // stride), -(-height // stride)] if truth else None,
        "picture": picture,
        "label": truth,
        "views": [_packed_maps(view, stride, rest // len(views)) for view in views],
    }


def _packed_maps(inspected: Inspected, stride: int, most_bytes: int) -> dict:
    for step, (levels, parts) in _steps(stride):
        maps = _deflated(_bytes_of(_planes(inspected, step, levels, parts)))
        if len(maps) <= most_bytes:
            break
    (x, y), (dx, dy) = inspected.grid
    rows, columns = next(iter(inspected.rankings.values())).classes.shape[:2]
    return {
        "score": inspected.score,
        "map_size": [-(-columns // step), -(-rows // step)],
        "map_stride": step,
        "origin": [x, y],
        "spacing": [dx * step, dy * step],
        "levels": levels,
        "parts": parts,
        "predictions": list(inspected.rankings),
        "has_confidence": inspected.confidence is not None,
        "has_seeds": inspected.seed is not None,
        "maps": maps,
    }


def _steps(stride: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """(stride, steps) of maps, the finest first; every pixel counts as long as coarser steps can help."""
    for factor in (1, 2, 4, 8):
        yield from ((stride * factor, steps) for steps in (STEPS if factor == 1 else STEPS[-1:]))


def _picture(image: np.ndarray, stride: int, most_bytes: float) -> str:
    """WebP, in the best quality that fits."""
    size = [-(-side // stride) for side in image.shape[:2]]
    shown = cv2.cvtColor(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    for quality in QUALITIES:
        _, encoded = cv2.imencode(".webp", shown, [cv2.IMWRITE_WEBP_QUALITY, quality])
        text = _text(encoded.tobytes())
        if len(text) <= most_bytes:
            break
    return text


def _planes(inspected: Inspected, stride: int, levels: int, parts: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Integers [h, w], and whether neighbours foretell them, which they do not of the numbers of classes.

    Of each prediction: RANKS planes of classes, then what the first, the first two ... leave of all probability. Then F
    and the seed's x and y, where there are such. A class that has no probability left is not read.
    """
    every = slice(None, None, stride)
    for ranking in inspected.rankings.values():
        missing = [(0, 0), (0, 0), (0, RANKS - ranking.classes.shape[-1])]  # where classes are fewer
        shares = np.rint(np.pad(ranking.probabilities[every, every], missing) * levels).astype(np.int32)
        shares[..., 0] = np.maximum(shares[..., 0], 1)
        left = levels - np.cumsum(shares, axis=-1)
        classes = np.pad(ranking.classes[every, every], missing)
        yield from ((_carried(classes[..., i], shares[..., i] > 0), False) for i in range(RANKS))
        yield from ((left[..., i], True) for i in range(RANKS))
    if inspected.confidence is not None:
        yield np.rint(inspected.confidence[every, every] * levels).astype(np.int32), True
    if inspected.seed is not None:
        seed = np.rint(inspected.seed[every, every] / stride * parts).astype(np.int32)
        yield from ((seed[..., axis], True) for axis in range(2))


def _bytes_of(planes: Iterable[tuple[np.ndarray, bool]]) -> bytes:
    """Each plane as two of bytes, lower and higher ones, of what is left when what is foretold is subtracted."""
    written = []
    for plane, by_neighbours in planes:
        left = plane - _foretold(plane) if by_neighbours else plane
        unsigned = np.where(left < 0, -2 * left - 1, 2 * left)
        written += [(unsigned & 255).astype(np.uint8).tobytes(), (unsigned >> 8).astype(np.uint8).tobytes()]
    return b"".join(written)


def _carried(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`values` where they are `wanted`; elsewhere the last wanted one before, row by row, which takes no space."""
    last = np.maximum.accumulate(np.where(wanted.ravel(), np.arange(values.size), 0))
    return values.ravel()[last].reshape(values.shape).astype(np.int32)


def _foretold(plane: np.ndarray) -> np.ndarray:
    """What the pixels at the left, above and between them let expect: the median edge detector of LOCO-I.

    Source: Weinberger, Seroussi and Sapiro, "The LOCO-I lossless image compression algorithm", 2000.
    """
    padded = np.pad(plane, ((1, 0), (1, 0)))
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    return np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))


def _deflated(data: bytes) -> str:
    return _text(zlib.compress(data, 6))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
