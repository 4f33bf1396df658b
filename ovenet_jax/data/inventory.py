"""Statistics of a prepared data set, to check before training: as JSON and as text."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ovenet_jax import errors, files, tables
from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.data.walk import Note, counted, said

SPLIT: dict[str, files.Form] = {
    "images": int,
    "official": object,
    "sizes": {"smallest": [int], "largest": [int], "distinct": int},
}


def form_of(splits: Iterable[str], unlabelled: Collection[str], channels: Collection[str]) -> files.Form:
    """The JSON schema of an inventory of these splits. Those written by older versions lack `digest` in each split."""
    measured = {**SPLIT, "moments": [[float]]} if channels else SPLIT
    labelled = {**measured, "pixels": [int], "ignored_pixels": int}
    of_split = {split: measured if split in unlabelled else labelled for split in splits}
    return {"name": str, "splits": of_split, "notes": [{"note": str, "files": int, "first": str}]}


class Counted(NamedTuple):
    """A sample: its size (H, W), pixels per label id, int64 [256], None without label, a digest of its files, and
    `moments` of an image of named channels."""

    size: tuple[int, int]
    pixels: np.ndarray | None
    digest: str
    moments: np.ndarray | None = None


def moments_of(image: np.ndarray) -> np.ndarray:
    """Number, sum and sum of squares of the values of each channel, [H, W, C] -> float64 [3, C]."""
    squares = np.einsum("ijc,ijc->c", image, image, dtype=np.int64, casting="unsafe")
    return np.stack([np.full(len(squares), image[..., 0].size), image.sum((0, 1), np.float64), squares])


def as_json(
    name: str, labels: Labels, official: Mapping[str, int], splits: Mapping[str, Sequence[Counted]], notes: list[Note]
) -> dict:
    """The inventory of a data set's samples by split. official: number of samples per split as published."""
    found = {split: _split(labels, official.get(split), samples) for split, samples in splits.items()}
    content = {"name": name, "classes": labels.names, "splits": found, "notes": counted(notes)}
    return content | ({"channels": labels.channels} if labels.channels else {})


def _split(labels: Labels, official: int | None, samples: Sequence[Counted]) -> dict:
    by_area = sorted(dict.fromkeys(sample.size for sample in samples), key=np.prod)
    found: dict[str, Any] = {
        "images": len(samples),
        "official": official,
        "sizes": {"smallest": by_area[0], "largest": by_area[-1], "distinct": len(by_area)},
        "digest": digest_of(sample.digest for sample in samples),
    }
    if counts := [sample.pixels for sample in samples if sample.pixels is not None]:
        pixels = np.sum(counts, axis=0)
        of_class = [int(pixels[list(ids)].sum()) for ids in labels.ids]
        found["pixels"] = of_class
        found["ignored_pixels"] = int(pixels.sum()) - sum(of_class)
        found["odd"] = _odd(labels, np.flatnonzero(pixels), of_class, found["ignored_pixels"])
    if moments := [sample.moments for sample in samples if sample.moments is not None]:
        found["moments"] = np.sum(moments, axis=0).tolist()
    return found


def _odd(labels: Labels, ids: np.ndarray, pixels: Sequence[int], ignored: int) -> list[str]:
    """Warnings about labels, in which these ids occur, that are probably wrong."""
    found, count = [], len(labels.names)
    absent = [name for name, of_class in zip(labels.names, pixels, strict=True) if not of_class]
    if len(absent) == count:
        found.append("nothing is labelled")
    elif absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        found.append(f"{len(absent)} of {count} classes never occur: {', '.join(absent[:5])}{more}")
    if ignored > sum(pixels):
        share = tables.percent(ignored / (ignored + sum(pixels)))
        found.append(f"{share} % of the pixels belong to no class")
    train_ids = {*range(count), IGNORE}
    if len(ids) > 1 and train_ids >= set(ids.tolist()) and not train_ids >= set(sum(labels.ids, ())):
        found.append(f"its labels look like train ids (0 to {count - 1} and {IGNORE}), not the class table's ids")
    return found


def digest_of(parts: Iterable[str]) -> str:
    """A hash of digests, in their order: of the samples of a split, for example."""
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def as_text(inventory: dict) -> str:
    """An inventory, as `write_records` returns it: tables of the splits and of their classes, then the notes."""
    splits = inventory["splits"]
    rows = [["split", "images", "official", "smallest", "largest", "sizes"]]
    for split, found in splits.items():
        official, sizes = found["official"], found["sizes"]
        smallest, largest = (f"{w}x{h}" for h, w in (sizes["smallest"], sizes["largest"]))
        official = "-" if official is None else official
        rows.append([split, found["images"], official, smallest, largest, sizes["distinct"]])
    parts = [f"{inventory['name']} is prepared in {inventory['folder']}", tables.aligned(rows)]

    if labelled := {split: found for split, found in splits.items() if "pixels" in found}:
        rows = [["class", *(title for split in labelled for title in (f"{split}: pixels", "%"))]]
        for train_id, name in enumerate([*inventory["classes"], "ignored, of all pixels"]):
            rows.append([name])
            for found in labelled.values():
                counts = [*found["pixels"], found["ignored_pixels"]]
                of_all = sum(counts) if train_id == len(found["pixels"]) else sum(found["pixels"])
                rows[-1] += [counts[train_id], tables.percent(counts[train_id] / of_all if of_all else None)]
        parts.append(tables.aligned(rows))
    parts += [
        f"{split}: {tables.number_of(found['images'], 'image')}, officially {found['official']}"
        for split, found in splits.items()
        if found["official"] not in (None, found["images"])
    ]
    parts += [f"{split}: {odd}" for split, found in splits.items() for odd in found.get("odd", ())]
    return "\n\n".join([*parts, *said(inventory["notes"])])


def pixels_of_classes(inventory: dict, split: str) -> dict[str, int]:
    """The pixels of each class, by its name, in a split ("train", "train[:90%]+val"; slices are ignored); {} if
    it has no labels."""
    counts = _of_parts(inventory, split, "pixels")
    return dict(zip(inventory["classes"], np.sum(counts, axis=0).tolist(), strict=True)) if counts else {}


def measured_input(inventory: dict, config: Any) -> dict[str, Any]:
    """config.model.input for images of named channels: their names, and mean and standard deviation of their values in
    config.data.train_split (slices are ignored); {} for other images."""
    if "channels" not in inventory:
        return {}
    count, total, squares = np.sum(_of_parts(inventory, config.data.train_split, "moments"), axis=0)
    mean = total / count
    variance = squares / count - mean**2
    std = np.sqrt(np.where(variance < 1e-4, 1, variance))  # 1 for a channel that is the same everywhere
    means, stds = (tuple((x / config.model.input.divisor).tolist()) for x in (mean, std))
    return {"channels": tuple(inventory["channels"]), "bgr": False, "mean": means, "std": stds}


def _of_parts(inventory: dict, split: str, key: str) -> list:
    splits = {"val": inventory["splits"].get("test", {}), **inventory["splits"]}  # COCO-Stuff without val: trees.py
    return [splits[n][key] for n in re.findall(r"[a-z]\w*", split) if key in splits.get(n, {})]


def check_training(inventory: dict, split: str) -> None:
    """Raises UserError where fewer than two classes occur in a split: nothing can be learned there."""
    counts = pixels_of_classes(inventory, split)
    occurring = [name for name, count in counts.items() if count]
    if counts and len(occurring) < 2:
        found = f"only {occurring[0]} occurs" if occurring else "nothing is labelled"
        needed = "training needs at least two classes whose ids are in the class table: see --mode=prepare"
        raise errors.UserError(f"In split {split!r} of {inventory['name']} {found}; {needed}.")
