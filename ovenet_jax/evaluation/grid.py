"""The position of a network's pixels in an image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ovenet_jax.evaluation.inference import STRIDE, Segmentation


class Grid(NamedTuple):
    """origin: the centre of the network's first pixel; spacing: the distance between its pixels. Both are (x, y) in
    image pixels; (0, 0) is the centre of the image's first pixel. size: the network's pixels (h, w) in the image."""

    origin: tuple[float, float]
    spacing: tuple[float, float]
    size: tuple[int, ...]

    @classmethod
    def of(cls, segmentation: Segmentation, image: Sequence[int], align_corners: bool) -> "Grid":
        """The grid of a segmentation's maps for an image of size (H, W)."""
        if segmentation.logits is not None:  # no pass saw the whole image
            return cls((0.0, 0.0), (float(STRIDE), float(STRIDE)), tuple(-(-side // STRIDE) for side in image))
        return cls.over(image, segmentation.maps[segmentation.answer].shape[1:3], align_corners)

    @classmethod
    def over(cls, image: Sequence[int], network: Sequence[int], align_corners: bool) -> "Grid":
        """The grid of a map of size `network` (h, w) that covers an `image` (H, W), with aligned corners or not."""
        (height, width), (rows, columns) = image, network
        if align_corners:
            x, y = (width - 1) / max(1, columns - 1), (height - 1) / max(1, rows - 1)
            return cls((0.0, 0.0), (x, y), (rows, columns))
        x, y = width / columns, height / rows
        return cls(((x - 1) / 2, (y - 1) / 2), (x, y), (rows, columns))

    def read(self, image: np.ndarray) -> np.ndarray:
        """`image` [H, W] sampled at the network's pixels [h, w], nearest."""
        axes = zip(self.origin[::-1], self.spacing[::-1], self.size, image.shape, strict=True)
        nearest = (
            np.clip(np.floor(origin + spacing * np.arange(count) + 0.5), 0, side - 1).astype(int)
            for origin, spacing, count, side in axes
        )
        return image[np.ix_(*nearest)]
