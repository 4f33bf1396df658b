"""Finds the samples of a data set: in pairs of folders, as a download unpacks, or by list files."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path, PurePath

from ovenet_jax.data import image_files, lists, storage
from ovenet_jax.data.encodings import ENCODINGS, LABEL_IDS
from ovenet_jax.data.layouts import Folders, Layout, Tree
from ovenet_jax.data.prepare import DataSet, Sample, ahead, digest
from ovenet_jax.data.walk import Note, counted, said, walk
from ovenet_jax.errors import UserError

_Found = tuple[list[Sample], list[str], list[Note]]  # one sentence for each fault, notes about other files


def find(tree: Tree, root: Path, listed: Path | None = None, asked: Collection[str] = ()) -> DataSet:
    """The samples under `root`. listed: a folder of list files, which then define splits and samples. asked: further
    splits to read, if the data set has them. Raises UserError: no such root, nothing of the data set in it, or no list
    file in `listed`; other problems are collected in DataSet.faults."""
    layout, listed = _layout(tree, root), listed or tree.lists
    if listed is None:
        folders = {split: pairs for split, pairs in layout.splits.items() if split in (*lists.SPLITS, *asked)}
        if not _there(chain(*folders.values()), root):
            wanted = layout.splits["train"][0].images
            raise UserError(f"{root}: there is no {wanted} in it; data.root must be {tree.root_is}")
        needed = {split: pairs for split, pairs in folders.items() if pairs[0].labels or _there(pairs, root)}
        found = {split: _paired(pairs, root, tree) for split, pairs in needed.items()}
    else:
        found = {split: _listed(file, root, tree, layout) for split, file in lists.list_files(listed).items()}
        if layout.official and "val" not in layout.official and "val" in found and "test" not in found:
            found["test"] = found.pop("val")  # HRNet's list calls COCO-Stuff's test split val
    splits = {split: samples for split, (samples, faults, _) in found.items() if samples or faults}
    every = list(chain(*splits.values()))
    faults = [fault for _, odd, _ in found.values() for fault in odd]
    first: dict[str, Path] = {}
    for sample in every:
        other = first.setdefault(sample.name, sample.image)
        if other != sample.image:
            faults.append(f"{sample.image}: {other.relative_to(root)} has the same name")
    stats = [(str(path.relative_to(root)), *_size_and_time(path)) for sample in every for path in _paths(sample)]
    counts = {split: len(samples) for split, samples in splits.items()}
    encodings = sorted({sample.encoding for sample in every if sample.label} - {LABEL_IDS})
    labels, meanings = tree.labels, [(name, sorted(ENCODINGS[name].ids(tree.labels).items())) for name in encodings]
    return DataSet(
        name=tree.name,
        source=str(root),
        labels=labels,
        splits=splits,
        unlabelled=frozenset(split for split, samples in splits.items() if not any(x.label for x in samples)),
        official=layout.official,
        faults=faults,
        digest=digest(labels.ids, labels.ignored_ids, counts, stats, faults, *meanings, *labels.channels),
        bytes_needed=cache(partial(_bytes_needed, every)),
        left_out=[note for *_, notes in found.values() for note in notes],
    )


def _layout(tree: Tree, root: Path) -> Layout:
    """The layout of which most folders are there. Raises UserError: no such root, or it is something else."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; data.root must be {tree.root_is}")
    for name, other in tree.others.items():
        if (root / name).exists():
            raise UserError(f"{root} is {other}; data.root must be {tree.root_is}")
    return max(tree.layouts, key=lambda layout: _there(chain(*layout.splits.values()), root))


def _there(pairs: Iterable[Folders], root: Path) -> int:
    """How many of these folders are there."""
    return sum((root / folder).exists() for folder in {folder for pair in pairs for folder in pair[:2] if folder})


def _listed(file: Path, root: Path, tree: Tree, layout: Layout) -> _Found:
    pairs = list(chain(*layout.splits.values()))
    found, faults = lists.read_list(file, root, tree.listed_in)
    samples = []
    for image, label in found:
        pair = next((x for x in pairs if root / x.images in image.parents), pairs[0]._replace(group=""))
        samples.append(_sample(image, label, pair, root, tree))
    return samples, faults, []


def _sample(image: Path, label: Path | None, pair: Folders, root: Path, tree: Tree) -> Sample:
    encoding = next((x for end, x in pair.label_ends.items() if label and _name(label).endswith(end)), LABEL_IDS)
    return Sample(tree.sample_name(image.relative_to(root)), image, label, pair.group, encoding)


def _name(path: PurePath) -> str:
    """The path, its suffix in small letters."""
    return path.with_suffix(path.suffix.lower()).as_posix()


def _paths(sample: Sample) -> list[Path]:
    return [file for file in (sample.image, sample.label) if file]


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:  # reading it will report the fault
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _bytes_needed(samples: Sequence[Sample]) -> dict[str, int]:
    """Disk space that each storage form takes."""
    files = chain.from_iterable(map(_paths, samples))
    sizes = ahead(image_files.image_size, [sample.image for sample in samples])
    decoded = map(storage.decoded_bytes, sizes, [sample.label is not None for sample in samples])
    return {"compressed": sum(_size_and_time(file)[0] for file in files), "decoded": sum(decoded)}


# ---- pairs of folders ----


def _paired(pairs: Sequence[Folders], root: Path, tree: Tree) -> _Found:
    """Of several pairs of folders, as of ACDC's conditions, those of which nothing is there are left out."""
    there = [pair for pair in pairs if _there([pair], root)]
    samples, faults, left_out = zip(*(_pair(pair, root, tree) for pair in there or pairs), strict=True)
    absent = [("folders are not there and left out", str(root / pair.images)) for pair in pairs if pair not in there]
    return sum(samples, []), sum(faults, []), sum(left_out, absent if there else [])


def _pair(pair: Folders, root: Path, tree: Tree) -> _Found:
    folders = [root / folder for folder in (pair.images, pair.labels) if folder]
    if missing := [f"{folder}: no such folder" for folder in folders if not folder.is_dir()]:
        return [], missing, []
    suffixes = image_files.CHANNEL_SUFFIXES if tree.labels.channels else image_files.IMAGE_SUFFIXES
    images, left_out = walk(folders[0], suffixes, pair.image_end)
    named = {*image_files.CHANNEL_SUFFIXES} - {*suffixes}
    unread = {Path(file).with_suffix("") for _, file in left_out if PurePath(file).suffix.lower() in named}
    hint = f"; {', '.join(sorted(named))} are read where classes.yaml names the channels of own images"
    label_of, others = _labels(folders[1], pair.label_ends) if pair.labels else ({}, [])
    left_out += others
    if not (images or pair.labels):
        return [], [], [*left_out, ("folders are empty and left out", str(folders[0]))]
    empty = [] if images else [f"{folders[0]}: no image in this folder{hint * bool(unread)}"]
    if pair.labels and not label_of:
        empty.append(f"{folders[1]}: no label *{' or *'.join(pair.label_ends)} in this folder")
    if empty:
        return [], empty + said(counted(left_out)), []
    image_of: dict[str, Path] = {}
    faults = []
    for path in images:
        key = path.relative_to(folders[0]).with_suffix("").as_posix().removesuffix(pair.image_end)
        if image_of.setdefault(key, path) != path:
            faults.append(f"{path}: a second image beside {image_of[key].name}")
    asked = dict(sorted((image_of | label_of).items()))  # for each sample, by the file that asks for its image
    if pair.keys:
        left_out, (lines, odd) = [], lists.read_lines(root / pair.keys, image_of.keys() | label_of)
        asked, faults = {columns[0]: root / pair.keys for columns in lines.values()}, faults + odd
    absent = {key: f"{key}{pair.image_end}" for key in asked if key not in image_of}
    for key, name in absent.items():
        faults.append(f"{asked[key]}: no image {pair.images}/{name}{hint * (folders[0] / name in unread)}")
    keys = [key for key in asked if key in image_of]
    if pair.labels:
        label = " or ".join(pair.label_ends)
        faults += [f"{image_of[key]}: no label {pair.labels}/{key}{label}" for key in keys if key not in label_of]
        keys = [key for key in keys if key in label_of]
    samples = [_sample(image_of[key], label_of.get(key), pair, root, tree) for key in keys]
    return samples, sorted(faults), left_out


def _labels(folder: Path, ends: Mapping[str, str]) -> tuple[dict[str, Path], list[Note]]:
    """The label of each key, which ends in one of `ends`, the first if there are several; and notes on labels of other
    suffixes."""
    found, others = walk(folder, [PurePath(f"*{end}").suffix for end in ends])
    names = {_name(path.relative_to(folder)): path for path in found}
    label_of: dict[str, Path] = {}
    for end in ends:
        of_end = [name for name in names if name.endswith(end)]
        label_of = {name.removesuffix(end): names.pop(name) for name in of_end} | label_of
    stems = tuple(end.rpartition(".")[0] for end in ends)
    return label_of, [note for note in others if PurePath(note[1]).stem.endswith(stems)]
