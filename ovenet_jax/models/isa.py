"""ISA: dense attention as two sparse ones, among far pixels and then among near ones.

Source: Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", 2019, in openseg's form.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ovenet_jax.models import contracts, fcn, layers
from ovenet_jax.models.attention import SelfAttention


class InterlacedAttention(nnx.Module):
    """[B, H, W, C] -> context [B, H, W, C]. `block` (P, Q): the map is cut in blocks of P x Q pixels.

    First pixels at the same position in all blocks attend to each other (long range), then those of one block (short
    range). Maps that do not divide into blocks are padded with zeros, which take part in the attention. `options`:
    further arguments of SelfAttention.
    """

    def __init__(self, features: int, *, block: tuple[int, int], **options: Any):
        attention = partial(SelfAttention, features, value_features=features, project_with_norm=True, **options)
        self.long_range, self.short_range = attention(), attention()
        self.block = block

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        p, q = self.block
        rows, columns = (height + p - 1) // p, (width + q - 1) // q
        pad_h, pad_w = rows * p - height, columns * q - width
        top, left = pad_h // 2, pad_w // 2
        x = jnp.pad(x, ((0, 0), (top, pad_h - top), (left, pad_w - left), (0, 0)))

        x = x.reshape(batch, rows, p, columns, q, channels).transpose(0, 2, 4, 1, 3, 5)
        x = self.long_range(x.reshape(batch * p * q, rows, columns, channels))
        x = x.reshape(batch, p, q, rows, columns, channels).transpose(0, 3, 4, 1, 2, 5)
        x = self.short_range(x.reshape(batch * rows * columns, p, q, channels))
        x = x.reshape(batch, rows, columns, p, q, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * p, columns * q, channels)
        return x[:, top : top + height, left : left + width]


class ISA(nnx.Module):
    """Features -> Logits. `factors`: sizes of blocks in pixels of the map; contexts of several are concatenated."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        aux: fcn.PixelClassifier,
        mid_features: int,
        key_features: int,
        factors: Sequence[tuple[int, int]],
        activation: layers.Activation,
        dropout: float,
        init: layers.InitialValues,
    ):
        layer = partial(layers.ConvNormAct, in_head=True, activation=activation, init=init)
        attention = partial(InterlacedAttention, mid_features, key_features=key_features, activation=activation)
        self.aux = aux
        self.pixels = layer(in_features, mid_features, 3)
        self.attentions = nnx.List(attention(block=block, init=init) for block in factors)
        wide = len(factors) * mid_features
        self.widening = layer(mid_features, wide, 1) if len(factors) > 1 else None
        self.fusion = layer(2 * wide, mid_features, 1)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2))  # whole channels
        self.classifier = layers.Conv(mid_features, num_classes, 1, bias=True, in_head=True, init=init)

    def __call__(self, features: contracts.Features, rngs: nnx.Rngs | None = None) -> contracts.Logits:
        pixels = self.pixels(features.main)
        contexts = [attention(pixels) for attention in self.attentions]
        wide = pixels if self.widening is None else self.widening(pixels)
        fused = self.fusion(jnp.concatenate([wide, *contexts], axis=-1))
        main = self.classifier(self.dropout(fused, rngs=rngs))
        return contracts.Logits(aux=self.aux(features.aux, rngs), main=main)
