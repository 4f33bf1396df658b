"""Small made-up CamVid trees for tests."""

from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

COUNTS = {"train": 3, "val": 2, "test": 1}


def write_tree(root: Path, counts: dict[str, int] = COUNTS, suffix: str = ".png", size=(24, 32)) -> ConfigDict:
    """Writes a sound tree of images (H, W) under root / 'source'; returns config.data, `prepared` beside it.

    Image number i of its split is i everywhere, and so is the green channel's first row plus 100; labels hold
    all ids 0 to 11.
    """
    for split, count in counts.items():
        for folder in (split, f"{split}annot"):
            (root / "source" / folder).mkdir(parents=True)
        for i in range(count):
            image = np.full((*size, 3), i, np.uint8)
            image[0, :, 1] = i + 100
            write(root / f"source/{split}/{split}_{i:02d}{suffix}", image)
            label = np.arange(size[0] * size[1]).reshape(size) // 3 % 12
            write(root / f"source/{split}annot/{split}_{i:02d}.png", label.astype(np.uint8))
    folders = {"root": str(root / "source"), "prepared": str(root / "prepared")}
    return ConfigDict({"name": "camvid", **folders, "lists": "", "storage": "compressed"})


def write(path: Path, array: np.ndarray):
    """RGB or single-channel uint8 or uint16 to an image file."""
    path.write_bytes(cv2.imencode(path.suffix, array[..., ::-1] if array.ndim == 3 else array)[1].tobytes())
