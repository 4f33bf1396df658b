"""Small made-up CamVid trees for tests."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

COUNTS = {"train": 3, "val": 2, "test": 1}


def write_tree(
    root: Path, counts: Mapping[str, int] = COUNTS, suffix: str = ".png", size: tuple[int, int] = (24, 32)
) -> ConfigDict:
    """Writes a sound tree of images of `size` (H, W) under root/source; returns config.data, with `prepared`
    root/prepared.

    Image i of a split has the value i everywhere, but i + 100 in the first row of green (JPEGs: nearly). Labels hold
    all ids 0 to 11, unless they have fewer than 34 pixels.
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
    return config_data("camvid", root)


def config_data(name: str, root: Path) -> ConfigDict:
    """config.data of the data set `name` in root/source, to be prepared in root/prepared."""
    folders = {"root": str(root / "source"), "prepared": str(root / "prepared")}
    return ConfigDict({"name": name, **folders, "lists": "", "storage": "compressed"})


def write(path: Path, array: np.ndarray) -> None:
    """RGB or single-channel uint8 or uint16 to an image file."""
    done, data = cv2.imencode(path.suffix, array[..., ::-1] if array.ndim == 3 else array)
    assert done
    path.write_bytes(data.tobytes())
