"""Small made-up trees of all data sets but CamVid, named as their downloads unpack."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from tests.camvid_tree import config_data, write

CITIES = {"train": ("aachen", "bochum", "ulm"), "val": ("frankfurt", "lindau"), "test": ("berlin",)}
CONDITIONS = ("fog", "night", "rain", "snow")
SIZE = (24, 48)


def write_cityscapes(root: Path) -> ConfigDict:
    """An image per city with all label ids from 0 to 33, and the files that lie beside the labels; config.data."""
    for split, cities in CITIES.items():
        for city in cities:
            stem = f"{split}/{city}/{city}_000000_000019"
            write_image(root / f"source/leftImg8bit/{stem}_leftImg8bit.png", image(SIZE))
            labels = root / f"source/gtFine/{stem}_gtFine_labelIds.png"
            write_image(labels, np.zeros(SIZE, np.uint8) if split == "test" else ids(SIZE, range(34)))
            write_image(Path(str(labels).replace("labelIds", "color")), image(SIZE))
            write_image(Path(str(labels).replace("labelIds", "instanceIds")), np.zeros(SIZE, np.uint16))
    return config_data("cityscapes", root)


def write_acdc(root: Path) -> ConfigDict:
    """An image of each condition in each split, with all label ids, and one in fair weather; config.data."""
    for i, condition in enumerate(CONDITIONS):
        for split in ("train", "val", "test"):
            stem = f"{condition}/{split}/GOPR0{i}75/GOPR0{i}75_frame_00004{len(split)}"
            write_image(root / f"source/rgb_anon/{stem}_rgb_anon.png", image(SIZE))
            write_image(root / f"source/rgb_anon/{stem}_rgb_ref_anon.png".replace(split, f"{split}_ref"), image(SIZE))
            if split != "test":
                write_image(root / f"source/gt/{stem}_gt_labelIds.png", ids(SIZE, range(34)))
                write_image(root / f"source/gt/{stem}_gt_labelTrainIds.png", ids(SIZE, range(19)))
    return config_data("acdc", root)


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
            write_image(root / f"source/{images}/ADE_{split}_{i:08d}.jpg", image(size))
            if labels:
                write_image(root / f"source/{labels}/ADE_{split}_{i:08d}.png", ids(size, range(151)))
    return config_data("ade20k", root)


def write_pascal_context(root: Path, name: str = "pascal_context") -> ConfigDict:
    """Three training and two validation images with ids 0 to 59, and one of neither, without a label; config.data."""
    for split, names in (("train", ("2008_000008", "2008_000002", "2008_000015")), ("val", ("2010_1", "2010_2"))):
        for stem in names:
            write_image(root / f"source/JPEGImages/{stem}.jpg", image(SIZE))
            write_image(root / f"source/59_context_labels/{stem}.png", ids(SIZE, range(60)))
        _write_lines(root / f"source/ImageSets/Main/{split}.txt", names)
        _write_lines(root / f"source/ImageSets/Main/aeroplane_{split}.txt", [f"{stem} -1" for stem in names])
    write_image(root / "source/JPEGImages/2009_000001.jpg", image(SIZE))
    return config_data(name, root)


def write_lip(root: Path) -> ConfigDict:
    """Three training, two validation and one test image with ids 0 to 19; config.data."""
    for split, count in (("train", 3), ("val", 2)):
        stems = [f"{100 + i}_{7 - i}" for i in range(count)]
        for stem in stems:
            write_image(root / f"source/TrainVal_images/{split}_images/{split}{stem}.jpg", image(SIZE))
            label = f"source/TrainVal_parsing_annotations/{split}_segmentations/{split}{stem}.png"
            write_image(root / label, ids(SIZE, range(20)))
        _write_lines(root / f"source/TrainVal_images/{split}_id.txt", stems)
    write_image(root / "source/Testing_images/testing_images/100034_483681.jpg", image(SIZE))
    return config_data("lip", root)


def write_coco_stuff(root: Path) -> ConfigDict:
    """Three training and two test images with ids 0 to 182; config.data."""
    names = [f"COCO_train2014_{i:012d}" for i in range(5)]
    for name in names:
        write_image(root / f"source/images/{name}.jpg", image(SIZE))
        write_image(root / f"source/annotations/{name}.png", ids(SIZE, range(183)))
        _write_lines(root / f"source/annotations/{name}.mat", ["the label as it was downloaded"])
    for split, chosen in (("train", names[:3]), ("test", names[3:]), ("all", names)):
        _write_lines(root / f"source/imageLists/{split}.txt", chosen)
    return config_data("coco_stuff", root)


CLASSES = """
classes:
  - {name: road, color: [128, 64, 128], ids: [7, 8]}
  - {name: car, color: [0, 0, 142], ids: [26]}
ignored: [0]
"""


def write_folder(root: Path, splits: tuple[str, ...] = ("train", "val")) -> ConfigDict:
    """Two images per split, called alike in subfolders of it, with the ids of CLASSES; config.data."""
    for split in splits:
        for camera in ("left", "right"):
            write_image(root / f"source/images/{split}/{camera}/0001.jpg", image(SIZE))
            write_image(root / f"source/labels/{split}/{camera}/0001.png", np.uint8((0, 7, 8, 26))[ids(SIZE, range(4))])
    _write_lines(root / "source/classes.yaml", [CLASSES])
    return config_data("folder", root)


def image(size: tuple[int, int]) -> np.ndarray:
    """A smooth uint8 RGB picture [H, W, 3]."""
    rows, columns = np.indices(size)
    return np.stack([4 * rows, 3 * columns, rows + columns], -1).astype(np.uint8)


def ids(size: tuple[int, int], values: range) -> np.ndarray:
    """uint8 [H, W] that holds all values."""
    return (np.arange(size[0] * size[1]) % len(values) + values[0]).reshape(size).astype(np.uint8)


def write_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, array)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
