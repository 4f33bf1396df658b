"""From prepared records to uint8 arrays, by grain: batches for training, one sample at a time for the rest.

What a batch holds depends on the seed and its number alone, not on how many processes or workers there are:
the position in the data is the step, and no state of an iterator is ever saved.
"""

import contextlib
import importlib.util
import itertools
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from ml_collections import ConfigDict

from ovenet_jax import files
from ovenet_jax.data import folder, storage, toy_streets, trees, worker
from ovenet_jax.data.augment import Act, RandomBrightness, RandomFlip, RandomScaleCrop, resize_short_side
from ovenet_jax.data.inventory import digest_of
from ovenet_jax.data.labels import TOY_STREETS, Labels
from ovenet_jax.data.official import TREES
from ovenet_jax.data.prepare import Builder, File, read_inventory, write_records
from ovenet_jax.errors import UserError

Batch = dict[str, np.ndarray]

THREADS = 4  # that prepare batches ahead, one each, where there are no worker processes


def prepare(data: ConfigDict) -> dict:
    """Writes the records of the data set that config.data describes, unless they are there already.

    Args:
      data: `name` ('toy_streets', 'folder' or that of one of TREES), `prepared` (the folder for records of all data
        sets), `storage` (see storage.py), and, but for toy_streets, `root` (the folder of the source files) and
        `lists` (a folder of list files, see lists.py; '': none).

    Returns:
      what they hold, see inventory.py.

    Raises:
      UserError: an unknown name, or every fault of the source files at once.
    """
    return write_records(_builder(data))


def classes(data: ConfigDict) -> Labels:
    """The classes of the data set that config.data describes, whether it is prepared or not.

    Raises:
      UserError: an unknown name; of a `folder`, that it does not describe its classes.
    """
    return TOY_STREETS if data.name == toy_streets.NAME else _tree(data).labels


def label_files(data: ConfigDict) -> dict[str, File]:
    """The label files, by their samples' names, of the data set that config.data describes.

    Raises:
      UserError: an unknown name, or a root that is no folder.
    """
    data_set = _builder(data).data_set
    labelled = (samples for split, samples in data_set.splits.items() if split not in data_set.unlabelled)
    return {sample.name: sample.label for samples in labelled for sample in samples if sample.label}


def open_split(data: ConfigDict, split: str) -> "Source":
    """Opens a split ('train', also 'train+val') of the prepared data set that config.data describes.

    Raises:
      UserError: the data set is not prepared, or has no such split.
    """
    builder = _builder(data)
    prepared = Path(builder.data_dir)
    if not prepared.exists():
        raise UserError(f"{data.name} is not prepared in {prepared}; call prepare first.")
    names = re.findall(r"[a-z]\w*", split)  # also of "train[:90%]+val"
    if not names or not builder.data_set.splits.keys() >= set(names):
        choices = ", ".join(builder.data_set.splits)
        raise UserError(f"{data.name} has no split {split!r}; choose one of {choices}.")
    inventory = read_inventory(builder)
    reader = _reader(prepared, builder)
    as_they_are = {key: tfds.decode.SkipDecoding() for key in reader.info.features}
    try:
        records = reader.as_data_source(split, decoders=as_they_are)
    except ValueError as error:
        raise UserError(f"Split {split!r} of {data.name} is empty or no part that can be read ({error}).") from None
    has_labels = builder.data_set.unlabelled.isdisjoint(names)
    labels = builder.data_set.labels
    content = [inventory["splits"].get(name, {}).get("digest", "") for name in names]
    content.append(repr(sorted(zip(labels.names, labels.ids, strict=True))))  # what labels mean, in any order
    identity = {"name": data.name, "split": split, "images": len(records), "digest": digest_of(content)}
    return Source(records, labels, prepared, has_labels, identity)


def _reader(prepared: Path, builder: Builder) -> tfds.core.DatasetBuilder:
    """TFDS's, which imports the classes that the folder names: they must be those that `builder` writes."""
    try:
        texts = (prepared / "features.json").read_text(), json.dumps(builder.info.features.to_json())
        classes = re.compile(r'"(?:pythonClassName|type|proto_cls)":\s*"([^"]*)"')
        named, ours = (set(classes.findall(text)) for text in texts)
        if not named <= ours:
            raise ValueError(f"it names {', '.join(sorted(named - ours))}")
        return tfds.builder_from_directory(prepared)
    except Exception as error:  # whatever damaged side files make TFDS raise
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(
            f"{prepared} is damaged or was not prepared here ({said}); delete that folder, and it is prepared anew."
        ) from error


class Samples(Protocol):
    """Whatever is read sample by sample. Worker processes are given it pickled."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...


@dataclass(frozen=True, eq=False)
class Source:
    """Random access to the samples of a split, in the order of their files. Can be pickled.

    identity: name of the data set, split, how many images, and a digest of them, their labels and what these mean.
    stored: the class table of the records, where they have other `classes`, and relabel: what makes of a sample its
    label in these.
    """

    records: Sequence[dict]
    classes: Labels
    folder: Path
    has_labels: bool = True
    identity: Mapping[str, Any] = field(default_factory=dict)
    stored: Labels | None = None
    relabel: Callable[[dict], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        """{'image': uint8 RGB [H, W, 3], 'label': uint8 train ids [H, W], 'name': str, 'group': str}.

        No 'label' unless the source has_labels. group: ACDC's condition, '' elsewhere. Arrays may be read-only.

        Raises:
          UserError: the record is damaged.
        """
        name = f"record {index}"
        try:
            record = self.records[index]
            name = _name(record)
            pixels = storage.read(record, self.folder, self.stored or self.classes, self.has_labels)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(
                f"{name} in {self.folder} is damaged ({error}); delete that folder, and it is prepared anew."
            ) from error
        sample = pixels | {"name": name, "group": record["group"].decode()}
        if self.relabel and self.has_labels:
            sample["label"] = self.relabel(sample)
        return sample

    def name(self, index: int) -> str:
        """The name of a sample, whose pixels are not read."""
        return _name(self.records[index])


def _name(record: dict) -> str:
    """Raises ValueError where files of this name would not be in the folder that they are written to."""
    name = record["name"].decode()
    if not files.is_inside(name):
        raise ValueError(f"its name {name!r} leads out of folders")
    return name


def augmentations(settings: ConfigDict, classes: Labels) -> list[Act]:
    """The acts that config.augment describes; those of LIP, whose images are resized to a fixed size, flip first.

    openseg always flips before it resizes by `short_side`, changes the brightness before it pads, and pads anywhere:
    flipping last is then the same in distribution, and a padded edge is as much brighter as the image.
    """
    of_crop: dict[str, Any] = {entry.name: settings[entry.name] for entry in fields(RandomScaleCrop)}
    of_crop |= {key: tuple(x) for key, x in of_crop.items() if isinstance(x, list)}
    crop = RandomScaleCrop(**of_crop)
    flip = RandomFlip(classes.flip_pairs)
    acts: list[Act] = [crop]
    if settings.brightness:
        acts.append(RandomBrightness(settings.brightness, settings.brightness_share))
    return [flip, *acts] if settings.resize else [*acts, flip]


def train_batches(
    source: Source,
    acts: Sequence[Act],
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> AbstractContextManager[Iterator[Batch]]:
    """Endless batches, shuffled and augmented by acts in this order, from that of `first_step` (0: the first) on.

    batch_size counts the rows over all processes; this process gets b = batch_size / process_count of them, and
    the batches of all processes, one after the other, are the same for any process_count. Each pass over the
    source has its own order. With workers > 0 so many processes read and augment, otherwise threads do.

    Returns:
      for a `with`: an iterator of {'image': uint8 RGB [b, h, w, 3], 'label': uint8 train ids [b, h, w]}.

    Raises:
      UserError: the source has no labels, or batch_size cannot be split over the processes; on iterating, a record
        is damaged.
    """
    if not source.has_labels:
        raise UserError(
            f"This split of {source.folder} has no labels to train on; choose another --config.data.train_split."
        )
    rows, rest = divmod(batch_size, process_count)
    if rest:
        raise UserError(
            f"a batch of {batch_size} cannot be split over {process_count} processes; choose a multiple of that."
        )
    dataset = _in_random_order(grain.MapDataset.source(source).map(_image_and_label), seed)
    for act in acts:
        dataset = dataset.random_map(act)
    # it is endless, so nothing is dropped; without drop_remainder its length overflows for rows = 1
    dataset = dataset.batch(rows, drop_remainder=True)
    return _running(dataset[first_step * process_count + process_index :: process_count], workers)


def images_of_step(source: Source, *, batch_size: int, seed: int, step: int) -> list[str]:
    """The names of the images in the batch of training step `step` (1: the first), over all processes."""
    order = _in_random_order(grain.MapDataset.source(range(len(source))), seed)
    return [source.name(order[i]) for i in range((step - 1) * batch_size, step * batch_size)]


def _in_random_order(dataset: grain.MapDataset, seed: int) -> grain.MapDataset:
    return dataset.seed(seed).shuffle().repeat()


def samples(
    source: Samples, indices: Sequence[int], *, short_side: int = 0, workers: int = 0
) -> AbstractContextManager[Iterator[dict]]:
    """The samples at `indices`, each once, in this order and at its own size, read ahead.

    short_side: resizes images and labels as `resize_short_side` does; 0: not. With workers > 0 so many processes
    read, otherwise threads do.

    Returns:
      for a `with`: an iterator of the source's samples, each with its place as 'index'.

    Raises:
      UserError: on iterating, a record is damaged.
    """
    read = partial(_sample, source, short_side)
    return _running(grain.MapDataset.source(indices).map(read), workers)


def _sample(source: Samples, short_side: int, index: int) -> dict:
    sample = _copied(source[index]) | {"index": index}
    return resize_short_side(sample, short_side) if short_side else sample


def _builder(data: ConfigDict) -> Builder:
    if data.name == toy_streets.NAME:
        data_set = toy_streets.data_set()
    else:
        tree = _tree(data)
        data_set = trees.find(tree, Path(data.root), Path(data.lists) if data.lists else None)
    return Builder(data_set, Path(data.prepared), data.storage)


def _tree(data: ConfigDict) -> trees.Tree:
    if data.name == folder.NAME:
        return folder.tree(Path(data.root))
    for tree in TREES:
        if tree.name == data.name:
            return tree
    known = ", ".join([toy_streets.NAME, *(tree.name for tree in TREES), folder.NAME])
    raise UserError(f"config.data.name = {data.name!r} is unknown; choose one of {known}.")


def _image_and_label(sample: dict) -> Batch:
    return {"image": sample["image"], "label": sample["label"]}


@contextlib.contextmanager
def _running(dataset: grain.MapDataset, workers: int) -> Iterator[Iterator[dict]]:
    """The elements of dataset, made ahead of time; at the end of the `with`, threads and processes end too."""
    if workers and not flags.FLAGS.is_parsed():  # grain has some, and reads them
        flags.FLAGS.mark_as_parsed()
    threads = 1 if workers else THREADS
    ahead = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
    iterator = iter(ahead.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)))
    try:
        if workers:
            with _light_main_module():  # until the first element of each worker has come: all have started then
                first = deque(itertools.islice(iterator, workers))
            yield _own_memory(first, iterator)
        else:
            yield iterator
    finally:
        iterator.close()


def _own_memory(first: deque[dict], rest: Iterator[dict]) -> Iterator[dict]:
    """Copies of all arrays: the memory that they share with a worker is free again at once, whoever holds them."""
    while first:
        yield _copied(first.popleft())
    for element in rest:
        yield _copied(element)


def _copied(element: dict) -> dict:
    return {key: np.array(x) if isinstance(x, np.ndarray) else x for key, x in element.items()}


@contextlib.contextmanager
def _light_main_module():
    """Processes that start meanwhile run worker.py as their main module, not again what the user started.

    Without this each would import that program and all it imports, such as jax and TensorFlow.
    """
    main = sys.modules["__main__"]
    spec = main.__spec__
    main.__spec__ = importlib.util.find_spec(worker.__name__)
    try:
        yield
    finally:
        main.__spec__ = spec
