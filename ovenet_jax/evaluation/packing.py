"""Packs images and maps for the seed inspector into the page of a report.

All maps keep the network's own resolution. A packed map is a plane of integers: probabilities in steps of 1 / `levels`,
seeds in steps of 1 / `parts` of a network pixel. Prediction residuals are stored, which deflate compresses well; the
page reverses this. An image that would exceed its share of the page is packed in coarser steps; the page states them.
"""

import base64
import math
import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from ovenet_jax.evaluation.inspection import RANKS, Inspected
from ovenet_jax.tables import percent

MOST_PIXELS = 2**21  # of a picture, 1024x2048; larger ones are reduced
# (levels, parts, stride of pixels), from fine to coarse.
STEPS = (
    (1000, 64, 1), (200, 16, 1), (100, 8, 1), (50, 4, 1), (25, 4, 1), (25, 4, 2), (25, 4, 4), (25, 4, 8)
)  # fmt: skip
QUALITIES = (90, 80, 65, 45, 25)  # of pictures, WebP
PICTURE_SHARE = 0.4  # of an image's bytes


def packed(views: Sequence[Inspected], most_bytes: int) -> tuple[dict, dict[str, str]]:
    """One image and the outputs of one or more networks in at most about `most_bytes`: metadata, and in base64 its
    "picture", "label" if there is one, and "maps-0", "maps-1" ... of its views."""
    name, image, label, *_ = views[0]
    height, width = image.shape[:2]
    stride = math.ceil(math.sqrt(height * width / MOST_PIXELS))
    data = {"picture": _picture(image, stride, PICTURE_SHARE * most_bytes)}
    if label is not None:
        data["label"] = deflated(label[::stride, ::stride].tobytes())
    share = (most_bytes - sum(map(len, data.values()))) // len(views)
    described = []
    for number, view in enumerate(views):
        for levels, parts, coarser in STEPS:
            every = stride * coarser
            maps = deflated(b"".join(map(_as_bytes, _planes(view, every, levels, parts))))
            if len(maps) <= share:
                break
        data[f"maps-{number}"] = maps
        rows, columns = view.grid.size
        described.append(
            {
                "map_size": [-(-columns // every), -(-rows // every)],
                "map_stride": every,
                "origin": view.grid.origin,
                "spacing": [every * step for step in view.grid.spacing],
                "levels": levels,
                "parts": parts,
                "predictions": list(view.rankings),
                "has_confidence": view.confidence is not None,
                "has_seeds": view.seed is not None,
            }
        )
    size = [-(-width // stride), -(-height // stride)] if label is not None else None
    note = "mIoU " + " / ".join(percent(view.score) for view in views)
    known = {"name": name, "note": note, "size": [width, height], "stride": stride, "label_size": size}
    return known | {"views": described}, data


def _picture(image: np.ndarray, stride: int, most_bytes: float) -> str:
    """A WebP in the best quality that fits, in base64."""
    size = [-(-side // stride) for side in image.shape[1::-1]]
    shown = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    for quality in QUALITIES:
        _, encoded = cv2.imencode(".webp", shown, [cv2.IMWRITE_WEBP_QUALITY, quality])
        text = base64.b64encode(encoded.tobytes()).decode("ascii")
        if len(text) <= most_bytes:
            break
    return text


def _planes(inspected: Inspected, every: int, levels: int, parts: int) -> Iterator[np.ndarray]:
    """int32 [h, w]: per prediction RANKS planes of classes, then RANKS planes of 1 minus the sum of their probabilities
    so far; then confidence and the seed's x and y, if present. The page skips classes of probability 0."""
    own = np.s_[::every, ::every]
    for ranking in inspected.rankings.values():
        missing = [(0, 0), (0, 0), (0, RANKS - ranking.classes.shape[-1])]  # where classes are fewer
        shares = np.rint(np.pad(ranking.probabilities[own], missing) * levels).astype(np.int32)
        shares[..., 0] = np.maximum(shares[..., 0], 1)
        left = levels - np.cumsum(shares, axis=-1, dtype=np.int32)
        classes = np.pad(ranking.classes[own], missing)
        yield from (np.where(shares[..., i] > 0, classes[..., i], 0).astype(np.int32) for i in range(RANKS))
        yield from (_surprising(left[..., i]) for i in range(RANKS))
    if inspected.confidence is not None:
        yield _surprising(np.rint(inspected.confidence[own] * levels).astype(np.int32))
    if inspected.seed is not None:
        seed = np.rint(inspected.seed[own] / every * parts).astype(np.int32)
        yield from (_surprising(seed[..., axis]) for axis in range(2))


def _surprising(plane: np.ndarray) -> np.ndarray:
    """The residual of LOCO-I's predictor, the median edge detector of the left, upper and upper left pixel.

    Source: Weinberger, Seroussi and Sapiro, "The LOCO-I lossless image compression algorithm", 2000.
    """
    padded = np.pad(plane, ((1, 0), (1, 0)))
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    return plane - np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))


def _as_bytes(plane: np.ndarray) -> bytes:
    """Zigzag-encoded uint16: the low bytes of all pixels, then the high bytes."""
    unsigned = (plane << 1 ^ plane >> 31).astype("<u2")
    return unsigned.reshape(-1, 1).view(np.uint8).T.tobytes()


def deflated(data: bytes) -> str:
    """Compressed by zlib, in base64."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")
