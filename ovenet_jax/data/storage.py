"""Samples are stored either "compressed" (the bytes of their files) or "decoded" (their pixels).

Decoded pixels are in one file beside the records: the image, uint8 RGB [H, W, 3], then, unless the split has no labels,
its train ids, uint8 [H, W]. A record holds their offset in that file and the checksums of their rows. The file is
mapped into memory, so that a crop reads and checks its own rows and no more. Pixels in the records would be copied and
checked as a whole at each reading: 5 ms per Cityscapes image, where all other work takes 2 ms.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import tensorflow_datasets as tfds
import xxhash

from ovenet_jax import errors
from ovenet_jax.data.image_files import Read, decode_image, decode_label, read_channels
from ovenet_jax.data.labels import Labels

FORMS = ("compressed", "decoded")
PIXELS = "pixels"  # the file, in the folder of the records
BLOCK = 32  # rows with one checksum, the 64 bits of XXH3
CHECKSUMS = {"image": "image_checksums", "label": "label_checksums"}  # records of older versions have none


def features(form: str, classes: Labels) -> dict[str, tfds.features.FeatureConnector]:
    """The features of a record for image and label. Compressed labels keep the label ids of the data set, and are empty
    in unlabelled splits, because TFDS needs the same features in all splits.
    """
    if form == "decoded":
        numbers = {key: tfds.features.Scalar(np.int64) for key in ("start", "height", "width")}
        return numbers | {key: tfds.features.Text() for key in CHECKSUMS.values()}
    return {
        "image": tfds.features.Text() if classes.channels else tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
    }


@contextlib.contextmanager
def writing(form: str, folder: Path, classes: Labels) -> Iterator[Callable[[Read, Read | None], dict]]:
    """Context manager: a function from an image and its label, if it has one, to the entries of their record.

    Decoded pixels are added to the file in `folder`.
    """
    if form == "decoded":
        with (folder / PIXELS).open("ab") as file:
            yield partial(_append, file, classes.train_ids())
    else:
        yield lambda image, label: {"image": image.data, "label": label.data if label else b""}


def _append(file: BinaryIO, train_ids: np.ndarray, image: Read, label: Read | None) -> dict[str, int | str]:
    start, (height, width) = file.tell(), image.array.shape[:2]
    pixels = {"image": image.array, "label": cv2.LUT(label.array, train_ids) if label else np.empty(0, np.uint8)}
    for array in pixels.values():
        file.write(array.data)
    checksums = {CHECKSUMS[key]: " ".join(_checksums(array)) for key, array in pixels.items()}
    return {"start": start, "height": height, "width": width} | checksums


def _checksums(array: np.ndarray) -> list[str]:
    return [xxhash.xxh3_64_hexdigest(array[first : first + BLOCK].data) for first in range(0, len(array), BLOCK)]


@dataclass(frozen=True, eq=False)
class Rows:
    """An array [H, ...] of decoded pixels of a sample. `rows[top:bottom, ...]` is a read-only view of these rows;
    the blocks they are in are first compared with their 64-bit checksums. Raises UserError where they differ."""

    array: np.ndarray
    checksums: Sequence[str]
    sample: str
    folder: Path

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __getitem__(self, key: slice | tuple[slice, ...]) -> np.ndarray:
        rows = key[0] if isinstance(key, tuple) else key
        top, bottom, _ = rows.indices(len(self.array))
        first, end = top // BLOCK, -(-bottom // BLOCK)
        if _checksums(self.array[first * BLOCK : end * BLOCK]) != self.checksums[first:end]:
            raise damaged(self.sample, self.folder, f"rows {top} to {bottom} are not those that were written")
        return self.array[key]


def damaged(sample: str, folder: Path, fault: object) -> errors.UserError:
    """The error of a sample whose record or pixels are damaged."""
    return errors.UserError(f"{sample} in {folder} is damaged ({fault}); delete that folder, and it is prepared anew.")


def read(record: dict, name: str, folder: Path, classes: Labels, has_label: bool) -> dict[str, np.ndarray | Rows]:
    """Image, uint8 RGB [H, W, 3] (of named channels: uint16 [H, W, C]), and label, uint8 train ids [H, W], if it has
    one, of the sample `name`, whose record is of either form. Decoded ones are `Rows`, or, in records of older
    versions, unchecked read-only views. Raises OSError, ValueError: decoding failed, or the file is missing or too
    short."""
    if "start" not in record:
        label = {"label": cv2.LUT(decode_label(record["label"]), classes.train_ids())} if has_label else {}
        data, channels = record["image"], classes.channels
        return {"image": read_channels(data, channels).array if channels else decode_image(data), **label}
    start, height, width = (int(record[key]) for key in ("start", "height", "width"))
    count = decoded_bytes((height, width), has_label)
    pixels = np.asarray(np.memmap(folder / PIXELS, np.uint8, "r", start, shape=count))
    rgb, train_ids = np.split(pixels, [3 * height * width])
    arrays: dict[str, Any] = {"image": rgb.reshape(height, width, 3)}
    if has_label:
        arrays["label"] = train_ids.reshape(height, width)
    known = {key: record[CHECKSUMS[key]].decode().split() for key in arrays if CHECKSUMS[key] in record}
    return arrays | {key: Rows(arrays[key], checksums, name, folder) for key, checksums in known.items()}


def decoded_bytes(size: tuple[int, int], has_label: bool) -> int:
    """The bytes of the decoded pixels of a sample of `size` (H, W)."""
    return (4 if has_label else 3) * math.prod(size)
