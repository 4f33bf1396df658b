"""Label maps and coloured overlays of images without labels: a folder's, or a test split's for its server."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax import parallel, visualize, workdir
from ovenet_jax.data import labels, pipeline
from ovenet_jax.data.image_folder import ImageFolder
from ovenet_jax.data.labels import Labels
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import restore
from ovenet_jax.inference import Inference, Normalisation, class_maps
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.protocol import Protocol

FAULTS_SHOWN = 20


def predict(config: ConfigDict, folder: Path, source: Path | None) -> bool:
    """Writes `folder`/predictions/<name>: label_maps/<image>.png, overlays/<image>.jpg and legend.png.

    Of all images under the folder `source`, or of config.data.test_split, whose label maps are what its test server
    takes: 8-bit PNGs named like the images, in the ids of config.predict.ids.

    Returns whether every image could be read; the others are named and skipped.

    Raises:
      UserError: no images, predictions that exist already, no checkpoint, or one of another model.
    """
    workdir.note_differences(folder, config)
    if source is None:
        pipeline.prepare(config.data)
        images = pipeline.open_split(config.data, config.data.test_split)
        name = config.data.test_split
    else:
        images = ImageFolder(source)
        name = source.resolve().name
    if not len(images):
        raise UserError(f"Split {name!r} of {config.data.name} holds no images.")
    classes = _classes(config, any_count=source is not None)
    ids = _ids_to_write(classes, config.predict.ids)
    target = _new_folder(folder / "predictions" / name)

    graphdef, params, statistics = parameters.split(create_model(config.model))
    step, params, statistics = restore(folder, config.eval.checkpoint, params, statistics)
    mesh = parallel.create_mesh(jax.local_devices())
    inference = Inference(
        graphdef,
        Protocol.from_config(config.eval),
        align_corners=config.model.align_corners,
        normalisation=Normalisation(),
        mesh=mesh,
        images_per_device=config.eval.images_per_device,
        answer_only=True,
    )
    params, statistics = parallel.to_local(mesh, (params, statistics))
    mine = range(jax.process_index(), len(images), jax.process_count())
    print(f"Predicting {len(images)} images of {name} with step {step} of {folder}.")
    sizes, faults = {}, []
    with (
        pipeline.samples(images, mine, workers=config.data.workers) as samples,
        ThreadPoolExecutor() as threads,
    ):
        bar = tqdm(samples, f"predicting {name}", len(mine), unit=" images", mininterval=1)
        for batch in inference.in_batches(_readable(bar, faults), lambda sample: sample["image"]):
            scores = inference(params, statistics, [sample["image"] for sample in batch]).scores
            (maps,) = jax.device_get(class_maps(scores)).values()
            written = threads.map(
                _write, batch, maps, [classes] * len(batch), [ids] * len(batch), [target] * len(batch)
            )
            sizes |= dict(written)
    _check_label_maps(sizes, allowed=set(ids[: len(classes.names)].tolist()))

    faults = sum(parallel.gather(faults), [])
    if jax.process_index() == 0:
        visualize.write_picture(target / "legend.png", visualize.legend(classes))
        print(f"Written and checked: {len(images) - len(faults)} label maps and overlays in {target}")
        if faults:
            shown = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
            print(f"Left out: {len(faults)} of {len(images)} images, which cannot be read:{shown}")
    return not faults


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


def _new_folder(target: Path) -> Path:
    """`target`, made by this run.

    Raises:
      UserError: it exists.
    """
    exists = target.exists()
    if any(parallel.gather(exists)):  # asked before any process writes
        raise UserError(
            f"{target} exists already and is not overwritten; move it away, or choose another --workdir."
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror}); choose another --workdir."
        ) from error
    return target


def _readable(samples: Iterable[dict], faults: list[str]) -> Iterator[dict]:
    """The samples that hold an image; what is wrong with the others goes to `faults`."""
    for sample in samples:
        if "fault" in sample:
            faults.append(sample["fault"])
        else:
            yield sample


def _write(
    sample: dict, class_map: np.ndarray, classes: Labels, ids: np.ndarray, target: Path
) -> tuple[Path, tuple[int, int]]:
    """One label map and its overlay; returns the label map's file and size."""
    height, width = sample["image"].shape[:2]
    class_map = class_map[:height, :width]
    file = target / "label_maps" / f"{sample['name']}.png"
    overlay = visualize.overlay(sample["image"], class_map, classes)
    visualize.write_picture(file, ids[class_map])
    visualize.write_picture(target / "overlays" / f"{sample['name']}.jpg", overlay)
    return file, (height, width)


def _check_label_maps(sizes: dict[Path, tuple[int, int]], allowed: set[int]) -> None:
    """Reads every label map again: one 8-bit channel, the image's size, known ids."""
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda item: _fault_of(*item, allowed), sizes.items())
        faults = [fault for fault in found if fault]
    if faults:
        raise UserError(
            f"{len(faults)} label maps are not as they should be, the first: {faults[0]}; is the disk full?"
        )


def _fault_of(file: Path, size: tuple[int, int], allowed: set[int]) -> str | None:
    label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if label is None:
        return f"{file} cannot be read"
    if label.dtype != np.uint8 or label.shape != size:
        return f"{file} is {label.dtype} {list(label.shape)}, expected uint8 {list(size)}"
    unknown = set(np.unique(label).tolist()) - allowed
    return f"{file} holds ids {sorted(unknown)}" if unknown else None
