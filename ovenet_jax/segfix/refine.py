"""Refines label maps of any tool: python -m ovenet_jax.segfix.refine --labels=DIR --offsets=DIR --out=DIR ...

Every label map is read where the offsets of the file of the same name point to: SegFix's, also the .mat files of its
published archives, or OVeNet's seeds where they are sure. With --instances the folder holds instance predictions as
Cityscapes takes them. With --truth, scores before and after are printed. What cannot be refined, or scored, is named
and left out.

Without --dataset, labels are numbers, of which 255 is no class. Between pixels (with a --scale that is not whole) they
are averaged and rounded, as published: labels of other classes may come out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ovenet_jax import files
from ovenet_jax.data.image_files import write_picture
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.errors import UserError
from ovenet_jax.segfix import command, instances
from ovenet_jax.segfix.files import OFFSET_SUFFIXES, read_offsets
from ovenet_jax.segfix.label_maps import (
    LABEL_IDS,
    Meaning,
    files_by_name,
    meaning_of,
    partners,
    read_instance_ids,
)
from ovenet_jax.segfix.scores import Scores, scores_of, table
from ovenet_jax.segfix.shift import SURE, Shift, refined_mask, refined_numbers, seeds_where_sure, shift_by
from ovenet_jax.tables import percent

SEMANTIC_SCALE, INSTANCE_SCALE = 2.0, 1.0  # published


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.parser("ovenet_jax.segfix.refine", __doc__)
    parser.add_argument("--offsets", type=command.folder, required=True, help="folder of offset files")
    parser.add_argument(
        "--instances", action="store_true", help="the labels are lists and masks of instances"
    )
    parser.add_argument(
        "--scale", type=command.number(-100, 100), help="of boundary offsets (default: 2, with --instances 1)"
    )
    parser.add_argument(
        "--threshold",
        type=command.number(0, 1),
        default=SURE,
        help=f"of the confidence of seeds (default: {SURE})",
    )
    parser.add_argument(
        "--outer_edges",
        action="store_true",
        help="mix labels as the published scripts do on PyTorch since 1.3, which is not what they mean",
    )
    parser.add_argument(
        "--truth", type=command.folder, help="folder of true labels, of label ids or instances"
    )

    def refine_given() -> list[str]:
        given = parser.parse_args(arguments)
        if given.scale is None:
            given.scale = INSTANCE_SCALE if given.instances else SEMANTIC_SCALE
        refine = refine_instances if given.instances else refine_label_maps
        return refine(
            given.labels,
            given.offsets,
            given.out,
            meaning_of(given.dataset, given.ids),
            Reading(given.scale, given.threshold, align_corners=not given.outer_edges),
            truth=given.truth,
            workers=given.workers,
        )

    return command.run(refine_given)


class Reading(NamedTuple):
    """How offsets are taken: the scale of those of boundaries; above which confidence seeds are; see shift.py."""

    scale: float
    threshold: float
    align_corners: bool

    def shift_of(self, file: Path, size: tuple[int, int]) -> Shift:
        """What the offsets of a file do to maps of `size` (H, W).

        Raises:
          ValueError: it holds no offsets, or of another size.
          OSError: it cannot be read.
        """
        offset, confidence = read_offsets(file, size)
        if confidence is None:
            return shift_by(offset, self.scale, self.align_corners)
        return shift_by(
            seeds_where_sure(offset, confidence, self.threshold), align_corners=self.align_corners
        )


def check_size(file: Path, found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raises ValueError where what `file` holds is of another size (H, W) than expected."""
    if found != expected:
        (height, width), (expected_height, expected_width) = found, expected
        raise ValueError(f"{file}: for {width}x{height} pixels, expected {expected_width}x{expected_height}")


class _Outcome(NamedTuple):
    """Of a file: whether it is written, what is wrong, and what is to be scored."""

    written: bool
    fault: str | None = None
    scored: Scores | Path | None = None


def _unscored(error: Exception) -> _Outcome:
    return _Outcome(True, f"{error}; refined, but not scored")


# ---- label maps ----


def refine_label_maps(
    labels: Path,
    offsets: Path,
    out: Path,
    meaning: Meaning,
    reading: Reading,
    *,
    truth: Path | None = None,
    workers: int = 1,
) -> list[str]:
    """Writes all label maps under `labels`, refined, into the new folder `out`; with `truth` prints scores.

    Returns:
      one sentence for each label map that is left out, or not scored.

    Raises:
      UserError: no label maps or offsets, `out` exists or cannot be written, or truth without a class table.
    """
    names = meaning.classes.names if meaning.classes else ()
    if truth and not names:
        raise UserError("--truth needs to know the classes; name the data set by --dataset.")
    end = meaning.ends[1]
    label_of = files_by_name(labels, (".png",), meaning.ends, only=end)
    offset_of = partners(label_of, files_by_name(offsets, OFFSET_SUFFIXES, meaning.ends), "offset file")
    if truth:
        true_of = partners(label_of, files_by_name(truth, (".png",), meaning.ends, only=end), "true label")
    ids, numbers, in_label_ids = meaning.from_numbers(), meaning.to_numbers(), meaning._replace(ids=LABEL_IDS)

    def refine(item: tuple[str, Path]) -> _Outcome:
        name, file = item
        try:
            label = meaning.read(file)
            shift = reading.shift_of(offset_of(name), label.shape)
        except (OSError, ValueError) as error:
            return _Outcome(False, str(error))
        refined = cv2.LUT(refined_numbers(label, shift), ids)
        write_picture(folder / file.relative_to(labels), refined)
        if not truth:
            return _Outcome(True)
        try:
            true_file = true_of(name)
            true = in_label_ids.read(true_file)
            check_size(true_file, true.shape, label.shape)
        except (OSError, ValueError) as error:
            return _unscored(error)
        scores = scores_of(true, label, cv2.LUT(refined, numbers), len(names))
        return _Outcome(True, scored=scores)

    written, faults, total = 0, [], None
    with files.new_folder(out, "--out") as folder:
        for outcome in command.each(refine, list(label_of.items()), workers, "refining"):
            written += outcome.written
            faults += [outcome.fault] if outcome.fault else []
            if outcome.scored:
                total = total + outcome.scored if total else outcome.scored
    print(f"Written: {written} of {len(label_of)} label maps in {out}")
    if total:
        print(table(total, names))
    return faults


# ---- instances ----


def refine_instances(
    labels: Path,
    offsets: Path,
    out: Path,
    meaning: Meaning,
    reading: Reading,
    *,
    truth: Path | None = None,
    workers: int = 1,
) -> list[str]:
    """Writes all instance lists under `labels` with their masks, refined, into the new folder `out`; with `truth`
    prints average precision.

    Returns:
      one sentence for each list that is left out, or not scored.

    Raises:
      UserError: no lists or offsets, `out` exists or cannot be written, or truth of other classes than Cityscapes', or
        without Cityscapes' evaluation.
    """
    if truth and meaning.classes is not CITYSCAPES:
        raise UserError("--truth of instances needs Cityscapes' classes; name them by --dataset=cityscapes.")
    ends = (instances.LIST_END, *meaning.ends)
    end = meaning.ends[2]
    list_of = files_by_name(labels, (".txt",), ends, only=instances.LIST_END)
    offset_of = partners(list_of, files_by_name(offsets, OFFSET_SUFFIXES, ends), "offset file")
    if truth:
        true_of = partners(list_of, files_by_name(truth, (".png",), ends, only=end), "true instance map")
        instances.official_evaluation()  # or it is said at once that there is none

    def refine(item: tuple[str, Path]) -> _Outcome:
        name, file = item
        try:
            label_ids = instances.read_list(file)
            masks = {path: instances.read_mask(file.parent / path) for path in label_ids}
            size = next((mask.shape for mask in masks.values()), None)
            if size:
                for path, mask in masks.items():
                    check_size(file.parent / path, mask.shape, size)
                shift = reading.shift_of(offset_of(name), size)
                masks = {path: refined_mask(mask, shift) for path, mask in masks.items()}
        except (OSError, ValueError) as error:
            return _Outcome(False, str(error))
        instances.write_instances(file, masks, folder / file.parent.relative_to(labels))
        if not truth:
            return _Outcome(True)
        try:
            true_file = true_of(name)
            true = read_instance_ids(true_file)
            check_size(true_file, true.shape, size or true.shape)
            ids = np.unique(true)
            instances.check_ids(true_file, np.where(ids < 1000, ids, ids // 1000).tolist())
            instances.check_ids(file, label_ids.values())
        except (OSError, ValueError) as error:
            return _unscored(error)
        return _Outcome(True, scored=true_file)

    with files.new_folder(out, "--out") as folder:
        outcomes = list(command.each(refine, list(list_of.items()), workers, "refining"))
    print(f"Written: {sum(outcome.written for outcome in outcomes)} of {len(list_of)} lists in {out}")
    scored = {file: o.scored for file, o in zip(list_of.values(), outcomes, strict=True) if o.scored}
    if scored:
        for title, root in (("before", labels), ("after", out)):
            lists = [root / file.relative_to(labels) for file in scored]
            precision, at_half = instances.average_precision(lists, list(scored.values()), root)
            print(f"AP {title}: {percent(precision)} %, at 50 % overlap {percent(at_half)} %")
    return [outcome.fault for outcome in outcomes if outcome.fault]


if __name__ == "__main__":
    sys.exit(main())
