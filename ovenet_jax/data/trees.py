"""Finds the samples of a data set: in pairs of folders, as a download unpacks, or by list files."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path, PurePath
from typing import NamedTuple

from ovenet_jax.data import image_files, storage
from ovenet_jax.data.labels import Labels
from ovenet_jax.data.lists import SPLITS, list_files, read_lines, read_list
from ovenet_jax.data.prepare import DataSet, Sample, digest
from ovenet_jax.data.walk import Note, counted, said, walk
from ovenet_jax.errors import UserError


class Folders(NamedTuple):
    """Two folders under the root whose files, also in subfolders, belong together: <key><image_end>.jpg or .png, and
    <key><label_end>.png.

    labels: None if there are only images. group: stored with each sample. keys: a text file with a key per line, which
    chooses and orders; the other files of both folders are not read.
    """

    images: str
    labels: str | None
    image_end: str = ""
    label_end: str = ""
    group: str = ""
    keys: str = ""


def each(splits: Sequence[str], *folders: Folders) -> dict[str, list[Folders]]:
    """The folders of these splits, each of which has its name in place of {}."""
    return {
        split: [Folders._make(part and part.format(split) for part in pair) for pair in folders] for split in splits
    }


OPENSEG = each(SPLITS, Folders("{}/image", "{}/label"))  # its layout of any data set


class Tree(NamedTuple):
    """The layout of a data set under its root.

    layout: description of the root for error messages. splits: the folders of each split; one without labels may be
    missing. official: number of samples per split as published. lists: a folder of list files that come with it.
    listed_in: folders of images and labels, below which paths in its list files begin. sample_name: from an image's
    path under the root; names must be unique.
    """

    name: str
    labels: Labels
    layout: str
    splits: Mapping[str, Sequence[Folders]]
    official: Mapping[str, int]
    lists: Path | None = None
    listed_in: tuple[str, str] = ("", "")
    sample_name: Callable[[PurePath], str] = lambda path: path.stem


_Files = tuple[Path, Path | None, str]  # an image, its label and its group
_Found = tuple[list[_Files], list[str], list[Note]]  # one sentence for each fault, notes about other files


def find(tree: Tree, root: Path, lists: Path | None = None) -> DataSet:
    """The samples under `root`, by the list files in the folder `lists` if that is given; splits are then those with
    a list file.

    Raises:
      UserError: no such root, or no list file in `lists`. Other problems are collected in DataSet.faults.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; data.root must be {tree.layout}")
    folders, lists = _present(tree, root), lists or tree.lists
    if lists is None:
        found = {split: _paired(pairs, root) for split, pairs in folders.items()}
        unlabelled = {split for split, pairs in folders.items() if pairs[0].labels is None}
    else:
        group_of = {root / pair.images: pair.group for pairs in tree.splits.values() for pair in pairs}
        found = {split: _listed(file, root, tree.listed_in, group_of) for split, file in list_files(lists).items()}
        if tree.official and "val" not in tree.splits and "val" in found and "test" not in found:
            found["test"] = found.pop("val")  # as HRNet calls COCO-Stuff's
        unlabelled = {
            split for split, (files, *_) in found.items() if files and not any(label for _, label, _ in files)
        }
    left_out = [note for *_, notes in found.values() for note in notes]
    found = {split: of_split for split, of_split in found.items() if of_split[0] or of_split[1]}
    every = [files for of_split, *_ in found.values() for files in of_split]
    faults = [fault for _, odd, _ in found.values() for fault in odd]
    names = {image: tree.sample_name(image.relative_to(root)) for image, *_ in every}
    first: dict[str, Path] = {}
    for image, name in names.items():
        other = first.setdefault(name, image)
        if other != image:
            faults.append(f"{image}: {other.relative_to(root)} has the same name")
    stats = [(str(path.relative_to(root)), *_size_and_time(path)) for files in every for path in _paths(files)]
    counts = {split: len(files) for split, (files, *_) in found.items()}
    return DataSet(
        name=tree.name,
        source=str(root),
        labels=tree.labels,
        splits={
            split: [Sample(names[files[0]], *files) for files in of_split] for split, (of_split, *_) in found.items()
        },
        unlabelled=frozenset(unlabelled) & found.keys(),
        official=tree.official,
        faults=faults,
        digest=digest(tree.labels.ids, tree.labels.ignored_ids, counts, stats, faults),
        bytes_needed=cache(partial(_bytes_needed, every)),
        left_out=left_out,
    )


def _listed(file: Path, root: Path, folders: tuple[str, str], group_of: Mapping[Path, str]) -> _Found:
    pairs, faults = read_list(file, root, folders)
    groups = [next((group_of[f] for f in image.parents if f in group_of), "") for image, _ in pairs]
    return [(*pair, group) for pair, group in zip(pairs, groups, strict=True)], faults, []


def _paths(files: _Files) -> list[Path]:
    return [path for path in files[:2] if path]


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:  # a fault once it is read
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _bytes_needed(samples: Sequence[_Files]) -> dict[str, int]:
    """Disk space that each storage form takes."""
    with ThreadPoolExecutor() as threads:
        sizes = list(threads.map(lambda files: image_files.image_size(files[0]), samples))
    return storage.bytes_needed(
        (sum(_size_and_time(path)[0] for path in _paths(files)), size, files[1] is not None)
        for files, size in zip(samples, sizes, strict=True)
    )


# ---- pairs of folders ----


def _present(tree: Tree, root: Path) -> dict[str, Sequence[Folders]]:
    """The splits that the root should have: in openseg's layout where that is found, else in the data set's own."""
    labelled = [split for split, pairs in tree.splits.items() if pairs[0].labels]
    present = {
        split: pairs
        for split, pairs in tree.splits.items()
        if split in labelled or any((root / pair.images).is_dir() for pair in pairs)
    }
    if tree.official and (root / "train/image").is_dir():
        present |= {split: OPENSEG[there] for split, there in zip(labelled, OPENSEG, strict=False)}
    return present


def _paired(pairs: Sequence[Folders], root: Path) -> _Found:
    """Of several pairs of folders, as of ACDC's conditions, those of which nothing is there are left out."""
    there = [pair for pair in pairs if any((root / folder).exists() for folder in pair[:2] if folder)]
    files, faults, left_out = zip(*(_pair(pair, root) for pair in there or pairs), strict=True)
    absent = [("folders are not there and left out", str(root / pair.images)) for pair in pairs if pair not in there]
    return sum(files, []), sum(faults, []), sum(left_out, absent if there else [])


def _pair(pair: Folders, root: Path) -> _Found:
    folders = [root / folder for folder in (pair.images, pair.labels) if folder]
    missing = [f"{folder}: no such folder" for folder in folders if not folder.is_dir()]
    if missing:
        return [], missing, []
    images, left_out = _files(folders[0], pair.image_end, image_files.IMAGE_SUFFIXES)
    labels, others = _files(folders[1], pair.label_end, (".png",)) if pair.labels else ([], [])
    left_out += [note for note in others if PurePath(note[1]).stem.endswith(pair.label_end)]
    if not (images or pair.labels):
        return [], [], [*left_out, ("folders are empty and left out", str(folders[0]))]
    empty = [] if images else [f"{folders[0]}: no image in this folder"]
    if pair.labels and not labels:
        empty.append(f"{folders[1]}: no label PNG in this folder")
    if empty:
        return [], empty + said(counted(left_out)), []
    label_of, image_of = dict(labels), dict(reversed(images))
    faults = [f"{path}: a second image beside {image_of[key].name}" for key, path in images if image_of[key] != path]
    keys = sorted(image_of)
    if pair.keys:
        left_out, (lines, odd) = [], read_lines(root / pair.keys)
        named = [columns[0] for columns in lines.values()]
        keys = [key for key in named if key in image_of]
        label_of = {key: label_of[key] for key in keys if key in label_of}
        image = f"{root / pair.keys}: no image {pair.images}"
        faults += odd + [f"{image}/{key}{pair.image_end}" for key in named if key not in image_of]
    if pair.labels:
        no_image, no_label = f"no image {pair.images}", f"no label {pair.labels}"
        faults += [f"{image_of[key]}: {no_label}/{key}{pair.label_end}.png" for key in keys if key not in label_of]
        faults += [f"{label_of[key]}: {no_image}/{key}{pair.image_end}" for key in label_of.keys() - image_of]
        keys = [key for key in keys if key in label_of]
    return [(image_of[key], label_of.get(key), pair.group) for key in keys], sorted(faults), left_out


def _files(folder: Path, end: str, suffixes: Sequence[str]) -> tuple[list[tuple[str, Path]], list[Note]]:
    """Key and path of each file, and notes about the others."""
    found, left_out = walk(folder, suffixes, end)
    keys = [path.relative_to(folder).with_suffix("").as_posix().removesuffix(end) for path in found]
    return list(zip(keys, found, strict=True)), left_out
