"""Training augmentation: one act per class, uint8 in and out, the random numbers handed in; and plain resizing.

Each act is called with a sample, {'image': uint8 RGB [H, W, 3], 'label': uint8 train ids [H, W]}, and a numpy
Generator, and returns a new sample. `resize`, `pad` and `resize_short_side` also take samples without label, and keep
what else there is in them. As published with HRNet and OVeNet; normalisation happens on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ovenet_jax.data.labels import IGNORE

MEAN_COLOR = (124, 116, 104)  # RGB, of ImageNet

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
    how = {"image": cv2.INTER_LINEAR, "label": cv2.INTER_NEAREST}
    return sample | {
        key: cv2.resize(sample[key], (width, height), interpolation=how[key]) for key in how if key in sample
    }


def pad(sample: Sample, size: tuple[int, int], color: tuple[int, int, int] = (0, 0, 0)) -> Sample:
    """Pad at the bottom and right to at least (H, W): the image with an RGB colour, the label with IGNORE."""
    height, width = sample["image"].shape[:2]
    rows, columns = max(size[0] - height, 0), max(size[1] - width, 0)
    if not rows and not columns:
        return sample
    fill = {"image": color, "label": IGNORE}
    return sample | {
        key: cv2.copyMakeBorder(sample[key], 0, rows, 0, columns, cv2.BORDER_CONSTANT, value=fill[key])
        for key in fill
        if key in sample
    }


def resize_short_side(sample: Sample, short_side: int, multiple: int = 8) -> Sample:
    """Published preparation of images for validation: the shorter side becomes short_side, the other in proportion,
    rounded; then both are padded to a multiple of `multiple`, with MEAN_COLOR."""
    height, width = sample["image"].shape[:2]
    if height < width:
        size = short_side, int(width * short_side / height + 0.5)
    else:
        size = int(height * short_side / width + 0.5), short_side
    return pad(resize(sample, size), tuple(-(-side // multiple) * multiple for side in size), MEAN_COLOR)
