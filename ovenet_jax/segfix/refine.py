"""Refines label maps of any tool: python -m ovenet_jax.segfix.refine --labels=DIR --offsets=DIR --out=DIR ...

Each pixel takes the label that its offset, in the offset file of the same name, points to: SegFix's offsets, also the
.mat files of its published archives, or OVeNet's seeds where their confidence is above --threshold. With --instances
the folder holds instance predictions as Cityscapes takes them. With --truth, scores before and after are printed. Files
that cannot be refined or scored are named and left out.

A pixel whose label does not change keeps its id, also an id of no class. Without --dataset, labels are only numbers;
255 is no class. With a --scale that is not whole, labels are interpolated and rounded, as published: a pixel between
two classes can then get a third one of the map.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ovenet_jax import errors, files, tables
from ovenet_jax.data import encodings, image_files
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.segfix import command, instances
from ovenet_jax.segfix.files import OFFSET_SUFFIXES, read_offsets
from ovenet_jax.segfix.label_maps import files_by_name, meaning_of, partners, read_instance_ids
from ovenet_jax.segfix.scores import Scores, scores_of, summed, table
from ovenet_jax.segfix.shift import INSTANCE_SCALE, SEMANTIC_SCALE, SURE, Shift, refined_ids, refined_mask, shift_of


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.parser("ovenet_jax.segfix.refine", __doc__)
    add = parser.add_argument
    add("--offsets", type=command.folder, required=True, help="folder of offset files")
    add("--instances", action="store_true", help="the labels are lists and masks of instances")
    add("--scale", type=command.number(-100, 100), help="factor of boundary offsets (default: 2, with --instances 1)")
    sure = f"confidence above which seeds count (default: {SURE})"
    add("--threshold", type=command.number(0, 1), default=SURE, help=sure)
    mixed = "sample with align_corners=False, as the published scripts do by accident on PyTorch since 1.3"
    add("--outer_edges", action="store_true", help=mixed)
    add("--truth", type=command.folder, help="folder of true labels, of label ids or instances")
    return command.run(parser, arguments, refine)


def refine(given: Namespace) -> list[str]:
    """Writes what is under --labels, refined, into the new folder --out; with --truth prints scores. Returns a sentence
    for each label map, or list of instances, that is left out or not scored. Raises UserError: no labels or offsets;
    --out exists or cannot be written; --truth without --dataset, or without Cityscapes' evaluation of instances."""
    faults: list[str] = []
    (_refine_instances if given.instances else _refine_label_maps)(given, faults)
    return faults


def _refine_each(
    given: Namespace,
    file_of: Mapping[str, Path],
    what: str,
    write: Callable[..., str],
    score: Callable[[str], Any],
    faults: list[str],
) -> Iterator[Any]:
    """Calls write(name, folder), which returns the name, for each of `file_of`; with --truth it then yields score(name)
    of what is written. Adds to `faults`."""
    names = list(file_of)
    with files.new_folder(given.out, "--out") as folder:
        written = list(command.each(partial(write, folder=folder), names, given.workers, "refining", faults))
    print(f"Written: {len(written)} of {len(names)} {what} in {given.out}")
    if given.truth:
        yield from command.each(score, written, given.workers, "scoring", faults, "; refined, but not scored")


def _shift(given: Namespace, file: Path, size: tuple[int, int]) -> Shift:
    """What the offsets of a file do to maps of `size` (H, W)."""
    scale = (INSTANCE_SCALE if given.instances else SEMANTIC_SCALE) if given.scale is None else given.scale
    return shift_of(read_offsets(file, size), scale, given.threshold, not given.outer_edges)


def _check_size(file: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raises ValueError where what `file` holds is of another size (H, W) than expected."""
    if found != expected:
        (height, width), (expected_height, expected_width) = found, expected
        raise ValueError(f"{file}: for {width}x{height} pixels, expected {expected_width}x{expected_height}")


def _refine_label_maps(given: Namespace, faults: list[str]) -> None:
    meaning = meaning_of(given.dataset, given.ids)
    names = meaning.classes.names if meaning.classes else ()
    if given.truth and not names:
        raise errors.UserError("--truth needs to know the classes; name the data set by --dataset.")
    ends, end = meaning.ends, meaning.ends[1]
    label_of = files_by_name(given.labels, (".png",), ends, only=end)
    offset_of = partners(label_of, files_by_name(given.offsets, OFFSET_SUFFIXES, ends), "offset file")
    if given.truth:
        true_of = partners(label_of, files_by_name(given.truth, (".png",), ends, only=end), "true label")
    numbers, in_label_ids = meaning.to_numbers(), meaning._replace(ids=encodings.LABEL_IDS)

    def write(name: str, folder: Path) -> str:
        file = label_of[name]
        ids = meaning.read_ids(file)
        refined = refined_ids(ids, numbers, _shift(given, offset_of(name), ids.shape))
        with files.writing(given.out, "--out"):
            image_files.write_picture(folder / file.relative_to(given.labels), refined)
        return name

    def score(name: str) -> Scores:
        file, true_file = label_of[name], true_of(name)
        true, before = in_label_ids.read(true_file), meaning.read(file)
        _check_size(true_file, true.shape, before.shape)
        return scores_of(true, before, meaning.read(given.out / file.relative_to(given.labels)), len(names))

    scores = _refine_each(given, label_of, "label maps", write, score, faults)
    if first := next(scores, None):
        print(table(summed(chain([first], scores)), names))


def _refine_instances(given: Namespace, faults: list[str]) -> None:
    meaning = meaning_of(given.dataset, given.ids)
    if given.truth and meaning.classes is not CITYSCAPES:
        raise errors.UserError("--truth of instances needs Cityscapes' classes; name them by --dataset=cityscapes.")
    ends, end = (instances.LIST_END, *meaning.ends), meaning.ends[2]
    list_of = files_by_name(given.labels, (".txt",), ends, only=instances.LIST_END)
    offset_of = partners(list_of, files_by_name(given.offsets, OFFSET_SUFFIXES, ends), "offset file")
    if given.truth:
        truth = files_by_name(given.truth, (".png",), ends, only=end)
        true_of = partners(list_of, truth, "true instance map")
        instances.official_evaluation()  # fails early where it is not installed

    def write(name: str, folder: Path) -> str:
        file = list_of[name]
        masks = {path: read_instance_ids(file.parent / path) > 0 for path in instances.read_list(file)}
        if size := next((mask.shape for mask in masks.values()), None):
            for path, mask in masks.items():
                _check_size(file.parent / path, mask.shape, size)
            shift = _shift(given, offset_of(name), size)
            masks = {path: refined_mask(mask, shift) for path, mask in masks.items()}
        with files.writing(given.out, "--out"):
            beside = folder / file.parent.relative_to(given.labels)
            for path, mask in masks.items():
                files.write(beside / path, image_files.encoded(255 * mask.astype(np.uint8)))
            files.write(beside / file.name, file.read_bytes())
        return name

    def score(name: str) -> tuple[Path, Path]:
        file, true_file = list_of[name], true_of(name)
        label_ids, true = instances.read_list(file), read_instance_ids(true_file)
        for path in list(label_ids)[:1]:  # all have one size
            _check_size(true_file, true.shape, read_instance_ids(file.parent / path).shape)
        instances.check_ids(true_file, [i if i < 1000 else i // 1000 for i in np.unique(true).tolist()])
        instances.check_ids(file, label_ids.values())
        return file.relative_to(given.labels), true_file

    scored = dict(_refine_each(given, list_of, "lists", write, score, faults))
    for title, root in (("before", given.labels), ("after", given.out)) if scored else ():
        precision, at_half = instances.average_precision(list(scored), list(scored.values()), root)
        print(f"AP {title}: {tables.percent(precision)} %, at 50 % overlap {tables.percent(at_half)} %")


if __name__ == "__main__":
    sys.exit(main())
