"""A baseline: backbone and context head, no offsets."""

from typing import NamedTuple

import jax
from flax import nnx

from ovenet_jax.models.layers import at_least_float32


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
        """Scores to evaluate, by name."""
        return {"main": self.main}


class Segmentor(nnx.Module):
    """Backbone and head: image [B, H, W, 3] -> float32 Logits at the backbone's stride (HRNet 4, dilated ResNet 8)."""

    def __init__(self, backbone: nnx.Module, head: nnx.Module):
        self.backbone = backbone
        self.head = head

    def __call__(self, image: jax.Array, rngs: nnx.Rngs | None = None) -> Logits:
        features = self.backbone.features(self.backbone(image))
        with jax.named_scope("head"):
            return jax.tree.map(at_least_float32, self.head(features, rngs))
