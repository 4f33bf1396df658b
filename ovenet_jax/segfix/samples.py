"""SegFix's ground truth of a prepared data set: written once, and read as the labels of its samples."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovenet_jax import errors, files, tables
from ovenet_jax.data import encodings, prepare
from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.segfix import command, ground_truth, label_maps
from ovenet_jax.segfix.files import named, read_ground_truth, write_ground_truth
from ovenet_jax.segfix.ground_truth import GroundTruth
from ovenet_jax.segfix.labels import training_label


def prepare_samples(samples: Sequence[prepare.Sample], classes: Labels, regions: str, out: Path, *how: Any) -> None:
    """Writes the ground truth of a prepared data set's labelled samples to out/<name>.png, unless `out` exists; other
    processes wait meanwhile. regions: what has boundaries, one of REGIONS. how: metric and filter_size of
    ground_truth.py. Raises UserError: naming all instance maps that are missing and all damaged files; or `out` cannot
    be written."""

    def make() -> None:
        def write(sample: prepare.Sample) -> None:
            with named(Path(str(sample.label))):
                truth = REGIONS[regions](sample, classes, *how)
            with files.writing(out, "--config.data.prepared"):
                write_ground_truth(folder / f"{sample.name}.png", truth)

        with files.new_folder(out, "--config.data.prepared") as folder:
            faults: list[str] = []
            list(command.each(write, samples, command.CORES, f"boundaries of {regions}", faults))
            if faults:
                fault = f"no boundaries of {regions} in {len(faults)} of {tables.number_of(len(samples), 'label')}"
                helps = "mend these files, or choose another --config.data.regions"
                raise errors.UserError(f"{fault}; {helps}:{errors.listed(faults)}")

    prepare.once(out, out.parent, out.name, make)


def _of_classes(sample: prepare.Sample, classes: Labels, *how: Any) -> GroundTruth:
    ids_of = partial(encodings.read_ids, encoding=sample.encoding, labels=classes)
    ids = prepare.aligned_label(sample, ids_of, classes).array
    return ground_truth.of_classes(cv2.LUT(ids, classes.train_ids()), *how)


def _of_instances(sample: prepare.Sample, classes: Labels, *how: Any) -> GroundTruth:
    """Cityscapes' instance maps lie beside the label maps."""
    path = Path(str(sample.label))
    beside = path.with_name(path.name.replace("TrainIds", "Ids").replace("labelIds", "instanceIds"))
    if beside == path or not beside.exists():
        raise ValueError("there is no instance map beside it, as Cityscapes has them")
    ids = prepare.aligned_label(sample._replace(label=beside), label_maps.read_instances, classes).array
    return ground_truth.of_instances(ids, sum(classes.ids, ()), *how)


REGIONS = {"classes": _of_classes, "instances": _of_instances}


def boundary_label(sample: dict, truth: Path, classes: Labels, directions: int, near: int) -> np.ndarray:
    """The label of a sample in `classes`, those of labels.py for training or for testing, by its ground truth in the
    folder `truth`; IGNORE where its own label is. directions, near: see labels.py. Raises UserError: damaged ground
    truth; OSError: a fault of the system."""
    try:
        found = read_ground_truth(file := truth / f"{sample['name']}.png")
        if found.distance.shape != sample["label"].shape:
            raise ValueError(f"{file} has another size than the image")
    except (OSError, ValueError) as error:
        if errors.cause_of(error):
            raise
        raise errors.UserError(f"{error}; delete {truth}, and all in it is made anew.") from error
    return cv2.LUT(training_label(found, sample["label"] == IGNORE, directions, near), classes.train_ids())
