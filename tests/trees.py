"""Small made-up trees of Cityscapes, ACDC and ADE20K, named as their downloads unpack."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from tests.camvid_tree import write

CITIES = {"train": ("aachen", "bochum", "ulm"), "val": ("frankfurt", "lindau"), "test": ("berlin",)}
CONDITIONS = ("fog", "night", "rain", "snow")
SIZE = (24, 48)


def write_cityscapes(root: Path) -> ConfigDict:
    """An image per city with all label ids from 0 to 33, and the files that lie beside the labels; config.data."""
    for split, cities in CITIES.items():
        for city in cities:
            stem = f"{split}/{city}/{city}_000000_000019"
            _write(root / f"source/leftImg8bit/{stem}_leftImg8bit.png", image(SIZE))
            labels = root / f"source/gtFine/{stem}_gtFine_labelIds.png"
            _write(labels, np.zeros(SIZE, np.uint8) if split == "test" else ids(SIZE, range(34)))
            _write(Path(str(labels).replace("labelIds", "color")), image(SIZE))
            _write(Path(str(labels).replace("labelIds", "instanceIds")), np.zeros(SIZE, np.uint16))
    return _data("cityscapes", root)


def write_acdc(root: Path) -> ConfigDict:
    """An image of each condition in each split, with all label ids, and one in fair weather; config.data."""
    for i, condition in enumerate(CONDITIONS):
        for split in ("train", "val", "test"):
            stem = f"{condition}/{split}/GOPR0{i}75/GOPR0{i}75_frame_00004{len(split)}"
            _write(root / f"source/rgb_anon/{stem}_rgb_anon.png", image(SIZE))
            _write(
                root / f"source/rgb_anon/{stem}_rgb_ref_anon.png".replace(split, f"{split}_ref"), image(SIZE)
            )
            if split != "test":
                _write(root / f"source/gt/{stem}_gt_labelIds.png", ids(SIZE, range(34)))
                _write(root / f"source/gt/{stem}_gt_labelTrainIds.png", ids(SIZE, range(19)))
    return _data("acdc", root)


def write_ade20k(root: Path, official: bool = True) -> ConfigDict:
    """Three training, two validation and one test image of different sizes, with ids 0 to 150; config.data.

    In the tree of the challenge's release, or else in the `train|val/image|label` tree.
    """
    folders = {
        "train": ("images/training", "annotations/training") if official else ("train/image", "train/label"),
        "val": ("images/validation", "annotations/validation") if official else ("val/image", "val/label"),
        "test": ("release_test/testing", None),
    }
    for split, count in {"train": 3, "val": 2, "test": 1}.items():
        images, labels = folders[split]
        for i in range(1, count + 1):
            size = (20 + i, 31 - 4 * i)
            _write(root / f"source/{images}/ADE_{split}_{i:08d}.jpg", image(size))
            if labels:
                _write(root / f"source/{labels}/ADE_{split}_{i:08d}.png", ids(size, range(151)))
    return _data("ade20k", root)


def image(size: tuple[int, int]) -> np.ndarray:
    """A smooth uint8 RGB picture [H, W, 3]."""
    rows, columns = np.indices(size)
    return np.stack([4 * rows, 3 * columns, rows + columns], -1).astype(np.uint8)


def ids(size: tuple[int, int], values: range) -> np.ndarray:
    """uint8 [H, W] that holds all values."""
    return (np.arange(size[0] * size[1]) % len(values) + values[0]).reshape(size).astype(np.uint8)


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, array)


def _data(name: str, root: Path) -> ConfigDict:
    return ConfigDict({"name": name, "root": str(root / "source"), "prepared": str(root / "prepared")})
