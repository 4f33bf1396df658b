"""Anyone's own data set: a folder of images and labels, and a file that says what the label ids mean.

images/**      .jpg or .png, in any subfolders
labels/**      PNGs of the same names in the same subfolders: one channel of label ids, or palette indices
classes.yaml   classes: [{name: road, color: [128, 64, 128], ids: [7, 8]}, ...]
               ignored: [0, 255]              label ids that belong to no class; may be left out, as all below
               flip: [[left arm, right arm]]  classes that are swapped when an image is mirrored
               image_end: _img                ends of the file names of images and of labels, which differ
               label_end: _gt
               ignored_colors: [[0, 0, 0]]    labels hold colours, of which these belong to no class
               channels: [red, green, nir]    of images other than RGB, which may also be .tif, or .npy [H, W, C]

Splits are the subfolders images/train, images/val and images/test, or train/image and train/label, val/image etc., or
the list files train.lst, val.lst and test.lst beside classes.yaml (see lists.py), or train.txt, val.txt and test.txt
with a name per line, without ends and suffix. Without any of these, all samples are in the split train, of which
config.data selects parts: train_split="train[:90%]", eval_split="train[90%:]". A subfolder test needs no labels.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from ovenet_jax.data import encodings, labels, lists
from ovenet_jax.data.labels import Labels
from ovenet_jax.data.layouts import OPENSEG, Folders, Layout, Splits, Tree, each
from ovenet_jax.errors import UserError

NAME = "folder"
CLASSES = "classes.yaml"
LONGEST = 2**17  # bytes
LOOK_ALIKES = ("training", "validation", "valid", "dev", "eval", "testing")  # common misnomers of splits


def tree(root: Path, listed: bool = False) -> Tree:
    """The tree of the data set in `root`. listed: whether list files elsewhere choose its samples. Raises UserError: no
    valid classes.yaml in it, or subfolders of images that are not splits."""
    classes, ends = read_classes(root / CLASSES)
    listed = listed or any((root / f"{split}.lst").is_file() for split in lists.SPLITS)
    return Tree(
        name=NAME,
        labels=classes,
        root_is=f"a folder with images/, labels/ and {CLASSES} in it",
        layouts=[Layout(_splits(root, ends, listed))],
        lists=root if listed else None,
        sample_name=lambda image: image.with_suffix("").as_posix().removeprefix("images/"),
    )


def _splits(root: Path, ends: dict[str, Any], listed: bool) -> Splits:
    images, found = root / "images", dict[str, list[Folders]]()
    for parts in ({"images": "images/{split}", "labels": "labels/{split}"}, OPENSEG):
        there = [split for split in lists.SPLITS if (root / parts["images"].format(split=split)).is_dir()]
        found = found or each({" ".join(there): parts | ends})
    beside = sorted(path.name for path in images.glob("[!.]*") if path.name not in lists.SPLITS)
    named = " ".join(split for split in lists.SPLITS if (root / f"{split}.txt").is_file())
    odd = beside if found else [name for name in beside if name in LOOK_ALIKES and not named]
    if odd and not listed:
        helps = f"move all images into its subfolders {', '.join(lists.SPLITS)}"
        raise UserError(f"{images} has {', '.join(odd[:5])}, not a split; {helps}.")
    if "test" in found and not (root / found["test"][0].labels).is_dir():
        found["test"] = [found["test"][0]._replace(labels="")]
    whole = {"images": "images", "labels": "labels", **ends}
    return found or each({named: whole | {"keys": "{split}.txt"}} if named else {"train": whole})


def read_classes(file: Path) -> tuple[Labels, dict[str, Any]]:
    """The classes and the parts of Folders that a classes.yaml describes. Raises UserError: it cannot be read, or does
    not describe classes."""
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
        classes = labels.described(content)
    except ValueError as error:
        raise UserError(f"{file}: {_shortened(error)}.") from error
    image_end, label_end = (str(content.get(key) or "") for key in ("image_end", "label_end"))
    encoding = encodings.LABEL_IDS if classes.ignored_colors is None else "colors"
    return classes, {"image_end": image_end, "label_ends": {f"{label_end}.png": encoding}}


class _PlainLoader(yaml.SafeLoader):
    """YAML without tags and aliases, and no key twice."""

    def get_event(self) -> yaml.Event:
        event = super().get_event()
        if odd := getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise ValueError(f"line {event.start_mark.line + 1}: the tag or anchor {odd!r}, which is not read")
        return event

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, count in keys.items() if count > 1]:
            raise ValueError(f"line {node.start_mark.line + 1}: the key {twice[0]!r} is there twice")
        return node


def _shortened(error: Exception) -> str:
    """The error message, shortened to one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]} ..."
