"""Attention among the pixels of a map: the block that Base-OC, Pyramid-OC, ASP-OC and ISA share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovenet_jax.models.layers import Activation, Conv, ConvNormAct, InitialValues, at_least_float32, chain

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v among all pixels: maps [B, H, W, D], [B, H, W, D], [B, H, W, C] -> [B, H, W, C]."""
    query, key = (x.reshape(x.shape[0], -1, x.shape[-1]) for x in (query, key))
    values = value.reshape(value.shape[0], -1, value.shape[-1])
    scores = at_least_float32(jnp.einsum("bqd,bkd->bqk", query, key)) * key.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bqk,bkc->bqc", weights.astype(value.dtype), values).reshape(value.shape)


class SelfAttention(nnx.Module):
    """Queries, keys and values by 1x1 convolutions, attention, and a projection: [B, H, W, C] -> [B, H, W, out].

    `layers`: (convolution, BatchNorm, activation) that queries and keys pass; OCNet's first release has one and makes
    both by the same (`shared`). `project_with_norm` False: the projection is a convolution that starts at 0, so that
    the context adds nothing at first.
    """

    def __init__(
        self,
        features: int,
        *,
        key_features: int,
        value_features: int,
        out_features: int,
        layers: int = 2,
        shared: bool = False,
        bias: bool = True,
        project_with_norm: bool = False,
        activation: Activation,
        init: InitialValues,
    ):
        def transform() -> nnx.List:
            widths = [features, *[key_features] * layers]
            return nnx.List(
                ConvNormAct(i, o, 1, bias=bias, activation=activation, in_head=True, init=init)
                for i, o in zip(widths[:-1], widths[1:], strict=True)
            )

        self.key = transform()
        self.query = None if shared else transform()
        self.value = Conv(features, value_features, 1, bias=bias, in_head=True, init=init)
        if project_with_norm:
            self.output = ConvNormAct(
                value_features, out_features, 1, bias=bias, activation=activation, in_head=True, init=init
            )
        else:
            self.output = Conv(value_features, out_features, 1, bias=bias, in_head=True, init=init)
            for parameter in (self.output.kernel, self.output.bias):
                parameter.set_value(np.zeros(parameter.shape, np.float32))

    def __call__(self, x: jax.Array, attend: Attend = attend) -> jax.Array:
        """`attend` decides who attends to whom: by default every pixel of a map to all."""
        key = chain(self.key, x)
        query = key if self.query is None else chain(self.query, x)
        return self.output(attend(query, key, self.value(x)))
