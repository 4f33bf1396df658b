"""From source files to ArrayRecord: pair and check the files, name every fault at once, write what is sound.

TFDS writes into a folder named `incomplete.*` and renames it at the end, so that an interrupted preparation
leaves nothing that looks finished. TensorFlow is not needed and not imported.
"""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ovenet_jax.data.labels import Labels
from ovenet_jax.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
FAULTS_SHOWN = 20


class Sample(NamedTuple):
    """One image file and its label file."""

    name: str
    image: Path
    label: Path


def dataset_info(builder: tfds.core.GeneratorBasedBuilder) -> tfds.core.DatasetInfo:
    """What a record holds in all our data sets: the bytes of both files as they are, and the sample's name.

    Labels keep the label ids of the data set; train ids are looked up on reading. The order is kept.
    """
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "name": tfds.features.Text(),
    }
    return _LocalInfo(builder=builder, features=tfds.features.FeaturesDict(features), disable_shuffling=True)


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: no server knows our data sets, and TFDS would leave a temporary folder behind."""


def write_records(builder: tfds.core.GeneratorBasedBuilder) -> None:
    """Prepares the data set of `builder`, unless that is done already; TFDS's own messages are kept silent.

    Raises:
      UserError: the faults of the source files, or that the records cannot be written.
    """
    folder = Path(builder.data_dir)
    if folder.exists():
        return
    tfds.disable_progress_bar()
    try:
        with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=empty)
    except OSError as error:
        if not folder.exists():  # otherwise another process has prepared it meanwhile
            raise UserError(
                f"{folder.parent} cannot be written ({error}); free or choose another --config.data.prepared."
            ) from error


def digest(*parts: object) -> str:
    """A short name for what the parts say; another source gets another name and is prepared anew."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def tree_digest(root: Path, folders: Iterable[str]) -> str:
    """Digest of the names, sizes and times of change of all files in some folders under root."""
    files = sorted(path for folder in folders for path in (root / folder).glob("*"))
    stats = [(path, path.stat()) for path in files]
    return digest(*((str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns) for path, stat in stats))


def find_samples(images: Path, labels: Path) -> tuple[list[Sample], list[str]]:
    """Pairs the images and the label PNGs of two folders by file name without suffix.

    Returns:
      the samples, sorted by name, and one sentence for each fault.
    """
    missing = [f"{folder}: no such folder" for folder in (images, labels) if not folder.is_dir()]
    if missing:
        return [], missing
    image_files = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    label_files = sorted(path for path in labels.iterdir() if path.suffix.lower() == ".png")
    faults = [
        f"{folder}: no {kind} in this folder"
        for folder, files, kind in ((images, image_files, "image"), (labels, label_files, "label PNG"))
        if not files
    ]
    if faults:
        return [], faults
    label_of = {path.stem: path for path in label_files}
    image_of = {}
    for path in image_files:
        if path.stem in image_of:
            faults.append(f"{path}: a second image beside {image_of[path.stem].name}")
        image_of[path.stem] = path
    faults += [f"{image_of[name]}: no label {labels.name}/{name}.png" for name in image_of.keys() - label_of]
    faults += [
        f"{label_of[name]}: no image of this name in {images.name}/" for name in label_of.keys() - image_of
    ]
    names = sorted(image_of.keys() & label_of)
    return [Sample(name, image_of[name], label_of[name]) for name in names], sorted(faults)


def check_samples(samples: list[Sample], labels: Labels, title: str) -> list[str]:
    """Decodes every file, in parallel and with a progress bar; returns one sentence for each fault."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda sample: _faults_of(sample, labels.known_ids()), samples)
        bar = tqdm(found, title, len(samples), unit=" samples", mininterval=1)
        return [fault for faults in bar for fault in faults]


def _faults_of(sample: Sample, known_ids: frozenset[int]) -> list[str]:
    faults = []
    image = _read(sample.image, decode_image, faults)
    label = _read(sample.label, decode_label, faults)
    if label is not None:
        unknown = sorted(set(np.flatnonzero(np.bincount(label.ravel())).tolist()) - known_ids)
        if unknown:
            values = ", ".join(map(str, unknown))
            faults.append(f"{sample.label}: label values {values} are not in the class table")
    if image is not None and label is not None and image.shape[:2] != label.shape:
        (h, w), (label_h, label_w) = image.shape[:2], label.shape
        faults.append(f"{sample.label}: {label_w}x{label_h} pixels, but {sample.image.name} has {w}x{h}")
    return faults


def _read(path: Path, decode: Callable[[bytes], np.ndarray], faults: list[str]) -> np.ndarray | None:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        faults.append(f"{path}: cannot be read ({error.strerror})")
    except ValueError as error:
        faults.append(f"{path}: {error}")
    return None


def refuse(faults: list[str], root: Path) -> None:
    """Does nothing if there are no faults.

    Raises:
      UserError: names the first faults and counts all.
    """
    if not faults:
        return
    shown = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
    rest = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise UserError(f"{count} in {root}; mend or remove these files, then start again:{shown}{rest}")


def decode_image(data: bytes) -> np.ndarray:
    """JPEG or PNG bytes -> uint8 RGB [H, W, 3].

    Raises:
      ValueError: the bytes do not decode.
    """
    return _decode(data, cv2.IMREAD_COLOR_RGB)


def decode_label(data: bytes) -> np.ndarray:
    """PNG bytes -> uint8 label ids [H, W].

    Raises:
      ValueError: the bytes do not decode, or hold other than one 8-bit channel.
    """
    label = _decode(data, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        channels = 1 if label.ndim == 2 else label.shape[2]
        raise ValueError(f"expected a label with one 8-bit channel, got {channels} of {label.dtype}")
    return label


def _decode(data: bytes, flags: int) -> np.ndarray:
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if array is None:
        raise ValueError("does not decode as an image")
    return array
