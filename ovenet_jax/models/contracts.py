"""What the parts of a network give one another: a backbone features to a head, a head scores, a network its output.

Whatever has these attributes and methods fits; there is nothing to inherit from.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from flax import nnx

from ovenet_jax.models.layers import InitialValues

Stages = Sequence[Any]  # the maps after stages 1 to 4: one [B, h, w, C] each, or in HRNet one for each branch


class Features(NamedTuple):
    """What a backbone gives to a head, [B, h, w, C] each: `main`, and `aux` for an auxiliary head."""

    aux: jax.Array
    main: jax.Array


class Logits(NamedTuple):
    """Class scores [B, h, w, K] at the network's stride; `aux` is None where a head has no auxiliary output."""

    aux: jax.Array | None
    main: jax.Array

    @property
    def predictions(self) -> dict[str, jax.Array]:
        """As an `Output`."""
        return {"main": self.main}

    @property
    def answer(self) -> str:
        return "main"


class Backbone(Protocol):
    """Image [B, H, W, 3] -> the maps after stages 1 to 4, which its other methods read.

    width, aux_width: channels of its features, `main` and `aux`.
    """

    width: int
    aux_width: int

    def __call__(self, image: jax.Array, /) -> Stages: ...

    def features(self, stages: Any, /) -> Features:
        """What heads read, [B, h, w, aux_width] and [B, h, w, width]."""

    def last(self, stages: Any, /) -> jax.Array:
        """What the offset head reads of the stages of an offset trunk: [B, h, w, width]."""

    def offset_trunk(self, branch: int, modules: Sequence[int], /, *, init: InitialValues) -> Callable[[Any], Stages]:
        """A second copy of stages `branch` (2, 3 or 4) to 4: the maps after the stage before -> those after each.

        modules: how many of each stage's modules, or blocks, it has.

        Raises ValueError: numbers that no copy can have.
        """


class Head(Protocol):
    """Features -> Logits. `rngs`, whose stream is "dropout", is given in training only.

    Its constructor takes by name what it needs of `in_features` (the backbone's width), `num_classes`, `align_corners`,
    `init` and the classifiers `aux` and `classifier`, see models/zoo.py; all else are the entries of config.model.head.
    """

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None, /) -> Logits: ...


class Output(Protocol):
    """What a network says of images [B, H, W, 3], at its stride."""

    @property
    def predictions(self) -> dict[str, jax.Array]:
        """Scores [B, h, w, K] of the K classes that are evaluated, by name: models/predictions.py lists the names."""

    @property
    def answer(self) -> str:
        """The name of the prediction that is the network's answer; the others are parts of it."""
