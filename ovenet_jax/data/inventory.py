"""What a prepared data set holds, as a careful person looks at it before training: counted, as JSON, and as text."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ovenet_jax.data.labels import Labels
from ovenet_jax.files import Form
from ovenet_jax.tables import aligned, percent

# Of an inventory as JSON; labelled splits also have `pixels` of each class and `ignored_pixels`, and all but those
# of commit 27140ce a `digest` of their files' content.
FORM: Form = {
    "name": str,
    "splits": {str: {"images": int, "sizes": {"smallest": [int], "largest": [int], "distinct": int}}},
    "notes": [{"note": str, "files": int, "first": str}],
}


class Inventory:
    """Counts the samples of a data set while they are prepared.

    official: how many samples each split has where it is published.
    """

    def __init__(self, name: str, labels: Labels, official: Mapping[str, int]):
        self._name, self._labels, self._official = name, labels, official
        self._sizes: dict[str, Counter[tuple[int, int]]] = {}
        self._pixels: dict[str, np.ndarray] = {}
        self._notes: dict[str, list[str]] = {}
        self._digests: dict[str, list[str]] = {}

    def add(self, split: str, size: tuple[int, int], pixels: np.ndarray | None, digest: str) -> None:
        """A sample of (H, W), how many pixels have each label id, [256], if the split has labels, and a digest of what
        its files hold."""
        self._digests.setdefault(split, []).append(digest)
        self._sizes.setdefault(split, Counter())[size] += 1
        if pixels is not None:
            self._pixels[split] = self._pixels.get(split, 0) + pixels

    def note(self, note: str, file: str) -> None:
        """Something to be said about a file."""
        self._notes.setdefault(note, []).append(file)

    def as_json(self) -> dict:
        return {
            "name": self._name,
            "classes": self._labels.names,
            "splits": {split: self._split(split) for split in self._sizes},
            "notes": [
                {"note": note, "files": len(files), "first": files[0]} for note, files in self._notes.items()
            ],
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
        return found


def digest_of(samples: Iterable[str]) -> str:
    """Of a split, from those of its samples in their order."""
    return hashlib.sha256("".join(samples).encode()).hexdigest()


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
        for train_id, name in enumerate(inventory["classes"]):
            rows.append([name])
            for found in labelled.values():
                pixels = found["pixels"]
                rows[-1] += [pixels[train_id], percent(pixels[train_id] / max(sum(pixels), 1))]
        rows.append(["ignored, of all pixels"])
        for found in labelled.values():
            ignored = found["ignored_pixels"]
            rows[-1] += [ignored, percent(ignored / max(ignored + sum(found["pixels"]), 1))]
        parts.append(aligned(rows))
    odd = {
        split: found for split, found in splits.items() if found["official"] not in (None, found["images"])
    }
    parts += [
        f"{split}: {found['images']} images, officially {found['official']}" for split, found in odd.items()
    ]
    parts += [f"{n['files']} {n['note']}; the first: {n['first']}" for n in inventory["notes"]]
    return "\n\n".join(parts)
