"""Statistics of a prepared data set, to check before training: as JSON and as text."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.data.walk import Note, counted, said
from ovenet_jax.errors import UserError
from ovenet_jax.files import Form
from ovenet_jax.tables import aligned, percent

NOTES: Form = [{"note": str, "files": int, "first": str}]
SPLIT: dict[str, Form] = {
    "images": int,
    "official": object,
    "sizes": {"smallest": [int], "largest": [int], "distinct": int},
}


def form_of(splits: Iterable[str], unlabelled: Collection[str]) -> Form:
    """The form of an inventory of these splits as JSON. All but those of commit 27140ce have a `digest` of each."""
    labelled = {**SPLIT, "pixels": [int], "ignored_pixels": int}
    of_split = {split: SPLIT if split in unlabelled else labelled for split in splits}
    return {"name": str, "splits": of_split, "notes": NOTES}


class Inventory:
    """Counts the samples of a data set while they are prepared.

    official: number of samples per split as published.
    """

    def __init__(self, name: str, labels: Labels, official: Mapping[str, int]):
        self._name, self._labels, self._official = name, labels, official
        self._sizes: dict[str, Counter[tuple[int, int]]] = {}
        self._pixels: dict[str, np.ndarray] = {}
        self._notes: list[Note] = []
        self._digests: dict[str, list[str]] = {}

    def add(self, split: str, size: tuple[int, int], pixels: np.ndarray | None, digest: str) -> None:
        """Adds a sample: its size (H, W), pixels per label id, [256], None without label, and a digest of its files."""
        self._digests.setdefault(split, []).append(digest)
        self._sizes.setdefault(split, Counter())[size] += 1
        if pixels is not None:
            self._pixels[split] = self._pixels.get(split, 0) + pixels

    def note(self, note: str, file: str) -> None:
        """Adds a note about a file."""
        self._notes.append((note, file))

    def as_json(self) -> dict:
        return {
            "name": self._name,
            "classes": self._labels.names,
            "splits": {split: self._split(split) for split in self._sizes},
            "notes": counted(self._notes),
        }

    def _split(self, split: str) -> dict:
        sizes = self._sizes[split]
        by_area = sorted(sizes, key=np.prod)
        found: dict[str, Any] = {
            "images": sizes.total(),
            "official": self._official.get(split),
            "sizes": {"smallest": by_area[0], "largest": by_area[-1], "distinct": len(sizes)},
            "digest": digest_of(self._digests[split]),
        }
        if split in self._pixels:
            pixels = self._pixels[split]
            of_class = [int(pixels[list(ids)].sum()) for ids in self._labels.ids]
            found["pixels"] = of_class
            found["ignored_pixels"] = int(pixels.sum()) - sum(of_class)
            found["odd"] = self._odd(np.flatnonzero(pixels), of_class, found["ignored_pixels"])
        return found

    def _odd(self, ids: np.ndarray, pixels: Sequence[int], ignored: int) -> list[str]:
        """Warnings about labels, in which these ids occur, that are probably wrong."""
        found, count = [], len(self._labels.names)
        absent = [name for name, of_class in zip(self._labels.names, pixels, strict=True) if not of_class]
        if len(absent) == count:
            found.append("nothing is labelled")
        elif absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            found.append(f"{len(absent)} of {count} classes never occur: {', '.join(absent[:5])}{more}")
        if ignored > sum(pixels):
            share = percent(ignored / (ignored + sum(pixels)))
            found.append(f"{share} % of the pixels belong to no class")
        train_ids = {*range(count), IGNORE}
        if len(ids) > 1 and train_ids >= set(ids.tolist()) and not train_ids >= set(sum(self._labels.ids, ())):
            found.append(f"its labels look like train ids (0 to {count - 1} and {IGNORE}), not the class table's ids")
        return found


def digest_of(parts: Iterable[str]) -> str:
    """A hash of digests in their order, as of the samples of a split."""
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
    parts = [f"{inventory['name']} is prepared in {inventory['folder']}", aligned(rows)]

    labelled = {split: found for split, found in splits.items() if "pixels" in found}
    if labelled:
        rows = [["class", *(title for split in labelled for title in (f"{split}: pixels", "%"))]]
        for train_id, name in enumerate([*inventory["classes"], "ignored, of all pixels"]):
            rows.append([name])
            for found in labelled.values():
                counts = [*found["pixels"], found["ignored_pixels"]]
                of_all = sum(counts) if train_id == len(found["pixels"]) else sum(found["pixels"])
                rows[-1] += [counts[train_id], percent(counts[train_id] / of_all if of_all else None)]
        parts.append(aligned(rows))
    parts += [
        f"{split}: {found['images']} images, officially {found['official']}"
        for split, found in splits.items()
        if found["official"] not in (None, found["images"])
    ]
    parts += [f"{split}: {odd}" for split, found in splits.items() for odd in found.get("odd", ())]
    return "\n\n".join([*parts, *said(inventory["notes"])])


def check_training(inventory: dict, split: str) -> None:
    """Raises UserError where fewer than two classes occur in a split ("train", "train[:90%]+val"): nothing can be
    learned there."""
    splits = inventory["splits"]
    counts = [splits[n]["pixels"] for n in re.findall(r"[a-z]\w*", split) if "pixels" in splits.get(n, {})]
    occurring = [inventory["classes"][k] for k in np.flatnonzero(np.sum(counts, axis=0))]
    if counts and len(occurring) < 2:
        found = f"only {occurring[0]} occurs" if occurring else "nothing is labelled"
        raise UserError(
            f"In split {split!r} of {inventory['name']} {found}; training needs at least two classes whose ids are in "
            f"the class table: see --mode=prepare."
        )
