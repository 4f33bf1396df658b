"""Evaluation results. The results of parts of a split can be summed."""

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ovenet_jax.supervision.measures import class_scores


class ImageScore(NamedTuple):
    """mIoU of the final prediction over the classes that occur in image `number` of the split; None without labels."""

    number: int
    name: str
    miou: float | None


class Region(NamedTuple):
    """A connected component of label `given`, most of whose pixels the network predicts as `seen`.

    pixels: its size at the network's resolution. x, y: a central pixel's position in the image. score: 0 to 1.
    """

    given: int
    seen: int
    pixels: int
    x: int
    y: int
    score: float


class Suspect(NamedTuple):
    """Image `number` of the split, its score and its regions with the lowest scores, see suspects.py."""

    number: int
    score: float
    regions: list[Region]


class Evaluation(NamedTuple):
    """The result of evaluating a split.

    groups[group][prediction]: confusion matrix int64 [K, K], the final prediction last; group is ACDC's condition, else
    "". images: the scores in the split's order. sums, suspects: results of observers; sums are arrays by name that are
    added when evaluations are merged, like the bins of curves.py. made: date, versions and devices.
    """

    groups: dict[str, dict[str, np.ndarray]] = {}
    images: list[ImageScore] = []
    sums: dict[str, np.ndarray] = {}
    suspects: list[Suspect] = []
    made: dict = {}

    @property
    def matrices(self) -> dict[str, np.ndarray]:
        """Confusion matrices of all groups together, by prediction."""
        return reduce(_added, self.groups.values())

    @property
    def answer(self) -> str:
        """The name of the final prediction."""
        return list(self.matrices)[-1]

    @property
    def miou(self) -> float | None:
        """mIoU of the final prediction, over all classes as published; None if nothing is labelled."""
        return class_scores(self.matrices[self.answer])["miou"]

    @property
    def losses(self) -> dict[str, float]:
        """The mean loss of each prediction, see `evaluator.Scores`; none where nothing is labelled."""
        sums = {name: self.sums.get(f"loss {name}", (0.0, 0.0)) for name in self.matrices}
        return {name: float(total / weight) for name, (total, weight) in sums.items() if weight}

    def worst(self, count: int) -> list[ImageScore]:
        """The `count` labelled images with the lowest mIoU, the worst first."""
        labelled = [image for image in self.images if image.miou is not None]
        return sorted(labelled, key=attrgetter("miou"))[:count]

    def plus(self, other: "Evaluation") -> "Evaluation":
        """The sum of two evaluations."""
        return Evaluation(*map(_added, self, other))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Evaluation":
        """From JSON, with arrays as lists."""
        groups = content["groups"].items()
        return cls(
            {group: {name: np.array(x, np.int64) for name, x in of.items()} for group, of in groups},
            [ImageScore(*image) for image in content["images"]],
            {key: np.array(x, np.float64) for key, x in content["sums"].items()},
            [Suspect(n, score, [Region(*region) for region in of]) for n, score, of in content["suspects"]],
            content["made"],
        )


def merged(parts: Iterable[Evaluation], images: int) -> Evaluation:
    """The sum over all processes, in the split's order. Raises RuntimeError: an image was missed or evaluated twice."""
    total = reduce(Evaluation.plus, parts)
    if sorted(image.number for image in total.images) != list(range(images)):
        raise RuntimeError(f"expected {images} images, each once, got {len(total.images)}")
    groups = dict(sorted(total.groups.items()))
    return total._replace(groups=groups, images=sorted(total.images), suspects=sorted(total.suspects))


def _added(first: Any, second: Any) -> Any:
    """The sum of arrays, lists, or dicts of them; keys of only one dict are kept."""
    if not isinstance(first, dict):
        return first + second
    both = {key: _added(first[key], second[key]) for key in first if key in second}
    return first | second | both
