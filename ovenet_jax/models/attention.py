"""Attention among the pixels of a map: the block that Base-OC, Pyramid-OC, ASP-OC and ISA share."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovenet_jax.models.layers import Conv, ConvNormAct, InitialValues, at_least_float32, chain, is_symbolic

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

QUERIES = 512  # queries per chunk: attention in a map of N pixels holds at most 512 x N scores in memory


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v among all pixels: maps [B, H, W, D], [B, H, W, D], [B, H, W, C] -> [B, H, W, C].

    Exact at any size. More than QUERIES queries are processed in chunks, whose scores the backward pass recomputes, so
    that memory grows with N, not with N^2 (Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory", 2021).
    `jax.nn.dot_product_attention` does not fit: it needs D = C, its XLA version stores all N^2 scores, and its cuDNN
    version supports only 16-bit types and at most 128 channels, 256 from Hopper on.
    """
    shape = value.shape
    query, key, value = (x.reshape(shape[0], -1, x.shape[-1]) for x in (query, key, value))
    batch, count, features = query.shape
    chunks = 1 if is_symbolic(count) else math.ceil(count / QUERIES)  # of equal size
    if chunks <= 1:
        return softmax_attention(query, key, value).reshape(shape)
    queries = jnp.pad(query, ((0, 0), (0, -count % chunks), (0, 0)))
    queries = queries.reshape(batch, chunks, -1, features).swapaxes(0, 1)
    # In float32, because the gradients of keys and values are summed over the chunks.
    wide_key, wide_value = map(at_least_float32, (key, value))

    def attend_chunk(queries: jax.Array) -> jax.Array:
        return softmax_attention(queries, wide_key.astype(key.dtype), wide_value.astype(value.dtype))

    context = jax.lax.map(jax.checkpoint(attend_chunk, prevent_cse=False), queries)
    return context.swapaxes(0, 1).reshape(batch, -1, shape[-1])[:, :count].reshape(shape)


def softmax_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Plain softmax attention, [B, ..., D], [B, N, D], [B, N, C] -> [B, ..., C]; its softmax is in float32 at least."""
    scores = at_least_float32(jnp.einsum("b...d,bnd->b...n", query, key)) * key.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("b...n,bnc->b...c", weights.astype(value.dtype), value)


class SelfAttention(nnx.Module):
    """Queries, keys and values by 1x1 convolutions, attention, and an output projection: [B, H, W, C] -> the same.

    Queries and keys pass two ConvNormActs each; in OCNet's `first_release` they share a single one. The output
    projection is a convolution initialised with 0, so that the context adds nothing at first, or with
    `project_with_norm` a ConvNormAct (then no layer has a bias). `options`: further arguments of the ConvNormActs.
    """

    def __init__(
        self,
        features: int,
        *,
        key_features: int,
        value_features: int,
        first_release: bool = False,
        project_with_norm: bool = False,
        init: InitialValues,
        **options: Any,
    ):
        conv = partial(Conv, bias=not project_with_norm, in_head=True, init=init)
        options |= {"bias": not project_with_norm, "in_head": True, "init": init}
        layer: Callable[..., ConvNormAct] = partial(ConvNormAct, **options)
        widths = (features,) if first_release else (features, key_features)
        self.key = nnx.List(layer(width, key_features, 1) for width in widths)
        self.query = None if first_release else nnx.List(layer(width, key_features, 1) for width in widths)
        self.value = conv(features, value_features, 1)
        self.output: ConvNormAct | Conv
        if project_with_norm:
            self.output = layer(value_features, features, 1)
        else:
            self.output = conv(value_features, features, 1)
            for parameter in (self.output.kernel, self.output.bias):
                if parameter is not None:
                    parameter.set_value(np.zeros(parameter.shape, np.float32))

    def __call__(self, x: jax.Array, attend: Attend = attend) -> jax.Array:
        """`attend` decides which pixels attend to which: by default every pixel of a map to all of them."""
        key = chain(self.key, x)
        query = key if self.query is None else chain(self.query, x)
        return self.output(attend(query, key, self.value(x)))
