"""From source files to ArrayRecord: check all files, report all faults together, write records, count what they hold.

One process at a time prepares a data set; others wait, and find it done. TFDS writes into a folder named
`incomplete.*` and renames it at the end, so that an interrupted preparation leaves nothing that looks finished; the
next one removes what a killed one has left. Records go into shards, one after the other, as they are read: memory stays
bounded, and TensorFlow, which TFDS needs to sort more than 1 GB, is not imported.
"""

import contextlib
import fcntl
import hashlib
import io
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import grain
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ovenet_jax import errors, files, tables
from ovenet_jax.data import encodings, inventory, storage, walk
from ovenet_jax.data.image_files import Read, oriented_like, read_image
from ovenet_jax.data.labels import Labels

SHARD_BYTES = 2**26  # of the source files
REPORT = "report.json"  # beside the records: the inventory
FORMAT = 3  # to be increased with every change of the record format


class Sample(NamedTuple):
    """One image file, its label file unless the split has none, what else its record holds, and the label's
    encoding. A file is a Path, or any object with read_bytes()."""

    name: str
    image: Any
    label: Any
    group: str = ""
    encoding: str = encodings.LABEL_IDS


class DataSet(NamedTuple):
    """What there is to prepare.

    source: where it is, for people. digest: hash of everything the records depend on. bytes_needed: disk space by
    storage form, computed when called. unlabelled: the splits without labels. official: number of samples per split as
    published. faults: a sentence for each fault known before files are read. left_out: notes about other files.
    """

    name: str
    source: str
    labels: Labels
    splits: Mapping[str, Sequence[Sample]]
    digest: str
    bytes_needed: Callable[[], dict[str, int]]
    unlabelled: frozenset[str] = frozenset()
    official: Mapping[str, int] = MappingProxyType({})
    faults: Sequence[str] = ()
    left_out: Sequence[walk.Note] = ()


class Builder(tfds.core.ShardBasedBuilder):
    """Records of a data set, kept in a folder under `prepared` that is named after its content."""

    name = "data_set"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # no downloads; TFDS would search for a list of their URLs

    def __init__(self, data_set: DataSet, prepared: Path, form: str):
        self.name = data_set.name
        self.data_set, self.prepared, self.form = data_set, prepared, form
        self.fault_file = prepared / f"{data_set.name}.faults.txt"
        folder = prepared / f"{data_set.name}-{digest(form, data_set.digest)}"
        super().__init__(data_dir=folder, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        """What a record holds in all our data sets: what its storage form says, and the sample's name and group."""
        text = {"name": tfds.features.Text(), "group": tfds.features.Text()}
        features = tfds.features.FeaturesDict(storage.features(self.form, self.data_set.labels) | text)
        return _LocalInfo(builder=self, features=features, disable_shuffling=True)

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        """Writes the records of all splits and the report. Raises UserError: names the faults."""
        folder = Path(self.data_dir)
        self._faults = list(self.data_set.faults)
        self._counted: dict[str, list[inventory.Counted]] = {split: [] for split in self.data_set.splits}
        self._notes: list[walk.Note] = []
        with storage.writing(self.form, folder, self.data_set.labels) as self._write:
            super()._download_and_prepare(dl_manager, download_config)
        if self._faults:
            raise errors.UserError(_refusal(self._faults, self.data_set.source, self.fault_file))
        content = inventory.as_json(self.name, self.data_set.labels, self.data_set.official, self._counted, self._notes)
        files.write_json(folder / REPORT, content)

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[Callable[[], Iterator]]]:
        del dl_manager
        total = sum(len(samples) for samples in self.data_set.splits.values())
        rows = 1 + SHARD_BYTES * total // (1 + self.data_set.bytes_needed()["compressed"])
        shards: dict[str, list[Callable[[], Iterator]]] = {}
        for split, samples in self.data_set.splits.items():
            records = self._records(split, samples)  # TFDS takes them shard by shard, in their order
            count = max(1, -(-len(samples) // rows))
            shards[split] = [partial(itertools.islice, records, rows)] * count
        return shards

    def _records(self, split: str, samples: Sequence[Sample]) -> Iterator[tuple[int, dict]]:
        """Key and record of each sample; stops after the first fault, but checks all files."""
        checked = ahead(partial(_check, labels=self.data_set.labels), samples)
        bar = tqdm(checked, f"preparing {self.name} {split}", len(samples), unit=" samples", mininterval=1)
        for i, (sample, (image, label, faults, counted)) in enumerate(zip(samples, bar, strict=True)):
            self._faults += faults
            if self._faults:
                continue
            self._counted[split].append(counted)
            read = (sample.image, image), (sample.label, label)
            self._notes += [(r.note, str(file)) for file, r in read if r and r.note]
            yield i, self._write(image, label) | {"name": sample.name, "group": sample.group}


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: no server knows our data sets, and TFDS would leave a temporary folder behind."""

    def write_to_directory(self, dataset_info_dir: Path, all_metadata: bool = True) -> None:
        """Called by TFDS last before it renames the folder."""
        super().write_to_directory(dataset_info_dir, all_metadata)
        files.flush_all(Path(dataset_info_dir))


# ---- one sample ----


def _check(sample: Sample, labels: Labels) -> tuple[Read | None, Read | None, list[str], inventory.Counted]:
    """Its image and label, a sentence for each fault, and what the inventory counts."""
    faults: list[str] = []
    ids_of = partial(encodings.read_ids, encoding=sample.encoding, labels=labels)
    content = hashlib.sha256(repr((sample.name, sample.group)).encode())
    image = _read(sample.image, partial(read_image, channels=labels.channels), faults, content)
    label = _read(sample.label, ids_of, faults, content) if sample.label else None
    if image and label:
        label = oriented_like(label, image)
        (h, w), (label_h, label_w) = image.array.shape[:2], label.array.shape
        if (h, w) != (label_h, label_w):
            faults.append(f"{sample.label}: {label_w}x{label_h} pixels, but {Path(str(sample.image)).name} has {w}x{h}")
    pixels = np.bincount(label.array.ravel(), minlength=256) if label else None
    size = image.array.shape[:2] if image else (0, 0)
    moments = inventory.moments_of(image.array) if image and labels.channels else None
    return image, label, faults, inventory.Counted(size, pixels, content.hexdigest(), moments)


def _read(file: Any, read: Callable[[bytes], Read], faults: list[str], content: Any) -> Read | None:
    """Reads the file; updates the hash `content` and appends errors to `faults`."""
    try:
        data = file.read_bytes()
        content.update(hashlib.sha256(data).digest())
        return read(data)
    except OSError as error:
        faults.append(f"{file}: cannot be read ({error.strerror})")
    except ValueError as error:
        faults.append(f"{file}: {error}")
    return None


def aligned_label(sample: Sample, read: Callable[[bytes], Read], labels: Labels) -> Read:
    """The label of a sample, as `read` reads it, turned as its image is. Raises OSError, ValueError: a file cannot be
    read."""
    image = read_image(sample.image.read_bytes(), labels.channels)
    return oriented_like(read(sample.label.read_bytes()), image)


def ahead(function: Callable, items: Sequence) -> Iterator:
    """function(item) of all items in their order, computed by one thread per core, a few items ahead."""
    cores = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=cores, prefetch_buffer_size=2 * cores)
    return iter(grain.MapDataset.source(items).map(function).to_iter_dataset(options))


# ---- all of them ----


def write_records(builder: Builder) -> dict:
    """Prepares the data set of `builder`, unless that is done already; TFDS's output is suppressed. Returns its
    inventory, as JSON, and the folder of its records. Raises UserError: the faults of the source files, or that the
    records cannot be written."""
    folder = Path(builder.data_dir)
    once(folder, builder.prepared, builder.name, lambda: _write_records(builder, folder))
    report, data_set = read_inventory(builder), builder.data_set
    notes = report["notes"] + walk.counted(data_set.left_out)
    return report | {"folder": str(folder), "classes": list(data_set.labels.names), "notes": notes}


def read_inventory(builder: Builder) -> dict:
    """The inventory of prepared data. Older versions wrote no digests, which are computed from the source files. Raises
    UserError: it is damaged."""
    file, data_set = Path(builder.data_dir) / REPORT, builder.data_set
    names = data_set.labels.names
    remedy = f"delete {file.parent}, and it is prepared anew"
    form = inventory.form_of(data_set.splits, data_set.unlabelled, data_set.labels.channels)
    report = files.read_json(file, form, remedy)
    if any(len(found.get("pixels", names)) != len(names) for found in report["splits"].values()):
        raise errors.UserError(f"{file} is damaged (it counts other classes); {remedy}.")
    without = [split for split, found in report["splits"].items() if not isinstance(found.get("digest"), str)]
    for split in without:
        checked = ahead(partial(_check, labels=data_set.labels), data_set.splits[split])
        report["splits"][split]["digest"] = inventory.digest_of(counted.digest for *_, counted in checked)
    if without:
        with contextlib.suppress(OSError):  # a read-only folder: computed again each time
            files.write_json(file, report)
    return report


def _write_records(builder: Builder, folder: Path) -> None:
    for leftover in builder.prepared.glob(f"{builder.name}-*/{builder.name}/incomplete.*"):
        shutil.rmtree(leftover)
    _check_disk(builder)
    builder.fault_file.unlink(missing_ok=True)
    tfds.disable_progress_bar()
    files.make_folder(folder.parent)
    with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(io.StringIO()):
        try:
            builder.download_and_prepare(download_dir=empty)
        except RuntimeError as error:  # array_record's
            raise OSError(str(error)) from error
    files.flush(folder.parent)


def once(made: Path, place: Path, name: str, make: Callable[[], None]) -> None:
    """Calls `make` to create `made` in the folder `place`, unless it exists. Other processes wait meanwhile on a lock
    file of that `name`, which the system releases if its holder is killed. Raises UserError: `place` cannot be written,
    or `make` was interrupted."""
    try:
        with files.writing(place, "--config.data.prepared"):
            if made.exists():
                return
            files.make_folder(place)
            with (place / f".{name}.lock").open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(f"Another process is preparing {name} in {place}; waiting for it.", flush=True)
                    fcntl.flock(file, fcntl.LOCK_EX)
                if not made.exists():  # otherwise another process has made it meanwhile
                    make()
    except KeyboardInterrupt:
        fault = f"The preparation of {name} was interrupted; nothing of it is kept."
        raise errors.UserError(fault, errors.EXIT_INTERRUPTED) from None


def _check_disk(builder: Builder) -> None:
    """Prints the disk space of each storage form. Raises UserError: not enough free space."""
    prepared, needed = builder.prepared, builder.data_set.bytes_needed()
    free = shutil.disk_usage(prepared).free
    forms = ", ".join(f"{form} {count / 1e9:.2f} GB" for form, count in needed.items())
    print(f"Preparing {builder.name} in {prepared}, where {free / 1e9:.2f} GB are free; it takes: {forms}.")
    if needed[builder.form] > free:
        takes = f"{builder.name} takes {needed[builder.form] / 1e9:.2f} GB {builder.form}"
        helps = "free some, or choose another --config.data.prepared or --config.data.storage"
        raise errors.UserError(f"{prepared} has {free / 1e9:.2f} GB free, but {takes}; {helps}.")


def _refusal(faults: Sequence[str], source: str, file: Path) -> str:
    """Names the first faults and counts all; where there are more, they are all written into `file`."""
    faults = list(dict.fromkeys(faults))  # splits may share files
    everywhere = ""
    if len(faults) > errors.FAULTS_SHOWN:
        files.write(file, "".join(f"{fault}\n" for fault in faults))
        everywhere = f"\nAll of them are in {file}"
    count, helps = tables.number_of(len(faults), "fault"), "mend them, or remove image and label, then start again"
    return f"{count} in {source}; {helps}:{errors.listed(faults)}{everywhere}"


def digest(*parts: object) -> str:
    """A short hash of the parts and FORMAT, in the name of the records' folder; a new hash means preparing anew."""
    return hashlib.sha256(repr((FORMAT, *parts)).encode()).hexdigest()[:12]
