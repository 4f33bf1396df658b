"""SegFix: where boundaries are, and in which direction the object's interior lies.

Source: Yuan, Xie, Chen and Wang, "SegFix: Model-Agnostic Boundary Refinement for Segmentation", ECCV 2020.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ovenet_jax.models.contracts import Backbone
from ovenet_jax.models.fcn import PixelClassifier
from ovenet_jax.models.layers import Activation, InitialValues, at_least_float32


class SegFixOutput(NamedTuple):
    """Scores at the backbone's stride: `boundary` [B, h, w, 2] (interior, boundary), `direction` [B, h, w, D]."""

    boundary: jax.Array
    direction: jax.Array

    @property
    def predictions(self) -> dict[str, jax.Array]:
        """See Output.predictions; [B, h, w, 1 + D]: P(interior) - P(boundary), then the logits of the directions.
        These scores can be resized and averaged, as published; `offset_classes` decodes them.
        """
        probability = jax.nn.softmax(self.boundary, axis=-1)
        interior = probability[..., :1] - probability[..., 1:]
        return {"offset": jnp.concatenate([interior, self.direction], axis=-1)}


def offset_classes(scores: jax.Array) -> jax.Array:
    """0 in the interior, 1 + direction near a boundary: [..., 1 + D] -> uint8 [...]."""
    return jnp.where(scores[..., 0] < 0, 1 + scores[..., 1:].argmax(-1), 0).astype(jnp.uint8)


def offset_probabilities(scores: jax.Array) -> jax.Array:
    """P(interior), then P(boundary) * P(direction), from the scores of `SegFixOutput.predictions`: [..., 1 + D]."""
    boundary = (1 - scores[..., :1]) / 2
    return jnp.concatenate([1 - boundary, boundary * jax.nn.softmax(scores[..., 1:], axis=-1)], axis=-1)


class SegFix(nnx.Module):
    """A backbone with a boundary and a direction head: image [B, H, W, C] -> SegFixOutput.

    Published: HRNet-W48 or 2x20, 256 hidden channels, 8 directions, no biases, LeakyReLU(0.01) (in-place ABN).
    """

    def __init__(
        self, backbone: Backbone, *, hidden_features: int, directions: int, activation: Activation, init: InitialValues
    ):
        options: dict[str, Any] = {"kernel_size": 1, "bias": False, "output_bias": False, "dropout": 0.0}
        options |= {"hidden_features": hidden_features, "activation": activation, "in_head": True, "init": init}
        head: Callable[[int], PixelClassifier] = partial(PixelClassifier, backbone.width, **options)
        self.backbone = backbone
        self.boundary_head = head(2)
        self.direction_head = head(directions)

    def __call__(self, image: jax.Array, rngs: nnx.Rngs | None = None) -> SegFixOutput:  # noqa: ARG002
        features = self.backbone.features(self.backbone(image)).main
        scores = self.boundary_head(features), self.direction_head(features)
        return SegFixOutput(*map(at_least_float32, scores))
