"""Toy streets: the built-in data set of small street scenes, drawn when it is prepared. TFDS builder."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ovenet_jax.data import prepare
from ovenet_jax.data.labels import TOY_STREETS
from ovenet_jax.data.street_scene import render_scene

SEED = 2022
SIZE = (128, 256)
COUNTS = {"train": 400, "val": 80}
DRAWING = 5  # to be raised with every change of what render_scene draws


class ToyStreets(tfds.core.GeneratorBasedBuilder):
    """Scenes kept in a folder under `prepared`, named after what they are drawn from. counts: by split."""

    name = "toy_streets"
    VERSION = tfds.core.Version("1.0.0")
    labels = TOY_STREETS
    unlabelled = frozenset()
    url_infos = None  # nothing to download; TFDS would look for a list of it

    def __init__(self, prepared: Path, size: tuple[int, int] = SIZE, counts: dict[str, int] = COUNTS):
        self._size, self._counts = size, counts
        digest = prepare.digest(DRAWING, SEED, size, sorted(counts.items()))
        super().__init__(data_dir=prepared / f"toy_streets-{digest}", file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return prepare.dataset_info(self)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self._counts}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        indices = range(self._counts[split])
        for i in tqdm(indices, f"drawing toy streets {split}", unit=" scenes", mininterval=1):
            image, label = scene(split, i, self._size)
            files = {"image": _png(image[..., ::-1]), "label": _png(label)}
            yield i, files | {"name": f"{split}_{i:04d}", "group": ""}


def scene(split: str, index: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """The scene `index` of a split, the same at all times: image and label as `render_scene` returns them."""
    return render_scene(np.random.default_rng([SEED, list(COUNTS).index(split), index]), size)


def _png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()
