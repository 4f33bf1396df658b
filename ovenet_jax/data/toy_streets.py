"""Toy streets: the built-in data set of small street scenes, drawn when it is prepared."""

from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from ovenet_jax.data import image_files, prepare, storage, street_scene
from ovenet_jax.data.labels import TOY_STREETS

NAME = "toy_streets"
SEED = 2022
SIZE = (128, 256)
COUNTS = {"train": 400, "val": 80}
DRAWING = 6  # to be raised with every change of what render_scene draws
BYTES = 30_000  # approximate size of both files of a scene


def data_set(size: tuple[int, int] = SIZE, counts: dict[str, int] = COUNTS) -> prepare.DataSet:
    """Scenes of `size` (H, W). counts: by split."""
    of_scene = {"compressed": BYTES, "decoded": storage.decoded_bytes(size, has_label=True)}
    return prepare.DataSet(
        name=NAME,
        source=NAME,
        labels=TOY_STREETS,
        splits={split: [_sample(split, i, size) for i in range(count)] for split, count in counts.items()},
        digest=prepare.digest(DRAWING, SEED, size, sorted(counts.items())),
        bytes_needed=lambda: {form: sum(counts.values()) * needed for form, needed in of_scene.items()},
    )


def scene(split: str, index: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """The scene `index` of a split, the same at all times: image and label as `render_scene` returns them."""
    return street_scene.render_scene(np.random.default_rng([SEED, list(COUNTS).index(split), index]), size)


_drawn = lru_cache(maxsize=64)(scene)  # image and label are read soon after each other


def _sample(split: str, index: int, size: tuple[int, int]) -> prepare.Sample:
    """Its files are drawn when they are read."""

    def file(part: int) -> SimpleNamespace:
        return SimpleNamespace(read_bytes=lambda: image_files.encoded(_drawn(split, index, size)[part]))

    return prepare.Sample(f"{split}_{index:04d}", file(0), file(1))
