"""From prepared records to uint8 arrays, by grain: batches for training, one sample at a time for the rest.

The content of a batch depends only on the seed and the step, not on how many processes or workers there are. The step
gives the position in the data, so no iterator state is saved.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from ml_collections import ConfigDict

from ovenet_jax import errors, files
from ovenet_jax.data import augment, folder, image_folder, layouts, storage, toy_streets, trees, worker
from ovenet_jax.data.inventory import digest_of
from ovenet_jax.data.labels import COLORS, TOY_STREETS, Labels
from ovenet_jax.data.prepare import Builder, Sample, read_inventory, write_records

Batch = dict[str, np.ndarray]

THREADS = 4  # that prefetch batches when there are no worker processes
MOST_WORKERS = 16  # by default


def prepare(data: ConfigDict) -> dict:
    """Writes the records of the data set that config.data describes, unless they are there already. Returns the
    inventory (see inventory.py).

    data: `name` ('toy_streets', 'folder' or that of one of TREES), `prepared` (the folder for records of all data
    sets), `storage` (see storage.py), and, except for toy_streets, `root` (the folder of the source files) and `lists`
    (a folder of list files, see lists.py; '': none). Raises UserError: an unknown name, or every fault of the source
    files at once.
    """
    return write_records(_builder(data))


def classes(data: ConfigDict) -> Labels:
    """The classes of the data set that config.data describes, whether it is prepared or not. Raises UserError: an
    unknown name, or a `folder` without class descriptions."""
    return TOY_STREETS if data.name == toy_streets.NAME else _tree(data).labels


def labelled_samples(data: ConfigDict) -> list[Sample]:
    """The files of all labelled samples of the data set that config.data describes. Raises UserError: an unknown name,
    or a root that is not a folder."""
    data_set = _builder(data).data_set
    return [s for split, samples in data_set.splits.items() if split not in data_set.unlabelled for s in samples]


def open_split(data: ConfigDict, split: str) -> "Source":
    """Opens a split ('train', also 'train+val') of the prepared data set that config.data describes. Raises UserError:
    the data set is not prepared, or has no such split."""
    builder = _builder(data)
    prepared, data_set = Path(builder.data_dir), builder.data_set
    if not prepared.exists():
        raise errors.UserError(f"{data.name} is not prepared in {prepared}; call prepare first.")
    if data_set.official and "val" not in {**data_set.official, **data_set.splits}:
        split = re.sub(r"\bval\b", "test", split)  # COCO-Stuff has no val, see trees.py
    names = re.findall(r"[a-z]\w*", split)  # also of "train[:90%]+val"
    if not names or not data_set.splits.keys() >= set(names):
        raise errors.UserError(f"{data.name} has no split {split!r}; choose one of {', '.join(data_set.splits)}.")
    inventory = read_inventory(builder)
    reader = _reader(prepared, builder)
    undecoded = {key: tfds.decode.SkipDecoding() for key in reader.info.features}
    try:
        records = reader.as_data_source(split, decoders=undecoded)
    except ValueError as error:
        fault = f"is empty, or is not a valid split expression ({error})"
        raise errors.UserError(f"Split {split!r} of {data.name} {fault}.") from None
    labels = data_set.labels
    content = [inventory["splits"].get(name, {}).get("digest", "") for name in names]
    of_masks = [] if labels.ignored_colors is None else [labels.colors]
    content.append(repr(sorted(zip(labels.names, labels.ids, *of_masks, strict=True))))  # whatever the order of classes
    identity = {"name": data.name, "split": split, "images": len(records), "digest": digest_of(content)}
    return Source(records, labels, prepared, data_set.unlabelled.isdisjoint(names), identity)


def _reader(prepared: Path, builder: Builder) -> tfds.core.DatasetBuilder:
    """TFDS's reader. It imports the classes that the folder's files name, which must be those that `builder` writes."""
    try:
        texts = (prepared / "features.json").read_text(), json.dumps(builder.info.features.to_json())
        classes = re.compile(r'"(?:pythonClassName|type|proto_cls)":\s*"([^"]*)"')
        named, ours = (set(classes.findall(text)) for text in texts)
        if not named <= ours:
            raise ValueError(f"it names {', '.join(sorted(named - ours))}")
        return tfds.builder_from_directory(prepared)
    except Exception as error:  # whatever damaged side files make TFDS raise
        if errors.cause_of(error):
            raise
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        fault = f"{prepared} is damaged or was not prepared here ({said})"
        raise errors.UserError(f"{fault}; delete that folder, and it is prepared anew.") from error


@dataclass(frozen=True, eq=False)
class Source:
    """Random access to the samples of a split, in the order of their files. Can be pickled.

    identity: name of the data set, split, number of images, and a digest of them, their labels and the class table.
    stored, relabel: see `relabelled`.
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
        """{'image': uint8 RGB [H, W, 3], 'label': uint8 train ids [H, W], 'name': str, 'group': str}. An image of named
        channels is uint16 [H, W, C].

        No 'label' unless the source has_labels. group: ACDC's condition, '' elsewhere. Arrays may be read-only. Raises
        UserError: the record is damaged; OSError: a fault of the system.
        """
        return {key: x[:] if isinstance(x, storage.Rows) else x for key, x in self.rows(index).items()}

    def rows(self, index: int) -> dict:
        """As `self[index]`, but decoded image and label are `storage.Rows`, which are checked when they are sliced."""
        name = f"record {index}"
        try:
            record = self.records[index]
            name, group = _name(record), record["group"].decode()
            pixels = storage.read(record, name, self.folder, self.stored or self.classes, self.has_labels)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
            if errors.cause_of(error):
                raise
            raise storage.damaged(name, self.folder, error) from error
        sample: dict[str, Any] = pixels | {"name": name, "group": group}
        if self.relabel and self.has_labels:
            sample["label"] = self.relabel(sample | {"label": pixels["label"][:]})
        return sample

    def relabelled(self, classes: Labels, relabel: Callable[[dict], np.ndarray]) -> "Source":
        """The same images with other labels: relabel(sample) in `classes`, from a sample in the records' classes."""
        classes = replace(classes, channels=self.classes.channels)
        return replace(self, classes=classes, stored=self.classes, relabel=relabel)

    def name(self, index: int) -> str:
        """The name of a sample, without reading its pixels."""
        return _name(self.records[index])


def _name(record: dict) -> str:
    """Raises ValueError for names that would lead out of the output folder."""
    name = record["name"].decode()
    if not files.is_inside(name):
        raise ValueError(f"its name {name!r} leads out of folders")
    return name


Samples = Source | image_folder.ImageFolder  # what is read sample by sample; worker processes are given it pickled


def augmentations(settings: ConfigDict, classes: Labels) -> list[augment.Act]:
    """The transforms of config.augment. With a fixed `resize` (LIP) the flip comes first.

    openseg flips before it resizes by `short_side`, and changes the brightness before it pads, anywhere. Flipping last
    gives the same distribution; the padding changes in brightness with the image.
    """
    of_crop: dict[str, Any] = {x.name: settings[x.name] for x in fields(augment.RandomScaleCrop) if x.name in settings}
    of_crop |= {key: tuple(x) for key, x in of_crop.items() if isinstance(x, list)}
    crop = augment.RandomScaleCrop(**of_crop)
    flip = [augment.RandomFlip(classes.flip_pairs)] if settings.flip else []
    acts: list[augment.Act] = [crop]
    if settings.brightness:
        colors = tuple(classes.channels.index(color) for color in COLORS if color in classes.channels)
        acts.append(augment.RandomBrightness(settings.brightness, settings.brightness_share, colors))
    if settings.photometric_distortion:
        if classes.channels:
            raise errors.UserError("config.augment.photometric_distortion is of RGB; for named channels unset it.")
        acts.append(augment.PhotometricDistortion())
    return [*flip, *acts] if settings.resize else [*acts, *flip]


def train_batches(
    source: Source,
    acts: Sequence[augment.Act],
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> AbstractContextManager[Iterator[Batch]]:
    """Endless batches, shuffled and augmented by `acts` in this order, from batch `first_step` (0: the first) on.

    batch_size, a multiple of process_count, counts the rows over all processes; this process gets b = batch_size /
    process_count of them, and the batches of all processes, one after the other, are the same for any process_count.
    Each pass over the source has its own order. workers: number of processes that read and augment; 0: threads.

    Returns, for a `with`, an iterator of {'image': uint8 RGB [b, h, w, 3] or uint16 [b, h, w, C], 'label': uint8 train
    ids [b, h, w]}. Raises UserError: the source has no labels; on iterating, a record is damaged.
    """
    if not source.has_labels:
        fault = f"This split of {source.folder} has no labels to train on"
        raise errors.UserError(f"{fault}; choose another --config.data.train_split.")
    rows = batch_size // process_count
    read = source.rows if acts and isinstance(acts[0], augment.RandomScaleCrop) else source.__getitem__
    indices = grain.MapDataset.source(range(len(source)))
    images_and_labels = indices.map(read).map(lambda sample: {key: sample[key] for key in ("image", "label")})
    dataset = _in_random_order(images_and_labels, seed)
    for act in acts:
        dataset = dataset.random_map(act)
    # the data set is infinite, so nothing is dropped; without drop_remainder its length overflows for rows = 1
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
    """The samples at `indices`, each once, in this order and at its own size, read ahead: for a `with`, an iterator of
    the source's samples, each with its 'index'. Raises UserError: on iterating, a record is damaged.

    short_side: resizes images and labels as `resize_short_side` does; 0: no. workers: number of processes that read;
    0: threads.
    """
    read = partial(_sample, source, short_side)
    return _running(grain.MapDataset.source(indices).map(read), workers)


def _sample(source: Samples, short_side: int, index: int) -> dict:
    sample = _copied(source[index]) | {"index": index}
    return augment.resize_short_side(sample, short_side) if short_side else sample


def _builder(data: ConfigDict) -> Builder:
    if data.name == toy_streets.NAME:
        data_set = toy_streets.data_set()
    else:
        tree = _tree(data)
        asked = re.findall(r"[a-z]\w*", " ".join(data.get(f"{use}_split", "") for use in ("train", "eval", "test")))
        data_set = trees.find(tree, Path(data.root), Path(data.lists) if data.lists else None, asked)
    if data_set.labels.channels and data.storage == "decoded":
        raise errors.UserError("config.data.storage='decoded' holds RGB; for named channels it must be 'compressed'.")
    return Builder(data_set, Path(data.prepared), data.storage)


def _tree(data: ConfigDict) -> layouts.Tree:
    if data.name == folder.NAME:
        return folder.tree(Path(data.root), bool(data.lists))
    if data.name not in layouts.TREES:
        known = ", ".join([toy_streets.NAME, *layouts.TREES, folder.NAME])
        raise errors.UserError(f"config.data.name = {data.name!r} is unknown; choose one of {known}.")
    return layouts.TREES[data.name]


@contextlib.contextmanager
def _running(dataset: grain.MapDataset, workers: int) -> Iterator[Iterator[dict]]:
    """The elements of dataset, made ahead of time; at the end of the `with`, threads and processes end too.

    workers: as config.data.workers.
    """
    if workers < 0:
        # macOS does not say which cores a process may use.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(cores, MOST_WORKERS)
    if workers and not flags.FLAGS.is_parsed():  # grain defines absl flags and reads them
        flags.FLAGS.mark_as_parsed()
    threads = 1 if workers else THREADS
    ahead = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
    if workers:  # signals to all processes must not end the one that keeps account of shared memory
        signal.pthread_sigmask(signal.SIG_BLOCK, errors.INTERRUPTIONS)
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, errors.INTERRUPTIONS)
    iterator = iter(ahead.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)))
    try:
        if workers:
            with _light_main_module():  # the first element of each worker shows that it has started
                first = iter(list(itertools.islice(iterator, workers)))  # a list's iterator frees it at its end
            yield map(_copied, itertools.chain(first, iterator))
        else:
            yield iterator
    finally:
        iterator.close()


def _copied(element: dict) -> dict:
    """With arrays of its own: memory that is shared with a worker is freed at once."""
    return {key: np.array(x) if isinstance(x, np.ndarray) else x for key, x in element.items()}


@contextlib.contextmanager
def _light_main_module():
    """Processes started inside this context run worker.py as their main module.

    Without this each would import the user's program and all it imports, such as jax and TensorFlow.
    """
    main = sys.modules["__main__"]
    spec = main.__spec__
    main.__spec__ = importlib.util.find_spec(worker.__name__)
    try:
        yield
    finally:
        main.__spec__ = spec
