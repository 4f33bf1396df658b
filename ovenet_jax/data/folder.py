"""Anyone's own data set: a folder of images and labels, and a file that says what the label ids mean.

images/**      .jpg or .png, in any subfolders
labels/**      PNGs of the same names in the same subfolders: one channel of label ids, or palette indices
classes.yaml   classes: [{name: road, color: [128, 64, 128], ids: [7, 8]}, ...]
               ignored: [0, 255]      label ids that belong to no class; may be left out

Splits are the subfolders images/train, images/val and images/test, or train/image and train/label, val/image etc., or
the list files train.lst, val.lst and test.lst beside classes.yaml (see lists.py). Without any of these, all samples are
in the split train, of which config.data selects parts: train_split="train[:90%]", eval_split="train[90%:]". The split
test may have no labels.
"""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from ovenet_jax.data.labels import Labels
from ovenet_jax.data.lists import SPLITS
from ovenet_jax.data.trees import OPENSEG, Folders, Tree, each
from ovenet_jax.errors import UserError

NAME = "folder"
CLASSES = "classes.yaml"
LONGEST = 2**17  # bytes
LOOK_ALIKES = ("training", "validation", "valid", "dev", "eval", "testing")  # common misnomers of splits


def tree(root: Path) -> Tree:
    """The tree of the data set in `root`.

    Raises:
      UserError: no sound classes.yaml in it.
    """
    listed = any((root / f"{split}.lst").is_file() for split in SPLITS)
    return Tree(
        name=NAME,
        labels=read_classes(root / CLASSES),
        layout=f"a folder with images/, labels/ and {CLASSES} in it",
        splits=_splits(root),
        official={},
        lists=root if listed else None,
        sample_name=lambda image: image.with_suffix("").as_posix().removeprefix("images/"),
    )


def _splits(root: Path) -> dict[str, list[Folders]]:
    images = root / "images"
    found = each([split for split in SPLITS if (images / split).is_dir()], Folders("images/{}", "labels/{}"))
    found = found or {split: pairs for split, pairs in OPENSEG.items() if (root / pairs[0].images).is_dir()}
    beside = sorted(path.name for path in images.glob("[!.]*") if path.name not in SPLITS)
    odd = beside if found else [name for name in beside if name in LOOK_ALIKES]
    if odd:
        raise UserError(
            f"{images} has {', '.join(odd[:5])}, not a split; move all images into its subfolders {', '.join(SPLITS)}."
        )
    if "test" in found and not (root / str(found["test"][0].labels)).is_dir():
        found["test"] = [found["test"][0]._replace(labels=None)]
    return found or {"train": [Folders("images", "labels")]}


def read_classes(file: Path) -> Labels:
    """The classes that a classes.yaml describes.

    Raises:
      UserError: it cannot be read, or does not describe any.
    """
    try:
        text = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); it must say what the classes are.") from error
    try:
        if len(text) > LONGEST:
            raise ValueError(f"{len(text)} bytes; a class table has no more than {LONGEST}")
        described = yaml.load(text, _PlainLoader)
    except Exception as error:  # whatever odd numbers and dates make the library raise
        raise UserError(f"{file}: no YAML ({_shortened(error)}).") from error
    try:
        return _labels(described)
    except ValueError as error:
        raise UserError(f"{file}: {_shortened(error)}.") from error


class _PlainLoader(yaml.SafeLoader):
    """YAML without tags and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        odd = getattr(event, "anchor", None) or getattr(event, "tag", None)
        if odd:
            line = event.start_mark.line + 1
            raise ValueError(f"line {line}: the tag or anchor {odd!r}, which is not read")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise ValueError(f"line {node.start_mark.line + 1}: the key {twice[0]!r} is there twice")
        return node


def _shortened(error: Exception) -> str:
    """The error message, shortened to one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]} ..."


def _labels(described: object) -> Labels:
    described = described if isinstance(described, dict) else {}
    rows = described.get("classes")
    if not isinstance(rows, list) or not rows:
        raise ValueError("expected 'classes:' with a list of classes")
    unknown = described.keys() - {"classes", "ignored"}
    if unknown:
        raise ValueError(f"{unknown.pop()!r} is unknown; known are 'classes' and 'ignored'")
    classes: list[tuple[str, tuple[int, int, int], tuple[int, ...]]] = []
    for row in rows:
        if not isinstance(row, dict) or row.keys() != {"name", "color", "ids"}:
            raise ValueError(f"expected a class with name, color and ids, got {row!r}")
        if not isinstance(row["name"], str):
            raise ValueError(f"name {row['name']!r}: expected a text; put it in quotation marks")
        color = _numbers(row["color"], f"color of {row['name']}")
        if len(color) != 3:
            raise ValueError(f"color of {row['name']}: expected [red, green, blue], got {row['color']}")
        classes.append((row["name"], color, _numbers(row["ids"], f"ids of {row['name']}")))
    names, colors, ids = zip(*classes, strict=True)
    ignored = _numbers(described.get("ignored") or [], "ignored")
    for what, values in (("name", names), ("id", [*itertools.chain(*ids), *ignored])):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise ValueError(f"the {what} {twice[0]} is there twice")
    if any(not of_class for of_class in ids):
        raise ValueError("every class needs an id")
    free = set(range(256)).difference(*ids)
    if not free:
        raise ValueError("at most 255 of the ids 0 to 255 can belong to classes")
    if len(names) == 1:
        raise ValueError(f"{names[0]} is the only class; the background is a class, too: describe both")
    return Labels(names, colors, ids, ignored, void_id=max(free))


def _numbers(values: object, what: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v <= 255 for v in values):
        raise ValueError(f"{what}: expected a list of whole numbers from 0 to 255, got {values!r}")
    return tuple(values)
