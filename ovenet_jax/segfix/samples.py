"""SegFix's ground truth of a prepared data set: written once, and read as the labels of its samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from ovenet_jax import files
from ovenet_jax.data.image_files import read_label
from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.data.pipeline import Source
from ovenet_jax.data.prepare import File, once
from ovenet_jax.errors import UserError, listed
from ovenet_jax.segfix import command, ground_truth
from ovenet_jax.segfix.files import read_ground_truth, write_ground_truth
from ovenet_jax.segfix.ground_truth import GroundTruth
from ovenet_jax.segfix.label_maps import read_instance_ids
from ovenet_jax.segfix.labels import training_label


def prepare_samples(labels: Mapping[str, File], classes: Labels, regions: str, out: Path) -> None:
    """Writes the ground truth of a prepared data set's labels, by their samples' names, to out/<name>.png, unless `out`
    is there already; other processes wait meanwhile. regions: what has boundaries, one of REGIONS.

    Raises:
      UserError: naming all instance maps that are missing and all damaged files; or `out` cannot be written.
    """

    def make() -> None:
        def write(sample: tuple[str, File]) -> str | None:
            """What is wrong with the sample."""
            name, label = sample
            try:
                truth = REGIONS[regions](label, classes)
            except (OSError, ValueError) as error:
                return f"{label}: {error}"
            write_ground_truth(folder / f"{name}.png", truth)
            return None

        with files.new_folder(out, "--config.data.prepared") as folder:
            told = command.each(write, list(labels.items()), command.CORES, f"boundaries of {regions}")
            faults = [fault for fault in told if fault]
            if faults:
                raise UserError(
                    f"{len(faults)} of {len(labels)} labels have no boundaries of {regions}, mend them or choose "
                    f"another --config.data.regions:{listed(faults)}"
                )

    once(out, out.parent, out.name, make)


def _of_label(file: File, classes: Labels) -> GroundTruth:
    return ground_truth.of_classes(cv2.LUT(read_label(file.read_bytes()).array, classes.train_ids()))


def _of_instances_beside(file: File, classes: Labels) -> GroundTruth:
    """Cityscapes' instance maps lie beside the label maps."""
    path = Path(str(file))
    beside = path.with_name(path.name.replace("labelIds", "instanceIds"))
    if beside == path or not beside.exists():
        raise ValueError("there is no instance map beside it, as Cityscapes has them")
    return ground_truth.of_instances(read_instance_ids(beside), sum(classes.ids, ()))


REGIONS = {"classes": _of_label, "instances": _of_instances_beside}


@dataclass(frozen=True, eq=False)
class BoundarySource:
    """A split whose labels are boundaries; to be used like the `source` it is made of. Can be pickled.

    truth: folder of ground truth files. classes: those of segfix/labels.py, for training or for testing.
    """

    source: Source
    truth: Path
    directions: int
    classes: Labels

    @property
    def folder(self) -> Path:
        return self.source.folder

    @property
    def has_labels(self) -> bool:
        return self.source.has_labels

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.source.identity

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def __getitem__(self, index: int) -> dict:
        """The source's sample, its label in `classes`; ignored where the source's is.

        Raises:
          UserError: record or ground truth is damaged.
        """
        sample = self.source[index]
        file = self.truth / f"{sample['name']}.png"
        try:
            truth = read_ground_truth(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{error}; delete {self.truth}, and all in it is made anew.") from error
        label = training_label(truth, sample["label"] == IGNORE, self.directions)
        return sample | {"label": cv2.LUT(label, self.classes.train_ids())}
