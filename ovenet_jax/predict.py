"""Label maps and overlays of images without labels, a folder's or a test split's for its server; and offset maps."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax import files
from ovenet_jax.data import labels, pipeline
from ovenet_jax.data.image_files import write_picture
from ovenet_jax.data.image_folder import ImageFolder
from ovenet_jax.data.labels import Labels
from ovenet_jax.devices import parallel
from ovenet_jax.devices.memory import EVALUATION_MEMORY, enough_memory
from ovenet_jax.errors import UserError, listed
from ovenet_jax.evaluation.colours import overlay
from ovenet_jax.evaluation.inference import Inference
from ovenet_jax.evaluation.legend import legend
from ovenet_jax.run import identity, workdir
from ovenet_jax.run.network import Network, restore_network
from ovenet_jax.segfix.files import Offsets, read_offsets, write_offsets
from ovenet_jax.supervision.task import Task, task_of

FORMS = ("png", "mat")  # of offset files


def predict(config: ConfigDict, folder: Path, source: Path | None) -> bool:
    """Writes `folder`/predictions/<name>: label_maps/<image>.png, overlays/<image>.jpg and legend.png.

    Of all images under the folder `source`, or of config.data.test_split, whose label maps are what its test server
    takes: 8-bit PNGs named like the images, in the ids of config.predict.ids. Images are read as they are, without
    the resizing of validation images that config.eval.short_side asks for. With config.predict.offsets also an OVeNet's
    offsets/<image>.png; a SegFix writes these, or .mat as config.predict.form says, instead of label maps. The folder
    appears when all is written and checked.

    Returns whether every image could be read; the others are named and skipped.

    Raises:
      UserError: no images, predictions that exist already, no checkpoint, or one of another model; what no test can
        have, and what cannot be written.
    """
    if config.eval.segfix:
        raise UserError(
            "config.eval.segfix refines in --mode=evaluate; leave it out, and refine the written files with python -m "
            "ovenet_jax.segfix.refine."
        )
    with parallel.all_or_none():
        task = task_of(config, identity.classes_of(folder))
        workdir.note_differences(folder, config)
        if source is None:
            pipeline.prepare(config.data)
            name = config.data.test_split
            images: pipeline.Samples = pipeline.open_split(config.data, name)
        else:
            images, name = ImageFolder(source), source.resolve().name
    classes = _classes(config, task, any_count=source is not None)
    target = folder / "predictions" / name
    parts = _parts(config, task, classes, files.incomplete(target))
    network = restore_network(config.model, folder, config.eval.checkpoint)
    task.check_test()
    inference = Inference.from_config(config, network.graphdef, classes, answer_only=True)
    with parallel.all_or_none():
        files.refuse_existing(target, "--workdir")
    first = jax.process_index() == 0
    what = f"{len(images)} images of {name} with step {network.step} of {folder}"
    parallel.say(f"Predicting {what}, {inference.protocol}.")
    with files.new_folder(target, "--workdir") if first else files.writing(target, "--workdir"):
        parallel.barrier()  # the first process has made the folder
        unreadable, wrong = _write_all(images, inference, network, task, parts, config.data.workers)
        unreadable, wrong = (sum(parallel.gather(faults), []) for faults in (unreadable, wrong))
        if wrong:
            raise UserError(f"{len(wrong)} files are not as they should be: {wrong[0]}; is the disk full?")
        if first:
            write_picture(files.incomplete(target) / "legend.png", legend(classes))
    if first:
        written = " and ".join(part.folder.name.replace("_", " ") for part in parts)
        print(f"Written and checked: {len(images) - len(unreadable)} {written} in {target}")
        if unreadable:
            print(
                f"Left out: {len(unreadable)} of {len(images)} images, which cannot be read:{listed(unreadable)}"
            )
    return not unreadable


@enough_memory(EVALUATION_MEMORY)
def _write_all(
    images: pipeline.Samples,
    inference: Inference,
    network: Network,
    task: Task,
    parts: Sequence["_Part"],
    workers: int,
) -> tuple[list[str], list[str]]:
    """Writes this process's share; returns what is wrong with images, and with files that are read again."""
    params, statistics = parallel.to_local(inference.mesh, (network.params, network.statistics))
    offsets_wanted = any(isinstance(part, _OffsetFiles) for part in parts)
    unreadable: list[str] = []
    mine = range(jax.process_index(), len(images), jax.process_count())
    written: list[tuple[str, tuple[int, int]]] = []

    def write(sample: dict, class_map: np.ndarray, offsets: Offsets | None) -> tuple[str, tuple[int, int]]:
        height, width = size = sample["image"].shape[:2]
        answer = _Answer(sample["image"], class_map[:height, :width], offsets)
        for part in parts:
            part.write(sample["name"], answer)
        return sample["name"], size

    with (
        pipeline.samples(images, mine, workers=workers) as samples,
        ThreadPoolExecutor() as threads,
    ):
        bar = tqdm(samples, "predicting", len(mine), unit=" images", mininterval=1)
        for batch in inference.in_batches(_readable(bar, unreadable), itemgetter("image")):
            pictures = [sample["image"] for sample in batch]
            segmentation = inference(params, statistics, pictures)
            maps, *trunk = jax.device_get(
                (task.class_map(segmentation.prediction), segmentation.offset, segmentation.confidence)
            )
            offsets: Iterable[Offsets | None] = repeat(None)
            if offsets_wanted:
                offsets = task.offsets([picture.shape[:2] for picture in pictures], maps, *trunk)
            written += threads.map(write, batch, maps, offsets)
        faults = threads.map(lambda item: [part.fault_of(*item) for part in parts], written)
        return unreadable, [fault for found in faults for fault in found if fault]


def _classes(config: ConfigDict, task: Task, any_count: bool) -> Labels:
    """The class table of what is predicted, or one that only counts where the model has another number of classes."""
    count = config.model.num_classes
    try:
        classes = task.classes
    except UserError as error:  # of the data set, which predicting images of another folder does not need
        if not any_count:
            raise
        print(f"Note: no class names are known ({error}) The maps hold 0 to {count - 1}.")
        return labels.numbered(count)
    if len(classes.names) == count:
        return classes
    if not any_count:
        raise UserError(
            f"config.model.num_classes={count}, but {config.data.name} has {len(classes.names)} classes; its test "
            f"files need a model of its own classes."
        )
    print(
        f"Note: the model has {count} classes, {config.data.name} {len(classes.names)}; the maps hold 0 to {count - 1}."
    )
    return labels.numbered(count)


def _ids_to_write(classes: Labels, kind: str) -> np.ndarray:
    """Lookup table uint8 [256] from train ids to the ids of the files."""
    tables = {"label_ids": classes.label_ids, "train_ids": lambda: np.arange(256, dtype=np.uint8)}
    if kind not in tables:
        raise UserError(f"config.predict.ids is {kind!r}; known: {', '.join(tables)}.")
    return tables[kind]()


def _readable(samples: Iterable[dict], faults: list[str]) -> Iterator[dict]:
    """The samples that hold an image; what is wrong with the others goes to `faults`."""
    for sample in samples:
        if "fault" in sample:
            faults.append(sample["fault"])
        else:
            yield sample


# ---- what is written of each image ----


class _Answer(NamedTuple):
    """image: uint8 [H, W, 3]. class_map: uint8 [H, W]. offsets: where they are wanted."""

    image: np.ndarray
    class_map: np.ndarray
    offsets: Offsets | None


def _parts(config: ConfigDict, task: Task, classes: Labels, target: Path) -> list["_Part"]:
    """The folders of a prediction in `target`."""
    form = config.predict.form
    if form not in FORMS:
        raise UserError(f"config.predict.form is {form!r}; known: {', '.join(FORMS)}.")
    ids = _ids_to_write(classes, config.predict.ids)
    parts: dict[str, _Part] = {
        "label_maps": _LabelMaps(target / "label_maps", ids, len(classes.names)),
        "offsets": _OffsetFiles(target / "offsets", form),
    }
    return [*(parts[name] for name in task.predicts()), _Overlays(target / "overlays", classes)]


@dataclass(frozen=True)
class _LabelMaps:
    folder: Path
    ids: np.ndarray  # lookup table from train ids to those of the files
    num_classes: int

    def write(self, name: str, answer: _Answer) -> None:
        write_picture(self.folder / f"{name}.png", self.ids[answer.class_map])

    def fault_of(self, name: str, size: tuple[int, int]) -> str | None:
        return fault_of(self.folder / f"{name}.png", size, set(self.ids[: self.num_classes].tolist()))


@dataclass(frozen=True)
class _Overlays:
    folder: Path
    classes: Labels

    def write(self, name: str, answer: _Answer) -> None:
        picture = overlay(answer.image, answer.class_map, self.classes)
        write_picture(self.folder / f"{name}.jpg", picture)

    def fault_of(self, name: str, size: tuple[int, int]) -> None:
        """For people: not read again."""


@dataclass(frozen=True)
class _OffsetFiles:
    folder: Path
    form: str

    def write(self, name: str, answer: _Answer) -> None:
        if answer.offsets:
            write_offsets(self.folder / f"{name}.{self.form}", answer.offsets)

    def fault_of(self, name: str, size: tuple[int, int]) -> str | None:
        """Reads an offset file again: it must have the image's size."""
        try:
            read_offsets(self.folder / f"{name}.{self.form}", size)
        except (OSError, ValueError) as error:
            return str(error)
        return None


_Part = _LabelMaps | _Overlays | _OffsetFiles


def fault_of(file: Path, size: tuple[int, int], allowed: set[int]) -> str | None:
    """Reads a label map again: it must have one 8-bit channel, the image's size and known ids."""
    label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if label is None:
        return f"{file} cannot be read"
    if label.dtype != np.uint8 or label.shape != size:
        return f"{file} is {label.dtype} {list(label.shape)}, expected uint8 {list(size)}"
    unknown = set(np.unique(label).tolist()) - allowed
    return f"{file} holds ids {sorted(unknown)}" if unknown else None
