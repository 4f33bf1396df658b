"""The two forms in which samples are stored: the bytes of their files, "compressed", or their pixels, "decoded".

Decoded pixels are in one file beside the records, which say where: the image, uint8 RGB [H, W, 3], then, unless the
split has no labels, its train ids, uint8 [H, W]. That file is mapped into memory, so that a crop reads its own window
and no more. In a record they would first be copied and checked as a whole: 5 ms for a Cityscapes image, when all the
rest takes 2.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import tensorflow_datasets as tfds

from ovenet_jax.data.image_files import Read, decode_image, decode_label
from ovenet_jax.data.labels import Labels
from ovenet_jax.errors import UserError

FORMS = ("compressed", "decoded")
PIXELS = "pixels"  # the file, in the folder of the records


def features(form: str) -> dict[str, tfds.features.FeatureConnector]:
    """What a record holds of image and label. Compressed labels keep the label ids of the data set, and are empty in
    a split without labels: TFDS's features are those of all splits.

    Raises:
      UserError: there is no such form.
    """
    if form not in FORMS:
        raise UserError(f"config.data.storage is {form!r}; choose one of {', '.join(FORMS)}.")
    if form == "decoded":
        return {key: tfds.features.Scalar(np.int64) for key in ("start", "height", "width")}
    return {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
    }


@contextlib.contextmanager
def writing(form: str, folder: Path, classes: Labels) -> Iterator[Callable[[Read, Read | None], dict]]:
    """For a `with`: makes an image and its label, if it has one, into what their record holds.

    Decoded pixels are added to the file in `folder`.
    """
    if form == "decoded":
        with (folder / PIXELS).open("ab") as file:
            yield partial(_append, file, classes.train_ids())
    else:
        yield lambda image, label: {"image": image.data, "label": label.data if label else b""}


def _append(file: BinaryIO, train_ids: np.ndarray, image: Read, label: Read | None) -> dict[str, int]:
    start, (height, width) = file.tell(), image.array.shape[:2]
    file.write(image.array.data)
    if label:
        file.write(cv2.LUT(label.array, train_ids).data)
    return {"start": start, "height": height, "width": width}


def read(record: dict, folder: Path, classes: Labels, has_label: bool) -> dict[str, np.ndarray]:
    """Image, uint8 RGB [H, W, 3], and label, uint8 train ids [H, W], if it has one, of a record of either form.

    Decoded ones are read-only views of the file, which is read where they are looked at.

    Raises:
      OSError or ValueError: they do not decode; the file is not there or too short.
    """
    if "start" in record:
        return _mapped(record, folder / PIXELS, has_label)
    sample = {"image": decode_image(record["image"])}
    if has_label:
        sample["label"] = cv2.LUT(decode_label(record["label"]), classes.train_ids())
    return sample


def _mapped(record: dict, file: Path, has_label: bool) -> dict[str, np.ndarray]:
    start, height, width = (int(record[key]) for key in ("start", "height", "width"))
    area = height * width
    pixels = np.asarray(np.memmap(file, np.uint8, "r", start, shape=(4 if has_label else 3) * area))
    sample: dict[str, np.ndarray] = {"image": pixels[: 3 * area].reshape(height, width, 3)}
    if has_label:
        sample["label"] = pixels[3 * area :].reshape(height, width)
    return sample


def bytes_needed(samples: Iterable[tuple[int, tuple[int, int], bool]]) -> dict[str, int]:
    """The disk space that each form takes for samples, given as (bytes of both files, (H, W), has_label); records add
    some 100 bytes each."""
    needed = dict.fromkeys(FORMS, 0)
    for size, (height, width), has_label in samples:
        needed["compressed"] += size
        needed["decoded"] += (4 if has_label else 3) * height * width
    return needed
