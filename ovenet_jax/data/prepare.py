"""From source files to ArrayRecord: pair and check the files, name every fault at once, write what is sound.

TFDS writes into a folder named `incomplete.*` and renames it at the end, so that an interrupted preparation
leaves nothing that looks finished. TensorFlow is not needed and not imported.
"""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable
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
    return tfds.core.DatasetInfo(
        builder=builder, features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )


def write_records(builder: tfds.core.GeneratorBasedBuilder):
    """Prepare the data set of `builder`, unless it is prepared already; TFDS's own messages are kept silent."""
    if Path(builder.data_dir).exists():
        return
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=empty)


def digest(*parts: object) -> str:
    """A short name for what the parts say; another source gets another name and is prepared anew."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def tree_digest(root: Path, folders: Iterable[str]) -> str:
    """Digest of the names, sizes and times of change of all files in some folders under root."""
    files = sorted(path for folder in folders for path in (root / folder).glob("*"))
    stats = [(path, path.stat()) for path in files]
    return digest(*((str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns) for path, stat in stats))


def find_samples(images: Path, labels: Path) -> tuple[list[Sample], list[str]]:
    """Pair the images and the label PNGs of two folders by file name without suffix.

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
    faults += [f"{label_of[name]}: no image of this name in {images.name}/" for name in label_of.keys() - image_of]
    names = sorted(image_of.keys() & label_of)
    return [Sample(name, image_of[name], label_of[name]) for name in names], sorted(faults)


def check_samples(samples: list[Sample], labels: Labels, title: str) -> list[str]:
    """Decode every file, in parallel and with a progress bar; one sentence for each fault."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda sample: _faults_of(sample, labels.known_ids()), samples)
        return [fault for faults in tqdm(found, title, len(samples), unit=" samples", mininterval=1) for fault in faults]


def _faults_of(sample: Sample, known_ids: frozenset[int]) -> list[str]:
    faults, sizes = [], []
    for path, decode in ((sample.image, decode_image), (sample.label, decode_label)):
        try:
            array = decode(path.read_bytes())
        except ValueError as error:
            faults.append(f"{path}: {error}")
            continue
        sizes.append(array.shape[:2])
    if len(sizes) == 2:
        if sizes[0] != sizes[1]:
            (h, w), (label_h, label_w) = sizes
            faults.append(f"{sample.label}: {label_w}x{label_h} pixels, but {sample.image.name} has {w}x{h}")
        unknown = sorted(set(np.flatnonzero(np.bincount(array.ravel())).tolist()) - known_ids)
        if unknown:
            values = ", ".join(map(str, unknown))
            faults.append(f"{sample.label}: label values {values} are not in the class table")
    return faults


def refuse(faults: list[str], root: Path):
    """Raise one UserError that names the first faults and counts all; nothing happens without a fault."""
    if not faults:
        return
    shown = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
    rest = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise UserError(f"{count} in {root}; mend or remove these files, then start again:{shown}{rest}")


def decode_image(data: bytes) -> np.ndarray:
    """JPEG or PNG bytes -> uint8 RGB [H, W, 3]; ValueError if they do not decode."""
    return _decode(data, cv2.IMREAD_COLOR_RGB)


def decode_label(data: bytes) -> np.ndarray:
    """PNG bytes -> uint8 label ids [H, W]; ValueError if they do not decode or hold more than one 8-bit channel."""
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
