"""OCNet: a pixel's context is the pixels that look alike, in the whole image (Base-OC), in blocks of it (Pyramid-OC),
or beside an atrous pyramid (ASP-OC).

Source: Yuan et al., "OCNet: Object Context for Semantic Segmentation", IJCV 2021. Two published codes: openseg's, and
the authors' first release, in which queries and keys share one layer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovenet_jax.errors import UserError
from ovenet_jax.models import contracts, fcn, layers
from ovenet_jax.models.attention import SelfAttention, attend


def at_half_resolution(context: SelfAttention, x: jax.Array, *, align_corners: bool) -> jax.Array:
    """Attention on the 2x2 max-pooled map, upsampled to the size of `x`; a side of one pixel is not pooled."""
    height, width = x.shape[1:3]
    window = min(2, height), min(2, width)
    pooled = nnx.max_pool(x, window, strides=window)
    return layers.resize_bilinear(context(pooled), x.shape[1:3], align_corners=align_corners)


class BaseOC(nnx.Module):
    """Every pixel attends to all: Features -> Logits. `half`: on the 2x2 max-pooled map, 1/16 of the work."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        aux: fcn.PixelClassifier,
        mid_features: int,
        key_features: int,
        value_features: int,
        first_release: bool,
        half: bool,
        align_corners: bool,
        activation: layers.Activation,
        dropout: float,
        init: layers.InitialValues,
    ):
        layer = partial(layers.ConvNormAct, bias=True, in_head=True, activation=activation, init=init)
        options: dict[str, Any] = {"activation": activation, "init": init}
        options |= {"key_features": key_features, "value_features": value_features}
        self.aux = aux
        self.pixels = layer(in_features, mid_features, 3)
        self.attention = SelfAttention(mid_features, first_release=first_release, **options)
        self.fusion = layer(2 * mid_features, mid_features, 1)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2))  # whole channels
        self.classifier = layers.Conv(mid_features, num_classes, 1, bias=True, in_head=True, init=init)
        self.half = half
        self.align_corners = align_corners

    def __call__(self, features: contracts.Features, rngs: nnx.Rngs | None = None) -> contracts.Logits:
        pixels = self.pixels(features.main)
        if self.half:
            context = at_half_resolution(self.attention, pixels, align_corners=self.align_corners)
        else:
            context = self.attention(pixels)
        fused = self.fusion(jnp.concatenate([context, pixels], axis=-1))
        main = self.classifier(self.dropout(fused, rngs=rngs))
        return contracts.Logits(aux=self.aux(features.aux, rngs), main=main)


class PyramidOC(nnx.Module):
    """Pixels attend to those of their block, with the map cut into 1x1, 2x2, 3x3 and 6x6 blocks: Features -> Logits.

    Published in the first release only: queries and keys share one layer, and no activation follows the 3x3.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        aux: fcn.PixelClassifier,
        mid_features: int,
        key_features: int,
        sizes: Sequence[int],
        activation: layers.Activation,
        dropout: float,
        init: layers.InitialValues,
    ):
        layer = partial(layers.ConvNormAct, bias=True, in_head=True, activation=activation, init=init)
        options: dict[str, Any] = {"activation": activation, "init": init}
        options |= {"key_features": key_features, "value_features": mid_features, "first_release": True}
        wide = len(sizes) * mid_features
        self.aux = aux
        self.pixels = layer(in_features, mid_features, 3, activation=None)
        self.attentions = nnx.List(SelfAttention(mid_features, **options) for _ in sizes)
        self.widening = layer(mid_features, wide, 1)
        self.fusion = layer(2 * wide, mid_features, 1)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2))
        self.classifier = layers.Conv(mid_features, num_classes, 1, bias=True, in_head=True, init=init)
        self.sizes = tuple(sizes)

    def __call__(self, features: contracts.Features, rngs: nnx.Rngs | None = None) -> contracts.Logits:
        pixels = self.pixels(features.main)
        pairs = zip(self.attentions, self.sizes, strict=True)
        contexts = [attention(pixels, partial(attend_in_blocks, size=size)) for attention, size in pairs]
        fused = self.fusion(jnp.concatenate([self.widening(pixels), *contexts], axis=-1))
        main = self.classifier(self.dropout(fused, rngs=rngs))
        return contracts.Logits(aux=self.aux(features.aux, rngs), main=main)


def attend_in_blocks(query: jax.Array, key: jax.Array, value: jax.Array, *, size: int) -> jax.Array:
    """Attention inside each of size x size blocks of maps [B, H, W, ...]; the last ones also take the remaining pixels.

    Raises UserError: the map has fewer than `size` pixels along a side.
    """
    height, width = value.shape[1:3]
    if min(height, width) < size:
        fault = f"Pyramid-OC cuts its map in {size}x{size} blocks, and this one is {height}x{width}"
        raise UserError(f"{fault}; give larger images, or smaller config.model.head.sizes.")

    def cut(maps: Iterable[jax.Array], axis: int, length: int) -> Iterator[tuple[jax.Array, ...]]:
        return zip(*(jnp.split(x, np.arange(1, size) * (length // size), axis) for x in maps), strict=True)

    rows = [[attend(*block) for block in cut(row, 2, width)] for row in cut((query, key, value), 1, height)]
    return jnp.concatenate([jnp.concatenate(row, axis=2) for row in rows], axis=1)


class ASPOC(nnx.Module):
    """Base-OC at half resolution beside an atrous pyramid: Features -> Logits."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        aux: fcn.PixelClassifier,
        mid_features: int,
        branch_features: int,
        key_features: int,
        value_features: int,
        dilations: tuple[int, int, int],
        first_release: bool,
        align_corners: bool,
        activation: Callable[[jax.Array], jax.Array],
        dropout: float,
        init: layers.InitialValues,
    ):
        options: dict[str, Any] = {"activation": activation, "init": init}
        layer = partial(layers.ConvNormAct, in_head=True, activation=activation, init=init)
        conv = partial(layers.Conv, bias=True, in_head=True, init=init)
        attention = options | {"key_features": key_features, "value_features": value_features}
        self.aux = aux
        self.pixels = layer(in_features, mid_features, 3, bias=True)
        self.context_pixels = layer(mid_features, branch_features, 3, bias=True)
        self.attention = SelfAttention(branch_features, first_release=first_release, **attention)
        self.pyramid = layers.AtrousPyramid(mid_features, branch_features, dilations, bias=False, **options)
        self.fusion = layer(5 * branch_features, mid_features, 1)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2))
        self.classifier = conv(mid_features, num_classes, 1)
        self.align_corners = align_corners
        # After the attention openseg has only BatchNorm and activation, no convolution.
        self.context_conv = conv(branch_features, branch_features, 1) if first_release else None
        self.context_norm = layers.BatchNorm(branch_features)
        self.activation = activation

    def __call__(self, features: contracts.Features, rngs: nnx.Rngs | None = None) -> contracts.Logits:
        pixels = self.pixels(features.main)
        context = self.context_pixels(pixels)
        context = at_half_resolution(self.attention, context, align_corners=self.align_corners)
        if self.context_conv is not None:
            context = self.context_conv(context)
        context = self.activation(self.context_norm(context))
        fused = self.fusion(jnp.concatenate([context, self.pyramid(pixels)], axis=-1))
        main = self.classifier(self.dropout(fused, rngs=rngs))
        return contracts.Logits(aux=self.aux(features.aux, rngs), main=main)
