"""Writes label maps, overlays and offsets of a folder of images or a test split."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax import errors, files, tables
from ovenet_jax.data import image_folder, pipeline
from ovenet_jax.data.image_files import decode_label, write_picture
from ovenet_jax.data.labels import Labels
from ovenet_jax.data.walk import Note, counted, said
from ovenet_jax.devices import memory, parallel
from ovenet_jax.evaluation import drawing, panel
from ovenet_jax.evaluation.predictor import Prediction, Predictor, known_classes
from ovenet_jax.run import identity, workdir
from ovenet_jax.segfix.files import named, read_offsets, write_offsets
from ovenet_jax.supervision.classes import check_channels
from ovenet_jax.supervision.task import Task, task_of
from ovenet_jax.weights.network import restore_network

# One folder of the output: suffix of its files, write(file, prediction), and check(file, image size), which raises
# OSError or ValueError for a damaged file.
Part = tuple[str, Callable, Callable]


def predict(config: ConfigDict, folder: Path, source: Path | None, out: Path | None = None) -> bool:
    """Writes `out`, or `folder`/predictions/<name>: label_maps/<image>.png, overlays/<image>.jpg and legend.png.

    Predicts the image `source`, or all images under that folder, or config.data.test_split. Label maps have the form
    that test servers expect: 8-bit PNGs named like the images, in the ids of config.predict.ids. Images are not resized
    by config.eval.short_side, which is for validation. config.predict.offsets adds OVeNet's offsets/<image>.png. SegFix
    writes offsets (.png, or .mat by config.predict.form) instead of label maps. The folder appears when everything is
    written and checked.

    Returns whether every image could be read; the others are named and skipped. Raises UserError: no images,
    predictions that exist already, no checkpoint, or one of another model; invalid config.eval; a folder that cannot be
    written.
    """
    if config.eval.get("segfix"):
        helps = "leave it out, and refine the written files with python -m ovenet_jax.segfix.refine"
        raise errors.UserError(f"config.eval.segfix refines in --mode=evaluate; {helps}.")
    with parallel.all_or_none():
        learned = identity.classes_of(folder)
        task = task_of(config, learned)
        workdir.note_differences(folder, config)
        if source is None:
            pipeline.prepare(config.data)
            name = config.data.test_split
            images: pipeline.Samples = pipeline.open_split(config.data, name)
            check_channels(there := pipeline.classes(config.data), config)
            if learned and (others := identity.differences(learned, there)):
                parallel.say(f"Note: {others[0]}; label maps use the run's classes and ids.")
            if (wanted := len(task.classes.names)) != config.model.num_classes:
                fault = f"The network has {config.model.num_classes} classes, but {config.data.name} has {wanted}"
                raise errors.UserError(f"{fault}; label maps for its test server need those.")
        else:
            images = image_folder.ImageFolder(source, config.model.input.get("channels", ()))
            name = source.stem if source.is_file() else source.resolve().name
            for line in images.left_out:
                parallel.say(f"Note: {line}")
        target = out or folder / "predictions" / name
        files.refuse_existing(target, "--out")
        classes = known_classes(config, task)
    parts = _parts(config, task, classes)
    network = restore_network(config.model, folder, config.eval.checkpoint)
    predictor = Predictor(config, network, task, classes)
    first = jax.process_index() == 0
    what = f"{tables.number_of(len(images), 'image')} of {name} with step {network.step} of {folder}"
    parallel.say(f"Predicting {what}, {predictor.inference.protocol}.")
    with files.new_folder(target, "--out") if first else files.writing(target, "--out"):
        parallel.barrier()  # the first process has made the folder
        written = _write_all(images, predictor, files.incomplete(target), parts, config.data.workers)
        unreadable, wrong, notes = (list(chain(*parallel.gather(found))) for found in written)
        if wrong:
            raise errors.UserError(f"Files other than written: {len(wrong)}; the first: {wrong[0]}; is the disk full?")
        if first:
            names = drawing.bordered(panel.legend(classes, range(len(classes.names))), drawing.MARGIN)
            write_picture(files.incomplete(target) / "legend.png", names)
    if first:
        kinds = " and ".join(name.replace("_", " ") for name in parts)
        print(f"Written and checked: {len(images) - len(unreadable)} {kinds} in {target}")
        for line in said(counted(notes)):
            print(f"Note: {line}")
        if unreadable:
            count = f"{len(unreadable)} of {tables.number_of(len(images), 'image')}"
            print(f"Skipped {count}, which cannot be read:{errors.listed(unreadable)}")
    return not unreadable


@memory.enough_memory(memory.EVALUATION_MEMORY)
def _write_all(
    images: pipeline.Samples, predictor: Predictor, target: Path, parts: Mapping[str, Part], workers: int
) -> tuple[list[str], list[str], list[Note]]:
    """Writes this process's share in `target`. Returns faults of unreadable images and of written files, and notes."""
    unreadable: list[str] = []
    wrong: list[str] = []
    notes: list[Note] = []
    mine = range(jax.process_index(), len(images), jax.process_count())

    def readable(samples: Iterable[dict]) -> Iterator[dict]:
        for sample in samples:
            if "fault" in sample:
                unreadable.append(sample["fault"])
                continue
            if sample.get("note"):
                notes.append((sample["note"], sample["file"]))
            yield sample

    def write(sample: dict, prediction: Prediction) -> None:
        for name, (suffix, write_part, check) in parts.items():
            file = target / name / f"{sample['name']}.{suffix}"
            write_part(file, prediction)
            try:
                check(file, prediction.label_map.shape)
            except (OSError, ValueError) as error:
                wrong.append(str(error))

    with pipeline.samples(images, mine, workers=workers) as samples, ThreadPoolExecutor() as threads:
        bar = tqdm(samples, "predicting", len(mine), unit=" images", mininterval=1)
        for batch in predictor.over(readable(bar)):
            list(threads.map(write, *zip(*batch, strict=True)))
    return unreadable, wrong, notes


def _parts(config: ConfigDict, task: Task, classes: Labels) -> dict[str, Part]:
    """The folders of a prediction, by name."""
    train_ids = config.predict.get("ids") == "train_ids"
    ids = np.arange(256, dtype=np.uint8) if train_ids else classes.label_ids()  # train id -> id in the files
    form = config.predict.get("form", "png")
    check = partial(check_label_map, allowed=set(ids[: len(classes.names)].tolist()))
    parts: dict[str, Part] = {
        "label_maps": ("png", lambda file, x: write_picture(file, ids[x.label_map]), check),
        "offsets": (form, lambda file, x: write_offsets(file, x.offsets), read_offsets),
        "overlays": ("jpg", lambda file, x: write_picture(file, x.overlay()), lambda *_: None),  # for people
    }
    return {name: parts[name] for name in (*task.predicts(), "overlays")}


def check_label_map(file: Path, size: tuple[int, ...], allowed: set[int]) -> None:
    """Reads a label map again. Raises ValueError unless it has one 8-bit channel, the image's size and known ids;
    OSError: the file system refuses."""
    with named(file):
        label = decode_label(file.read_bytes())
        if label.shape != size:
            raise ValueError(f"{list(label.shape)}, expected {list(size)}")
        if unknown := set(np.unique(label).tolist()) - allowed:
            raise ValueError(f"holds ids {sorted(unknown)}")
