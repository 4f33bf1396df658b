"""From source files to ArrayRecord: pair and check the files, name every fault at once, write what is sound.

TFDS writes into a folder named `incomplete.*` and renames it at the end, so that an interrupted preparation
leaves nothing that looks finished. TensorFlow is not needed and not imported.
"""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ovenet_jax.data.labels import Labels
from ovenet_jax.errors import UserError, listed

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
NO_LABEL = b""
FORMAT = 2  # to be raised with every change of what a record holds


class Folders(NamedTuple):
    """Two folders whose files belong together: <key><image_end>.jpg or .png, and <key><label_end>.png.

    Without `labels` there are images alone. files: which files of both folders are meant, "*/*" for those one folder
    deeper. group: of the samples, as their records say it.
    """

    images: Path
    labels: Path | None
    image_end: str = ""
    label_end: str = ""
    files: str = "*"
    group: str = ""


class Tree(NamedTuple):
    """A data set as its download unpacks.

    layout: what its root is, as data.root must be explained. splits: from the root to the folders of each split,
    whether they are there or not; a split that a download may lack is left out where it does.
    """

    name: str
    labels: Labels
    layout: str
    splits: Callable[[Path], dict[str, list[Folders]]]


class Sample(NamedTuple):
    """One image file, its label file unless the split has none, and what else its record holds."""

    name: str
    image: Path
    label: Path | None
    group: str


class TreeBuilder(tfds.core.GeneratorBasedBuilder):
    """Records of the tree under `root`, kept in a folder under `prepared` that is named after its content.

    unlabelled: the splits that have no labels.
    """

    name = "tree"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing to download; TFDS would look for a list of it

    def __init__(self, tree: Tree, root: Path, prepared: Path):
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; data.root must be {tree.layout}")
        self.name = tree.name
        self.labels = tree.labels
        self._root = root
        self._splits = tree.splits(root)
        self.unlabelled = {split for split, folders in self._splits.items() if folders[0].labels is None}
        folder = f"{tree.name}-{tree_digest(root, self._splits.values())}"
        super().__init__(data_dir=prepared / folder, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return dataset_info(self)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        """All splits, after all their files have been checked.

        Raises:
          UserError: names the faults.
        """
        del dl_manager
        splits, faults = find_splits(self._splits, self._root)
        for split, samples in splits.items():
            faults += check_samples(samples, self.labels, f"checking {self.name} {split}")
        refuse(faults, self._root)
        return {split: self._generate_examples(samples) for split, samples in splits.items()}

    def _generate_examples(self, samples: list[Sample]) -> Iterator[tuple[int, dict]]:
        for i, sample in enumerate(samples):
            yield i, sample._asdict() | {"label": sample.label or NO_LABEL}


def dataset_info(builder: tfds.core.GeneratorBasedBuilder) -> tfds.core.DatasetInfo:
    """What a record holds in all our data sets: the bytes of both files as they are, the sample's name and group.

    Labels keep the label ids of the data set; train ids are looked up on reading. In a split without labels they are
    NO_LABEL: TFDS's features are those of all splits. The order is kept.
    """
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "name": tfds.features.Text(),
        "group": tfds.features.Text(),
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
    """A short name for what the parts say; another source or FORMAT gets another name and is prepared anew."""
    return hashlib.sha256(repr((FORMAT, *parts)).encode()).hexdigest()[:12]


def tree_digest(root: Path, splits: Iterable[list[Folders]]) -> str:
    """Digest of the names, sizes and times of change of all files under root that are in these folders."""
    files = [path for folders in splits for pair in folders for path in (*_images(pair), *_labels(pair))]
    stats = [(path, path.stat()) for path in files]
    return digest(*((str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns) for path, stat in stats))


def find_splits(splits: dict[str, list[Folders]], root: Path) -> tuple[dict[str, list[Sample]], list[str]]:
    """Pairs images and labels; each image needs a name that no other image of the data set has.

    Returns:
      the samples of each split, those of each pair of folders sorted by path, and one sentence for each fault.
    """
    found: dict[str, list[Sample]] = {}
    faults: list[str] = []
    first: dict[str, Path] = {}
    for split, folders in splits.items():
        found[split] = []
        for pair in folders:
            samples, unpaired = _find_samples(pair, root)
            found[split] += samples
            faults += unpaired
        for sample in found[split]:
            other = first.setdefault(sample.name, sample.image)
            if other != sample.image:
                faults.append(f"{sample.image}: {other.relative_to(root)} has the same name")
    return found, faults


def _find_samples(pair: Folders, root: Path) -> tuple[list[Sample], list[str]]:
    missing = [
        f"{folder}: no such folder" for folder in (pair.images, pair.labels) if folder and not folder.is_dir()
    ]
    if missing:
        return [], missing
    image_files, label_files = _images(pair), _labels(pair)
    faults = [] if image_files else [f"{pair.images}: no image in this folder"]
    if pair.labels and not label_files:
        faults.append(f"{pair.labels}: no label PNG in this folder")
    if faults:
        return [], faults
    label_of = {_key(path, pair.labels, pair.label_end): path for path in label_files}
    image_of: dict[str, Path] = {}
    for path in image_files:
        other = image_of.setdefault(_key(path, pair.images, pair.image_end), path)
        if other != path:
            faults.append(f"{path}: a second image beside {other.name}")
    if pair.labels:
        labels, images = pair.labels.relative_to(root), pair.images.relative_to(root)
        faults += [
            f"{image_of[key]}: no label {labels}/{key}{pair.label_end}.png"
            for key in image_of.keys() - label_of
        ]
        faults += [
            f"{label_of[key]}: no image {images}/{key}{pair.image_end}" for key in label_of.keys() - image_of
        ]
    samples = [
        Sample(path.stem, path, label_of.get(key), pair.group)
        for key, path in sorted(image_of.items())
        if key in label_of or not pair.labels
    ]
    return samples, sorted(faults)


def _images(pair: Folders) -> list[Path]:
    return _files(pair.images, pair.files, pair.image_end, IMAGE_SUFFIXES)


def _labels(pair: Folders) -> list[Path]:
    return _files(pair.labels, pair.files, pair.label_end, (".png",)) if pair.labels else []


def _files(folder: Path, pattern: str, end: str, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(
        path for path in folder.glob(pattern) if path.suffix.lower() in suffixes and path.stem.endswith(end)
    )


def _key(path: Path, folder: Path, end: str) -> str:
    return path.relative_to(folder).with_suffix("").as_posix().removesuffix(end)


def check_samples(samples: list[Sample], labels: Labels, title: str) -> list[str]:
    """Decodes every file, in parallel and with a progress bar; returns one sentence for each fault."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda sample: _faults_of(sample, labels.known_ids()), samples)
        bar = tqdm(found, title, len(samples), unit=" samples", mininterval=1)
        return [fault for faults in bar for fault in faults]


def _faults_of(sample: Sample, known_ids: frozenset[int]) -> list[str]:
    faults = []
    image = _read(sample.image, decode_image, faults)
    label = _read(sample.label, decode_label, faults) if sample.label else None
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
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise UserError(f"{count} in {root}; mend or remove these files, then start again:{listed(faults)}")


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
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:  # a size that OpenCV refuses
        raise ValueError(f"does not decode as an image ({error.err})") from error
    if array is None:
        raise ValueError("does not decode as an image")
    return array
