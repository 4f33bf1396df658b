"""Training augmentation: one class per transform, on uint8 arrays, with the random generator passed in; also resizing.

A transform is called with a sample, {'image': uint8 RGB [H, W, 3] or uint16 [H, W, C], 'label': uint8 train ids
[H, W]}, and a numpy Generator, and returns a new sample. The input arrays may be read-only. `resize`, `pad` and
`resize_short_side` also accept samples without a label, and keep all other keys. The transforms follow the code
published with HRNet and OVeNet, or with openseg and OCNet; normalisation happens on the device.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ovenet_jax.data import imagenet
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.data.sizes import padded_size, scaled_size

Sample = dict[str, np.ndarray]
Act = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True)
class RandomScaleCrop:
    """Resize by a random scale, pad to at least `crop`, and cut a window of size `crop` (H, W) at a random place.

    The longer side becomes base_size (0: its own length) times a scale: one of 0.5, 0.6, ... 0.5 + scale_factor / 10,
    each equally likely, or uniform in `scale_range` (least, most) if that is given. `aspect_range` (least, most)
    stretches by a random a: the width by sqrt(a), the height by 1 / sqrt(a). Published code may first resize to a
    `short_side` (0: no) or to `resize` (H, W; (): no). Here both resizes are one bilinear resampling (openseg's are
    bicubic) of the window only.

    rare_class_crops: probability that the window holds a random pixel of a class that is drawn with a probability
    inverse to its share of the image.
    pad_color (RGB) fills the padding: at the bottom and right, or, with pad_anywhere, split at random over all sides.
    """

    base_size: int
    crop: tuple[int, int]
    scale_factor: int = 0
    scale_range: tuple[float, float] | tuple[()] = ()
    aspect_range: tuple[float, float] | tuple[()] = ()
    short_side: int = 0
    resize: tuple[int, int] | tuple[()] = ()
    rare_class_crops: float = 0.0
    pad_color: tuple[int, int, int] = (0, 0, 0)
    pad_anywhere: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size = self.drawn_size(sample["label"].shape, rng)
        first, last = np.zeros(2, int), np.maximum(np.subtract(size, self.crop), 0)
        if self.rare_class_crops and rng.random() < self.rare_class_crops:
            pixel = _pixel_of_rare_class(sample["label"], size, rng)
            first, last = np.clip(pixel - self.crop + 1, first, last), np.clip(pixel, first, last)
        corner = rng.integers(first, last, endpoint=True)
        place = (0, 0)
        if self.pad_anywhere:
            place = tuple(rng.integers(np.maximum(np.subtract(self.crop, size), 0), endpoint=True).tolist())
        return pad(resized_window(sample, size, corner, self.crop), self.crop, self.pad_color, place)

    def drawn_size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """The size (H, W) that an image of `size` is resized to."""
        if self.scale_range:
            scale = rng.uniform(*self.scale_range)
        else:
            scale = 0.5 + rng.integers(self.scale_factor, endpoint=True) / 10
        first = self.resize or (scaled_size(size, self.short_side, min) if self.short_side else size)
        height, width = scaled_size(first, (self.base_size or max(first)) * scale)
        if self.aspect_range:
            stretch = math.sqrt(rng.uniform(*self.aspect_range))
            height, width = max(1, int(height / stretch + 0.5)), max(1, int(width * stretch + 0.5))
        return height, width


@dataclass(frozen=True)
class RandomBrightness:
    """In this `share` of the samples add one integer from -shift to shift to all channels, clipped to 0 to 255.
    colors: of named channels, uint16, the indices of those to change."""

    shift: int
    share: float
    colors: tuple[int, ...] = ()

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < 1 - self.share:
            return sample
        shift = int(rng.integers(-self.shift, self.shift, endpoint=True))
        image = sample["image"]
        if image.dtype == np.uint8:
            return sample | {"image": cv2.LUT(image, _table(shift=shift))}
        shifts = np.isin(np.arange(image.shape[2]), self.colors) * shift
        return sample | {"image": (image + shifts).clip(0, 2**16 - 1).astype(np.uint16)}


@dataclass(frozen=True)
class PhotometricDistortion:
    """Change brightness by up to 32, contrast and saturation by factors of 0.5 to 1.5 and hue by -36 to 34 degrees,
    each in half of the samples; contrast is the second or the last of them.

    Each change rounds down to uint8; saturation and hue are of OpenCV's 8-bit HSV. Source: mmsegmentation's
    `PhotoMetricDistortion` with its default arguments.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        changes: list[Callable[[np.ndarray], np.ndarray]] = [
            lambda x: cv2.LUT(x, _table(shift=rng.uniform(-32, 32))),  # brightness
            lambda x: _with_hsv(x, 1, _table(rng.uniform(0.5, 1.5))),  # saturation
            lambda x: _with_hsv(x, 0, (np.arange(256) + rng.integers(-18, 18)) % 180),  # hue, in units of two degrees
        ]
        changes.insert(1 if rng.random() < 0.5 else 3, lambda x: cv2.LUT(x, _table(rng.uniform(0.5, 1.5))))  # contrast
        image = sample["image"]
        for change in changes:
            if rng.random() < 0.5:
                image = change(image)
        return sample | {"image": image}


def _with_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """The image after a lookup in `table` of one channel of hue, saturation and value."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., channel] = table[hsv[..., channel]]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _table(factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Lookup table uint8 [256] of factor * value + shift, clipped and without fractions."""
    return np.clip(np.arange(256, dtype=np.float32) * factor + shift, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class RandomFlip:
    """Mirror half of all samples left to right; the two train ids of each of `pairs` (left, right) change places."""

    pairs: tuple[tuple[int, int], ...] = ()

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < 0.5:
            return sample
        mirrored = {key: cv2.flip(array, 1) for key, array in sample.items()}
        if self.pairs:
            exchanged = np.arange(256, dtype=np.uint8)
            for left, right in self.pairs:
                exchanged[[left, right]] = right, left
            mirrored["label"] = cv2.LUT(mirrored["label"], exchanged)
        return mirrored


def _pixel_of_rare_class(label: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A pixel (y, x) of the image resized to `size`: of a random class, rare ones more likely (counted on a grid of
    about 256 pixels per side); any pixel if nothing is labelled."""
    step = max(max(label.shape) // 256, 1)
    seen = label[::step, ::step]
    counts = np.bincount(seen.ravel(), minlength=256)
    if counts[:IGNORE].any():
        counts[IGNORE] = 0
    classes = np.flatnonzero(counts)
    shares = 1 / counts[classes]
    places = np.argwhere(seen == rng.choice(classes, p=shares / shares.sum()))
    place = places[rng.integers(len(places))]
    return ((place * step + 0.5) * size / label.shape).astype(int)


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize to (H, W): the image bilinearly (half-pixel centres), the label to the nearest pixel."""
    height, width = size
    how = {"image": cv2.INTER_LINEAR, "label": cv2.INTER_NEAREST}
    return sample | {
        key: cv2.resize(sample[key], (width, height), interpolation=how[key]) for key in how if key in sample
    }


def resized_window(
    sample: Sample, size: tuple[int, int], corner: np.ndarray | tuple[int, int], window: tuple[int, int]
) -> Sample:
    """Image and label of the `window` (H, W) at `corner` (y, x) of the sample resized to `size`, clipped to it.

    Equals a crop of `resize(sample, size)` (the image within one grey level), but reads and resamples only the pixels
    of the window.
    """
    image, label = sample["image"], sample["label"]
    source = np.array(label.shape)
    start, stop = np.array(corner), np.minimum(np.add(corner, window), size)
    ratio = 1 / (np.array(size) / source)  # as OpenCV computes it
    offset = (start + 0.5) * ratio - 0.5
    top, left = np.maximum(offset.astype(int), 0)
    bottom, right = np.minimum(((stop - 0.5) * ratio - 0.5).astype(int) + 2, source)
    # On four channels warpAffine takes half the time that it takes on three.
    rgb, read = image.shape[2] == 3, image[top:bottom, left:right]
    read = cv2.cvtColor(read, cv2.COLOR_RGB2RGBA) if rgb else read
    matrix = np.array([[ratio[1], 0, offset[1] - left], [0, ratio[0], offset[0] - top]])
    height, width = (int(side) for side in stop - start)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(read, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
    rows, columns = (
        np.minimum(np.arange(*ends) * step, side - 1).astype(int)
        for *ends, step, side in zip(start, stop, ratio, source, strict=True)
    )
    seen = label[rows[0] : rows[-1] + 1].take(rows - rows[0], axis=0).take(columns, axis=1)
    return {"image": cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB) if rgb else warped, "label": seen}


def pad(
    sample: Sample, size: tuple[int, int], color: tuple[int, int, int] = (0, 0, 0), place: tuple[int, int] = (0, 0)
) -> Sample:
    """Pad to at least (H, W), the image with an RGB colour (named channels, uint16, with 0), the label with IGNORE;
    `place`: rows of padding above, columns to the left."""
    height, width = sample["image"].shape[:2]
    rows, columns = max(size[0] - height, 0), max(size[1] - width, 0)
    if not rows and not columns:
        return sample
    top, left = place
    fill: dict[str, Sequence[int] | int] = {"image": color if sample["image"].dtype == np.uint8 else 0, "label": IGNORE}
    return sample | {
        key: cv2.copyMakeBorder(sample[key], top, rows - top, left, columns - left, cv2.BORDER_CONSTANT, value=value)
        for key, value in fill.items()
        if key in sample
    }


def resize_short_side(sample: Sample, short_side: int, multiple: int = 8) -> Sample:
    """Published preparation of images for validation: the shorter side becomes short_side, the other in proportion,
    rounded; then both are padded to a multiple of `multiple`, with MEAN_COLOR."""
    size = scaled_size(sample["image"].shape[:2], short_side, min)
    return pad(resize(sample, size), padded_size(size, multiple), imagenet.MEAN_COLOR)
