"""Training augmentation: one act per class, uint8 in and out, the random numbers handed in.

Each act is called with a sample, {'image': uint8 RGB [H, W, 3], 'label': uint8 train ids [H, W]}, and a numpy
Generator, and returns a new sample. As published with HRNet and OVeNet; normalisation happens on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ovenet_jax.data.labels import IGNORE

Sample = dict[str, np.ndarray]
Act = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True)
class RandomScaleCrop:
    """Resize by a random scale, pad to at least `crop`, and cut a window of size `crop` (H, W) at a random place.

    The longer side becomes base_size times 0.5, 0.6, ... 0.5 + scale_factor / 10, each equally likely.
    """

    base_size: int
    crop: tuple[int, int]
    scale_factor: int

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        scale = 0.5 + rng.integers(self.scale_factor, endpoint=True) / 10
        sample = resize(sample, scaled_size(sample["label"].shape, self.base_size * scale))
        sample = pad(sample, self.crop)
        height, width = self.crop
        bottom, right = sample["label"].shape
        y, x = rng.integers((bottom - height, right - width), endpoint=True)
        return {key: array[y : y + height, x : x + width] for key, array in sample.items()}


@dataclass(frozen=True)
class RandomBrightness:
    """In half of all samples add one integer from -shift to shift to all channels, clipped to 0 to 255."""

    shift: int

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < 0.5:
            return sample
        shift = rng.integers(-self.shift, self.shift, endpoint=True)
        image = np.clip(sample["image"].astype(np.int16) + np.int16(shift), 0, 255).astype(np.uint8)
        return sample | {"image": image}


@dataclass(frozen=True)
class RandomFlip:
    """Mirror half of all samples left to right."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < 0.5:
            return sample
        return {key: np.ascontiguousarray(array[:, ::-1]) for key, array in sample.items()}


def scaled_size(size: tuple[int, int], long_side: float) -> tuple[int, int]:
    """(H, W) with the longer side resized to long_side, rounded, and the other in proportion, rounded."""
    height, width = size
    long_side = int(long_side + 0.5)
    if height > width:
        return long_side, int(width * long_side / height + 0.5)
    return int(height * long_side / width + 0.5), long_side


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize to (H, W): the image bilinearly (half-pixel centres), the label to the nearest pixel."""
    height, width = size
    return {
        "image": cv2.resize(sample["image"], (width, height), interpolation=cv2.INTER_LINEAR),
        "label": cv2.resize(sample["label"], (width, height), interpolation=cv2.INTER_NEAREST),
    }


def pad(sample: Sample, size: tuple[int, int]) -> Sample:
    """Pad at the bottom and right to at least (H, W): the image with 0, the label with IGNORE."""
    height, width = sample["label"].shape
    rows, columns = max(size[0] - height, 0), max(size[1] - width, 0)
    if not rows and not columns:
        return sample
    return {
        "image": np.pad(sample["image"], ((0, rows), (0, columns), (0, 0))),
        "label": np.pad(sample["label"], ((0, rows), (0, columns)), constant_values=IGNORE),
    }
