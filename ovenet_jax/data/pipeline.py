"""From prepared records to batches of uint8 arrays, by grain.

What a batch holds depends on the seed and its number alone, not on how many processes or workers there are:
the position in the data is the step, and no state of an iterator is ever saved.
"""

import contextlib
import importlib.util
import itertools
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import cv2
import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from ml_collections import ConfigDict

from ovenet_jax.data import worker
from ovenet_jax.data.augment import Act, RandomBrightness, RandomFlip, RandomScaleCrop, pad
from ovenet_jax.data.camvid import CamVid
from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.data.prepare import decode_image, decode_label, write_records
from ovenet_jax.data.toy_streets import ToyStreets
from ovenet_jax.errors import UserError

Batch = dict[str, np.ndarray]

THREADS = 4  # that prepare batches ahead, one each, where there are no worker processes


def prepare(data: ConfigDict) -> None:
    """Writes the records of the data set that config.data describes, unless they are there already.

    Args:
      data: `name` ('camvid' or 'toy_streets'), `prepared` (the folder for records of all data sets) and `root`
        (the folder of the source files; toy_streets has none).

    Raises:
      UserError: an unknown name, or every fault of the source files at once.
    """
    write_records(_builder(data))


def open_split(data: ConfigDict, split: str) -> "Source":
    """Opens a split ('train', also 'train+val') of the prepared data set that config.data describes.

    Raises:
      UserError: the data set is not prepared, or has no such split.
    """
    builder = _builder(data)
    folder = Path(builder.data_dir)
    if not folder.exists():
        raise UserError(f"{data.name} is not prepared in {folder}; call prepare first.")
    reader = tfds.builder_from_directory(folder)
    as_it_is = tfds.decode.SkipDecoding()
    try:
        records = reader.as_data_source(split, decoders={"image": as_it_is, "label": as_it_is})
    except ValueError:
        choices = ", ".join(reader.info.splits)
        raise UserError(f"{data.name} has no split {split!r}; choose one of {choices}.") from None
    return Source(records, builder.labels, folder)


@dataclass(frozen=True, eq=False)
class Source:
    """Random access to the samples of a split, in the order of their names. Can be pickled."""

    records: Sequence[dict]
    classes: Labels
    folder: Path

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        """{'image': uint8 RGB [H, W, 3], 'label': uint8 train ids [H, W], 'name': str}.

        Raises:
          UserError: the record is damaged.
        """
        sample = f"record {index}"
        try:
            record = self.records[index]
            sample = record["name"].decode()
            image, label = decode_image(record["image"]), decode_label(record["label"])
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{sample} in {self.folder} is damaged ({error}); delete that folder, and it is prepared anew."
            ) from error
        return {"image": image, "label": cv2.LUT(label, self.classes.train_ids()), "name": sample}


def augmentations(settings: ConfigDict) -> list[Act]:
    """The acts that config.augment describes: `base_size`, `crop` (H, W), `scale_factor`, `brightness` (0: none)."""
    acts = [RandomScaleCrop(settings.base_size, tuple(settings.crop), settings.scale_factor)]
    if settings.brightness:
        acts.append(RandomBrightness(settings.brightness))
    return [*acts, RandomFlip()]


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
      UserError: batch_size cannot be split over the processes; on iterating, a record is damaged.
    """
    rows = _rows_per_process(batch_size, process_count)
    dataset = grain.MapDataset.source(source).map(_without_name).seed(seed).shuffle().repeat()
    for act in acts:
        dataset = dataset.random_map(act)
    # it is endless, so nothing is dropped; without drop_remainder its length overflows for rows = 1
    dataset = dataset.batch(rows, drop_remainder=True)
    return _running(dataset[first_step * process_count + process_index :: process_count], workers)


def eval_batches(
    source: Source,
    *,
    size: tuple[int, int],
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> AbstractContextManager[Iterator[Batch]]:
    """Every sample once over all processes, in order, padded at the bottom and right to size (H, W).

    batch_size counts the rows over all processes, as in `train_batches`. Blank samples, which are ignored
    everywhere, fill the last batches, so that every process gets as many batches of the same shape.

    Returns:
      for a `with`: an iterator of {'image': uint8 RGB [b, H, W, 3], 'label': uint8 train ids [b, H, W],
      'index': int64 [b]}, the last being places in the source, -1 for blank samples.

    Raises:
      UserError: batch_size cannot be split over the processes; on iterating, an image is larger than size or a
        record is damaged.
    """
    rows = _rows_per_process(batch_size, process_count)
    total = -(-len(source) // batch_size) * batch_size
    dataset = grain.MapDataset.source(_Padded(source, tuple(size), total)).batch(rows)
    return _running(dataset[process_index::process_count], workers)


@dataclass(frozen=True, eq=False)
class _Padded:
    """`length` samples of one size: those of source, then blank ones."""

    source: Source
    size: tuple[int, int]
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        if index >= len(self.source):
            blank = {
                "image": np.zeros((*self.size, 3), np.uint8),
                "label": np.full(self.size, IGNORE, np.uint8),
            }
            return blank | {"index": np.int64(-1)}
        sample = self.source[index]
        (height, width), (most_rows, most_columns) = sample["label"].shape, self.size
        if height > most_rows or width > most_columns:
            raise UserError(
                f"{sample['name']} has {height} rows and {width} columns, more than config.eval.size = {self.size}; "
                "make that at least as large as the largest image."
            )
        return pad(_without_name(sample), self.size) | {"index": np.int64(index)}


def _builder(data: ConfigDict) -> tfds.core.GeneratorBasedBuilder:
    prepared = Path(data.prepared).expanduser()
    match data.name:
        case "camvid":
            return CamVid(Path(data.root).expanduser(), prepared)
        case "toy_streets":
            return ToyStreets(prepared)
    raise UserError(f"config.data.name = {data.name!r} is unknown; choose camvid or toy_streets.")


def _without_name(sample: dict) -> Batch:
    return {"image": sample["image"], "label": sample["label"]}


def _rows_per_process(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise UserError(
            f"a batch of {batch_size} cannot be split over {process_count} processes; choose a multiple of that."
        )
    return batch_size // process_count


@contextlib.contextmanager
def _running(dataset: grain.MapDataset, workers: int) -> Iterator[Iterator[Batch]]:
    """The elements of dataset, made ahead of time; at the end of the `with`, threads and processes end too."""
    if workers and not flags.FLAGS.is_parsed():  # grain has some, and reads them
        flags.FLAGS.mark_as_parsed()
    threads = 1 if workers else THREADS
    ahead = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
    iterator = iter(ahead.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)))
    try:
        yield _own_memory(_start(iterator, workers), iterator) if workers else iterator
    finally:
        iterator.close()


def _start(iterator: Iterator[Batch], workers: int) -> deque[Batch]:
    """The first batch of each worker: when they have come, all workers have started."""
    with _light_main_module():
        return deque(itertools.islice(iterator, workers))


def _own_memory(first: deque[Batch], rest: Iterator[Batch]) -> Iterator[Batch]:
    """Copies of all batches: the memory that they share with a worker is free again at once, whoever holds them."""
    while first:
        yield {key: np.array(array) for key, array in first.popleft().items()}
    for batch in rest:
        yield {key: np.array(array) for key, array in batch.items()}


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
