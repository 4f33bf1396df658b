"""What an evaluation finds. That of several parts of a split adds up to that of the whole."""

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ovenet_jax.supervision.measures import class_scores


class ImageScore(NamedTuple):
    """The answer's mIoU on the image of this number in its split, over the classes that occur in it; None where nothing
    is labelled."""

    number: int
    name: str
    miou: float | None


class Region(NamedTuple):
    """A connected component of the label `given`, of which the network says it is `seen`.

    pixels: of the network. x, y: the position in the image, in pixels, of the pixel in its middle. score: 0 to 1.
    """

    given: int
    seen: int
    pixels: int
    x: int
    y: int
    score: float


class Suspect(NamedTuple):
    """The image `number` of the split, its score, and its least believed regions, see suspects.py."""

    number: int
    score: float
    regions: list[Region]


class Evaluation(NamedTuple):
    """Confusion matrices int64 [K, K] by group (ACDC's condition, else "") and prediction, the network's answer last;
    the score of each image; and what observers find: arrays that add up, by name, like the curves of curves.py, and
    the suspects of suspects.py. made: when and with which versions, where it is read from a report."""

    groups: dict[str, dict[str, np.ndarray]] = {}
    images: list[ImageScore] = []
    sums: dict[str, np.ndarray] = {}
    suspects: list[Suspect] = []
    made: dict = {}

    @property
    def matrices(self) -> dict[str, np.ndarray]:
        """Over all groups, by prediction."""
        return reduce(_added, self.groups.values())

    @property
    def answer(self) -> str:
        """The name of the network's answer."""
        return list(self.matrices)[-1]

    @property
    def miou(self) -> float | None:
        """Of the answer, as published; None where nothing is labelled."""
        return class_scores(self.matrices[self.answer])["miou"]

    def worst(self, count: int) -> list[ImageScore]:
        """The `count` labelled images with the lowest mIoU, the worst first."""
        labelled = [image for image in self.images if image.miou is not None]
        return sorted(labelled, key=attrgetter("miou"))[:count]

    def plus(self, other: "Evaluation") -> "Evaluation":
        """That of both parts."""
        return Evaluation(*map(_added, self, other))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Evaluation":
        """Of its fields, arrays as lists."""
        groups = content["groups"].items()
        return cls(
            {group: {name: np.array(x, np.int64) for name, x in of.items()} for group, of in groups},
            [ImageScore(*image) for image in content["images"]],
            {key: np.array(x, np.float64) for key, x in content["sums"].items()},
            [Suspect(n, score, [Region(*region) for region in of]) for n, score, of in content["suspects"]],
            content["made"],
        )


def merged(parts: Iterable[Evaluation], images: int) -> Evaluation:
    """The parts of all processes as one, in the split's order.

    Raises:
      RuntimeError: they are not of `images` images, each once.
    """
    total = reduce(Evaluation.plus, parts)
    if sorted(image.number for image in total.images) != list(range(images)):
        raise RuntimeError(f"{len(total.images)} images were evaluated instead of {images}, each once")
    groups = dict(sorted(total.groups.items()))
    return total._replace(groups=groups, images=sorted(total.images), suspects=sorted(total.suspects))


def _added(first: Any, second: Any) -> Any:
    """The sum of arrays or lists, or of dicts of them, in which what only one of them has counts as it is."""
    if not isinstance(first, dict):
        return first + second
    both = {key: _added(first[key], second[key]) for key in first if key in second}
    return first | second | both
