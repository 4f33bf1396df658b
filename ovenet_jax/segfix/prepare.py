"""SegFix's ground truth of a folder of label maps: python -m ovenet_jax.segfix.prepare --labels=DIR --out=DIR ...

Writes a file per label map, of the same name in the same subfolder, in our form or, with --mat, in the published one.
With --instances the folder holds instance maps as Cityscapes has them. A label map with a fault is named and left out.
Without --dataset, labels are taken as train ids; 255 is no class.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ovenet_jax import files
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.segfix import command, ground_truth, label_maps
from ovenet_jax.segfix.files import write_ground_truth


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.parser("ovenet_jax.segfix.prepare", __doc__)
    parser.add_argument("--instances", action="store_true", help="the labels are instance maps")
    parser.add_argument("--metric", choices=ground_truth.METRICS, default="euclidean", help="metric of distances")
    sizes = ground_truth.FILTER_SIZES
    parser.add_argument("--filter_size", type=int, choices=sizes, default=5, help="size of the direction filters")
    parser.add_argument("--mat", action="store_true", help="write MATLAB files, as published")
    return command.run(parser, arguments, prepare)


def prepare(given: Namespace) -> list[str]:
    """Writes the ground truth of all label maps; returns one sentence for each that is left out. Raises UserError: no
    label maps, or --out exists or cannot be written."""
    meaning = label_maps.meaning_of(given.dataset, given.ids)
    maps = label_maps.files_by_name(given.labels, (".png",), only=meaning.ends[2 if given.instances else 1])
    class_ids = sum((meaning.classes or CITYSCAPES).ids, ())

    def write(item: tuple[str, Path]) -> None:
        name, path = item
        how = given.metric, given.filter_size
        if given.instances:
            truth = ground_truth.of_instances(label_maps.read_instance_ids(path), class_ids, *how)
        else:
            truth = ground_truth.of_classes(meaning.read(path), *how)
        with files.writing(given.out, "--out"):
            write_ground_truth(folder / f"{name}{'.mat' if given.mat else '.png'}", truth)

    faults: list[str] = []
    with files.new_folder(given.out, "--out") as folder:
        list(command.each(write, list(maps.items()), given.workers, "ground truth", faults))
    print(f"Written: the ground truth of {len(maps) - len(faults)} of {len(maps)} label maps in {given.out}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
