"""Label maps and coloured overlays of images without labels: a folder's, or a test split's for its server."""

import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax import parallel, visualize, workdir
from ovenet_jax.checkpoint import Network, restore_network
from ovenet_jax.data import labels, pipeline
from ovenet_jax.data.image_folder import ImageFolder
from ovenet_jax.data.labels import Labels
from ovenet_jax.errors import UserError, listed
from ovenet_jax.inference import Inference, class_maps


def predict(config: ConfigDict, folder: Path, source: Path | None) -> bool:
    """Writes `folder`/predictions/<name>: label_maps/<image>.png, overlays/<image>.jpg and legend.png.

    Of all images under the folder `source`, or of config.data.test_split, whose label maps are what its test server
    takes: 8-bit PNGs named like the images, in the ids of config.predict.ids. Images are read as they are, without
    the resizing of validation images that config.eval.short_side asks for. The folder appears when all is written and
    checked.

    Returns whether every image could be read; the others are named and skipped.

    Raises:
      UserError: no images, predictions that exist already, no checkpoint, or one of another model; what no test can
        have, and what cannot be written.
    """
    with parallel.all_or_none():
        workdir.note_differences(folder, config)
        if source is None:
            pipeline.prepare(config.data)
            images, name = pipeline.open_split(config.data, config.data.test_split), config.data.test_split
        else:
            images, name = ImageFolder(source), source.resolve().name
    classes = _classes(config, any_count=source is not None)
    ids = _ids_to_write(classes, config.predict.ids)
    network = restore_network(config.model, folder, config.eval.checkpoint)
    inference = Inference.from_config(config, network.graphdef, classes, answer_only=True)
    target = folder / "predictions" / name
    if any(parallel.gather(target.exists())):
        raise UserError(
            f"{target} exists already and is not overwritten; move it away, or choose another --workdir."
        )

    if jax.process_index() == 0:
        what = f"{len(images)} images of {name} with step {network.step} of {folder}"
        print(f"Predicting {what}, {inference.protocol}.")
    writing = target.with_name(f".{name}.incomplete")
    with workdir.writing(target):
        unreadable, wrong = _write_all(images, inference, network, classes, ids, writing, config.data.workers)
        unreadable, wrong = (sum(parallel.gather(faults), []) for faults in (unreadable, wrong))
        if wrong:
            raise UserError(
                f"{len(wrong)} label maps are not as they should be: {wrong[0]}; is the disk full?"
            )
        if jax.process_index() == 0:
            visualize.write_picture(writing / "legend.png", visualize.legend(classes))
            writing.rename(target)
    if jax.process_index() == 0:
        print(f"Written and checked: {len(images) - len(unreadable)} label maps and overlays in {target}")
        if unreadable:
            print(
                f"Left out: {len(unreadable)} of {len(images)} images, which cannot be read:{listed(unreadable)}"
            )
    return not unreadable


def _write_all(
    images: pipeline.Source | ImageFolder,
    inference: Inference,
    network: Network,
    classes: Labels,
    ids: np.ndarray,
    folder: Path,
    workers: int,
) -> tuple[list[str], list[str]]:
    """This process's share of the images; returns what is wrong with images, and with label maps read again."""
    if jax.process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of a prediction that did not come to its end
    parallel.gather("ready")
    arrays = parallel.to_local(inference.mesh, (network.params, network.statistics))
    write = partial(_write, classes=classes, ids=ids, folder=folder)
    unreadable: list[str] = []
    mine = range(jax.process_index(), len(images), jax.process_count())
    written = []
    with pipeline.samples(images, mine, workers=workers) as samples, ThreadPoolExecutor() as threads:
        bar = tqdm(samples, "predicting", len(mine), unit=" images", mininterval=1)
        for batch in inference.in_batches(_readable(bar, unreadable), lambda sample: sample["image"]):
            scores = inference(*arrays, [sample["image"] for sample in batch]).scores
            (maps,) = jax.device_get(class_maps(scores)).values()
            written += threads.map(write, batch, maps)
        allowed = set(ids[: len(classes.names)].tolist())
        faults = list(threads.map(lambda item: _fault_of(*item, allowed), written))
    return unreadable, [fault for fault in faults if fault]


def _classes(config: ConfigDict, any_count: bool) -> Labels:
    """The class table of the data set, or one that only counts where the model has another number of classes."""
    classes = pipeline.classes(config.data)
    count = config.model.num_classes
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


def _write(
    sample: dict, class_map: np.ndarray, *, classes: Labels, ids: np.ndarray, folder: Path
) -> tuple[Path, tuple[int, int]]:
    """One label map and its overlay; returns the label map's file and size."""
    height, width = sample["image"].shape[:2]
    class_map = class_map[:height, :width]
    file = folder / "label_maps" / f"{sample['name']}.png"
    overlay = visualize.overlay(sample["image"], class_map, classes)
    visualize.write_picture(file, ids[class_map])
    visualize.write_picture(folder / "overlays" / f"{sample['name']}.jpg", overlay)
    return file, (height, width)


def _fault_of(file: Path, size: tuple[int, int], allowed: set[int]) -> str | None:
    """Reads a label map again: it must have one 8-bit channel, the image's size and known ids."""
    label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if label is None:
        return f"{file} cannot be read"
    if label.dtype != np.uint8 or label.shape != size:
        return f"{file} is {label.dtype} {list(label.shape)}, expected uint8 {list(size)}"
    unknown = set(np.unique(label).tolist()) - allowed
    return f"{file} holds ids {sorted(unknown)}" if unknown else None
