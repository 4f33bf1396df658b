"""Anyone's own data set: a folder of images and labels, and a file that says what the label ids mean.

images/**      .jpg or .png, in any subfolders
labels/**      PNGs of the same names in the same subfolders: one channel of label ids, or palette indices
classes.yaml   classes: [{name: road, color: [128, 64, 128], ids: [7, 8]}, ...]
               ignored: [0, 255]              label ids that belong to no class; may be left out, as the next line
               flip: [[left arm, right arm]]  classes that are swapped when an image is mirrored

Splits are the subfolders images/train, images/val and images/test, or train/image and train/label, val/image etc., or
the list files train.lst, val.lst and test.lst beside classes.yaml (see lists.py). Without any of these, all samples are
in the split train, of which config.data selects parts: train_split="train[:90%]", eval_split="train[90%:]". The split
test may have no labels.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from ovenet_jax.data import labels
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
        content = yaml.load(text, _PlainLoader)
    except Exception as error:  # whatever odd numbers and dates make the library raise
        raise UserError(f"{file}: no YAML ({_shortened(error)}).") from error
    try:
        return labels.described(content)
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
