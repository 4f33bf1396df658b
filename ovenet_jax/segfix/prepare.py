"""SegFix's ground truth of a folder of label maps: python -m ovenet_jax.segfix.prepare --labels=DIR --out=DIR ...

Writes a file per label map, of the same name in the same subfolder, in our form or, with --mat, in the published one.
With --instances the folder holds instance maps as Cityscapes has them. A label map that is not sound is named and left
out. Without --dataset, labels are train ids, of which 255 is no class.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ovenet_jax import files
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.segfix import command, ground_truth
from ovenet_jax.segfix.files import write_ground_truth
from ovenet_jax.segfix.ground_truth import METRICS, GroundTruth
from ovenet_jax.segfix.label_maps import Meaning, files_by_name, meaning_of, read_instance_ids


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.parser("ovenet_jax.segfix.prepare", __doc__)
    parser.add_argument("--instances", action="store_true", help="the labels are instance maps")
    parser.add_argument("--metric", choices=METRICS, default="euclidean", help="of distances")
    parser.add_argument("--mat", action="store_true", help="write MATLAB files, as published")

    def prepare_given() -> list[str]:
        given = parser.parse_args(arguments)
        meaning = meaning_of(given.dataset, given.ids)
        return prepare(
            given.labels,
            given.out,
            meaning,
            instances=given.instances,
            metric=given.metric,
            suffix=".mat" if given.mat else ".png",
            workers=given.workers,
        )

    return command.run(prepare_given)


def prepare(
    labels: Path,
    out: Path,
    meaning: Meaning,
    *,
    instances: bool = False,
    metric: str = "euclidean",
    suffix: str = ".png",
    workers: int = 1,
) -> list[str]:
    """Writes the ground truth of all label maps under `labels` into the new folder `out`.

    Returns:
      one sentence for each label map that is left out.

    Raises:
      UserError: no label maps, `out` exists, or it cannot be written.
    """
    maps = files_by_name(labels, (".png",), only=meaning.ends[2 if instances else 1])
    truth_of = partial(_of_instances if instances else _of_classes, meaning=meaning, metric=metric)
    with files.new_folder(out, "--out") as folder:
        write = partial(_write, truth_of=truth_of, folder=folder, suffix=suffix)
        faults = list(command.each(write, list(maps.items()), workers, "ground truth"))
    faults = [fault for fault in faults if fault]
    print(f"Written: the ground truth of {len(maps) - len(faults)} of {len(maps)} label maps in {out}")
    return faults


def _of_classes(path: Path, meaning: Meaning, metric: str) -> GroundTruth:
    return ground_truth.of_classes(meaning.read(path), metric)


def _of_instances(path: Path, meaning: Meaning, metric: str) -> GroundTruth:
    class_ids = sum((meaning.classes or CITYSCAPES).ids, ())
    return ground_truth.of_instances(read_instance_ids(path), class_ids, metric)


def _write(
    item: tuple[str, Path], truth_of: Callable[[Path], GroundTruth], folder: Path, suffix: str
) -> str | None:
    """What is wrong with a label map, if anything is; otherwise its ground truth is written."""
    name, path = item
    try:
        truth = truth_of(path)
    except (OSError, ValueError) as error:
        return str(error)
    write_ground_truth(folder / f"{name}{suffix}", truth)
    return None


if __name__ == "__main__":
    sys.exit(main())
