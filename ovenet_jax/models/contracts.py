"""Interfaces between the parts of a network: backbone -> features, head -> scores, network -> output.

They are Protocols: a class with these attributes and methods fits without inheriting from them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from flax import nnx

from ovenet_jax.models.layers import InitialValues

Stages = Sequence[Any]  # after each of stages 1 to 4: a map [B, h, w, C], or in HRNet a list of one per branch


class Features(NamedTuple):
    """The output of a backbone and input of a head, [B, h, w, C] each: `main`, and `aux` for an auxiliary head."""

    aux: jax.Array
    main: jax.Array


class Logits(NamedTuple):
    """Class scores [B, h, w, K] at the network's stride; `aux` is None where a head has no auxiliary output."""

    aux: jax.Array | None
    main: jax.Array

    @property
    def predictions(self) -> dict[str, jax.Array]:
        """See Output.predictions."""
        return {"main": self.main}


class Backbone(Protocol):
    """Image [B, H, W, C] -> feature maps after stages 1 to 4, the input of its other methods.

    width, aux_width: channels of its features, `main` and `aux`.
    """

    width: int
    aux_width: int

    def __call__(self, image: jax.Array, /) -> Stages: ...

    def features(self, stages: Any, /) -> Features:
        """The input of heads, [B, h, w, aux_width] and [B, h, w, width]."""

    def last(self, stages: Any, /) -> jax.Array:
        """The input of the offset head, from the outputs of an offset trunk: [B, h, w, width]."""

    def offset_trunk(self, branch: int, modules: Sequence[int], /, *, init: InitialValues) -> Callable[[Any], Stages]:
        """A second copy of stages `branch` (2, 3 or 4) to 4: output of stage branch - 1 -> outputs of copied stages.

        modules: number of modules (ResNet: blocks) of each copied stage.
        """


class Head(Protocol):
    """Features -> Logits. `rngs`, whose stream is "dropout", is given in training only.

    The constructor may take `in_features` (the backbone's width), `num_classes`, `align_corners`, `init` and the
    classifiers `aux` and `classifier` by keyword; its other parameters come from config.model.head (models/zoo.py).
    """

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None, /) -> Logits: ...


class Output(Protocol):
    """A network's output for images [B, H, W, C], at the network's stride."""

    @property
    def predictions(self) -> dict[str, jax.Array]:
        """Scores [B, h, w, K] of the K classes that are evaluated, by the names of models/predictions.py: the
        intermediate predictions, and last the final one."""
