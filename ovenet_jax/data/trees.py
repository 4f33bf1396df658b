"""Where the samples of a data set are: in pairs of folders, as a download unpacks, or in list files."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path, PurePath
from typing import NamedTuple

from ovenet_jax.data import storage
from ovenet_jax.data.image_files import IMAGE_SUFFIXES, image_size
from ovenet_jax.data.labels import Labels
from ovenet_jax.data.lists import list_files, read_lines, read_list
from ovenet_jax.data.prepare import DataSet, Sample, digest
from ovenet_jax.data.walk import Note, counted, said, walk
from ovenet_jax.errors import UserError


class Folders(NamedTuple):
    """Two folders whose files, also in subfolders, belong together: <key><image_end>.jpg or .png, and
    <key><label_end>.png.

    Without `labels` there are images alone. group: of the samples, as their records say it. keys: a text file with a
    key per line, which chooses and orders; the other files of both folders are left alone.
    """

    images: Path
    labels: Path | None
    image_end: str = ""
    label_end: str = ""
    group: str = ""
    keys: Path | None = None


class Tree(NamedTuple):
    """A data set as its download unpacks.

    layout: what its root is, as data.root must be explained. splits: from the root to the folders of each split,
    whether they are there or not; a split that a download may lack is left out where it does. official: how many
    samples each split has. lists: a folder of list files that come with it. sample_name: from an image's path under
    the root; no two samples may have the same.
    """

    name: str
    labels: Labels
    layout: str
    splits: Callable[[Path], dict[str, list[Folders]]]
    official: Mapping[str, int]
    lists: Path | None = None
    sample_name: Callable[[PurePath], str] = lambda path: path.stem


def find(tree: Tree, root: Path, lists: Path | None = None) -> DataSet:
    """The samples under `root`, by the list files in the folder `lists` if that is given; then the splits are those
    that have one.

    Raises:
      UserError: no such root, or no list file in `lists`. Whatever is wrong below is among the data set's faults.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; data.root must be {tree.layout}")
    folders = tree.splits(root)
    lists = lists or tree.lists
    if lists is None:
        found = {split: _paired(pairs, root) for split, pairs in folders.items()}
        unlabelled = {split for split, pairs in folders.items() if pairs[0].labels is None}
    else:
        group_of = {pair.images: pair.group for pairs in folders.values() for pair in pairs}
        found = {split: _listed(file, root, group_of) for split, file in list_files(lists).items()}
        unlabelled = {split for split, (files, *_) in found.items() if files and all(f.label is None for f in files)}
    splits, faults = _named(found, root, tree.sample_name)
    every = [files for of_split, *_ in found.values() for files in of_split]
    stats = [(str(path.relative_to(root)), *_size_and_time(path)) for files in every for path in files.paths]
    counts = {split: len(samples) for split, samples in splits.items()}
    return DataSet(
        name=tree.name,
        source=str(root),
        labels=tree.labels,
        splits=splits,
        unlabelled=frozenset(unlabelled),
        official=tree.official,
        faults=faults,
        digest=digest(tree.labels.ids, tree.labels.ignored_ids, counts, stats, faults),
        bytes_needed=cache(partial(_bytes_needed, every)),
        left_out=[note for *_, notes in found.values() for note in notes],
    )


class _Files(NamedTuple):
    image: Path
    label: Path | None
    group: str

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.image, self.label) if self.label else (self.image,)


_Found = tuple[list[_Files], list[str], list[Note]]  # samples, one sentence for each fault, files left out


def _named(
    found: dict[str, _Found], root: Path, sample_name: Callable[[PurePath], str]
) -> tuple[dict[str, list[Sample]], list[str]]:
    """The samples of each split, and one sentence for each fault; two images of the same name are one."""
    splits: dict[str, list[Sample]] = {}
    faults: list[str] = []
    first: dict[str, Path] = {}
    for split, (files, odd, _) in found.items():
        splits[split] = []
        faults += odd
        for image, label, group in files:
            name = sample_name(image.relative_to(root))
            splits[split].append(Sample(name, image, label, group))
            other = first.setdefault(name, image)
            if other != image:
                faults.append(f"{image}: {other.relative_to(root)} has the same name")
    return splits, faults


def _listed(file: Path, root: Path, group_of: Mapping[Path, str]) -> _Found:
    pairs, faults = read_list(file, root)
    groups = [next((group_of[f] for f in image.parents if f in group_of), "") for image, _ in pairs]
    return [_Files(*pair, group) for pair, group in zip(pairs, groups, strict=True)], faults, []


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:  # a fault once it is read
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _bytes_needed(samples: Sequence[_Files]) -> dict[str, int]:
    """Disk space that each storage form takes."""
    with ThreadPoolExecutor() as threads:
        sizes = list(threads.map(lambda files: image_size(files.image), samples))
    return storage.bytes_needed(
        (sum(_size_and_time(path)[0] for path in files.paths), size, files.label is not None)
        for files, size in zip(samples, sizes, strict=True)
    )


# ---- pairs of folders ----


def _paired(pairs: list[Folders], root: Path) -> _Found:
    files, faults, left_out = zip(*(_pair(pair, root) for pair in pairs), strict=True)
    return sum(files, []), sum(faults, []), sum(left_out, [])


def _pair(pair: Folders, root: Path) -> _Found:
    folders = [folder for folder in (pair.images, pair.labels) if folder]
    missing = [f"{folder}: no such folder" for folder in folders if not folder.is_dir()]
    if missing:
        return [], missing, []
    image_files, left_out = _files(pair.images, pair.image_end, IMAGE_SUFFIXES)
    label_files, others = _files(pair.labels, pair.label_end, (".png",)) if pair.labels else ([], [])
    left_out += others
    faults = [] if image_files else [f"{pair.images}: no image in this folder"]
    if pair.labels and not label_files:
        faults.append(f"{pair.labels}: no label PNG in this folder")
    if faults:
        return [], faults + said(counted(left_out)), []
    label_of = dict(label_files)
    image_of: dict[str, Path] = {}
    for key, path in image_files:
        other = image_of.setdefault(key, path)
        if other != path:
            faults.append(f"{path}: a second image beside {other.name}")
    keys = sorted(image_of)
    if pair.keys:
        lines, odd = read_lines(pair.keys)
        keys = [columns[0] for columns in lines.values()]
        image = f"image {pair.images.relative_to(root)}"
        faults += odd + [f"{pair.keys}: no {image}/{key}{pair.image_end}" for key in keys if key not in image_of]
        keys = [key for key in keys if key in image_of]
        label_of = {key: label_of[key] for key in keys if key in label_of}
    if pair.labels:
        labels, images = pair.labels.relative_to(root), pair.images.relative_to(root)
        faults += [
            f"{image_of[key]}: no label {labels}/{key}{pair.label_end}.png" for key in keys if key not in label_of
        ]
        faults += [f"{label_of[key]}: no image {images}/{key}{pair.image_end}" for key in label_of.keys() - image_of]
    files = [_Files(image_of[key], label_of.get(key), pair.group) for key in keys if key in label_of or not pair.labels]
    return files, sorted(faults), [] if pair.keys else left_out


def _files(folder: Path, end: str, suffixes: Sequence[str]) -> tuple[list[tuple[str, Path]], list[Note]]:
    """Key and path of each file, and the files left out."""
    found = walk(folder, suffixes, end)
    keys = [path.relative_to(folder).with_suffix("").as_posix().removesuffix(end) for path in found.files]
    return list(zip(keys, found.files, strict=True)), found.left_out
