"""Samples are stored either "compressed" (the bytes of their files) or "decoded" (their pixels).

Decoded pixels are in one file beside the records: the image, uint8 RGB [H, W, 3], then, unless the split has no labels,
its train ids, uint8 [H, W]. A record holds their offset in that file and their checksums. The file is mapped into
memory, so that a crop reads its own window and no more; checksums are compared when a process first reads a sample.
Pixels in the records would be copied and checked as a whole at each reading: 5 ms per Cityscapes image, where all other
work takes 2 ms.
"""

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import tensorflow_datasets as tfds

from ovenet_jax.data.image_files import Read, decode_image, decode_label
from ovenet_jax.data.labels import Labels

FORMS = ("compressed", "decoded")
PIXELS = "pixels"  # the file, in the folder of the records
CHECKSUMS = {"image": "image_checksum", "label": "label_checksum"}  # CRC-32; records of older versions have none


def features(form: str) -> dict[str, tfds.features.FeatureConnector]:
    """The features of a record for image and label. Compressed labels keep the label ids of the data set, and are empty
    in unlabelled splits, because TFDS needs the same features in all splits.
    """
    if form == "decoded":
        return {key: tfds.features.Scalar(np.int64) for key in ("start", "height", "width", *CHECKSUMS.values())}
    return {
        "image": tfds.features.Image(shape=(None, None, 3)),
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


def _append(file: BinaryIO, train_ids: np.ndarray, image: Read, label: Read | None) -> dict[str, int]:
    start, (height, width) = file.tell(), image.array.shape[:2]
    pixels = {"image": image.array, "label": cv2.LUT(label.array, train_ids) if label else np.empty(0, np.uint8)}
    for array in pixels.values():
        file.write(array.data)
    checksums = {CHECKSUMS[key]: zlib.crc32(array.data) for key, array in pixels.items()}
    return {"start": start, "height": height, "width": width} | checksums


def read(record: dict, folder: Path, classes: Labels, has_label: bool, check: bool = True) -> dict[str, np.ndarray]:
    """Image, uint8 RGB [H, W, 3], and label, uint8 train ids [H, W], if it has one, of a record of either form.

    Decoded arrays are read-only memory-mapped views, loaded on access, or as a whole to `check` them.

    Raises:
      OSError, ValueError: decoding failed, or the file is missing, too short or damaged.
    """
    if "start" in record:
        return _mapped(record, folder / PIXELS, has_label, check)
    sample = {"image": decode_image(record["image"])}
    if has_label:
        sample["label"] = cv2.LUT(decode_label(record["label"]), classes.train_ids())
    return sample


def _mapped(record: dict, file: Path, has_label: bool, check: bool) -> dict[str, np.ndarray]:
    start, height, width = (int(record[key]) for key in ("start", "height", "width"))
    area = height * width
    pixels = np.asarray(np.memmap(file, np.uint8, "r", start, shape=(4 if has_label else 3) * area))
    sample: dict[str, np.ndarray] = {"image": pixels[: 3 * area].reshape(height, width, 3)}
    if has_label:
        sample["label"] = pixels[3 * area :].reshape(height, width)
    for key, array in sample.items() if check else ():
        if CHECKSUMS[key] in record and zlib.crc32(array.data) != int(record[CHECKSUMS[key]]):
            raise ValueError(f"the pixels of its {key} are not those that were written")
    return sample


def bytes_needed(samples: Iterable[tuple[int, tuple[int, int], bool]]) -> dict[str, int]:
    """The disk space of each form for samples, given as (bytes of both files, (H, W), has_label); records add about 100
    bytes each."""
    needed = dict.fromkeys(FORMS, 0)
    for size, (height, width), has_label in samples:
        needed["compressed"] += size
        needed["decoded"] += (4 if has_label else 3) * height * width
    return needed
