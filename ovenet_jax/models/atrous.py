"""The atrous pyramid that ASP-OC and ASP-OCR put beside their context (ASPP: Chen et al., DeepLabv3, 2017)."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from ovenet_jax.models.layers import Activation, ConvNormAct, InitialValues


class AtrousPyramid(nnx.Module):
    """A 1x1 and, per dilation, a dilated 3x3 convolution: [B, H, W, in] -> [B, H, W, (1 + dilations) * features]."""

    def __init__(
        self,
        in_features: int,
        features: int,
        dilations: Sequence[int],
        *,
        bias: bool,
        activation: Activation,
        init: InitialValues,
    ):
        branch = partial(
            ConvNormAct, in_features, features, bias=bias, activation=activation, in_head=True, init=init
        )
        self.branches = nnx.List([branch(1), *(branch(3, dilation=dilation) for dilation in dilations)])

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([branch(x) for branch in self.branches], axis=-1)
