"""OCR and ASP-OCR: a pixel is described by the object regions it belongs to.

Source: Yuan, Chen and Wang, "Object-Contextual Representations for Semantic Segmentation", ECCV 2020. Three published
forms differ in biases, activation and the auxiliary head: HRNet's own code (no biases in attention and fusion, ReLU),
and openseg's for HRNet and for ResNet. OCNet's "Fast-OC" is the same context under its earlier name.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ovenet_jax.models import contracts, fcn, layers
from ovenet_jax.models.attention import softmax_attention


def gather_regions(features: jax.Array, region_logits: jax.Array) -> jax.Array:
    """Object region representations: per class, the mean of the features under that class's soft region.

    features [B, H, W, C], region_logits [B, H, W, K] (softmax over all pixels, per class) -> [B, K, C].
    """
    regions = jax.nn.softmax(layers.at_least_float32(region_logits), axis=(1, 2))
    return jnp.einsum("bhwk,bhwc->bkc", regions.astype(features.dtype), features)


class ObjectAttention(nnx.Module):
    """Each pixel attends over the K object regions: [B, H, W, C] and [B, K, C] -> context [B, H, W, C].

    `layer`: more arguments of its ConvNormActs.
    """

    def __init__(self, features: int, key_features: int, **layer: Any):
        def transform(*widths: int) -> nnx.List:
            return nnx.List(layers.ConvNormAct(i, o, 1, in_head=True, **layer) for i, o in pairwise(widths))

        self.query = transform(features, key_features, key_features)
        self.key = transform(features, key_features, key_features)
        self.value = transform(features, key_features)
        self.output = transform(key_features, features)

    def __call__(self, x: jax.Array, regions: jax.Array) -> jax.Array:
        regions = regions[:, None]  # [B, 1, K, C]: a map of one row, for the convolutions
        query, key = layers.chain(self.query, x), layers.chain(self.key, regions)
        value = layers.chain(self.value, regions)
        return layers.chain(self.output, softmax_attention(query, key[:, 0], value[:, 0]))


class OCR(nnx.Module):
    """Features -> Logits(aux: the soft object regions, main: classes from features and context).

    With `dilations` (ASP-OCR) the context is fused with an atrous pyramid of the features, instead of with the pixels.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        aux: fcn.PixelClassifier,
        mid_features: int,
        key_features: int,
        dilations: tuple[int, ...],
        bias: bool,
        output_bias: bool,
        activation: layers.Activation,
        dropout: float,
        init: layers.InitialValues,
    ):
        options: dict[str, Any] = {"activation": activation, "bias": bias, "init": init}
        layer = partial(layers.ConvNormAct, in_head=True, activation=activation, init=init)
        self.aux = aux
        self.pixels = layer(in_features, mid_features, 3, bias=True)
        self.attention = ObjectAttention(mid_features, key_features, **options)
        self.pyramid = layers.AtrousPyramid(in_features, mid_features, dilations, **options) if dilations else None
        self.fusion = layer((2 + len(dilations)) * mid_features, mid_features, 1, bias=bias)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2))  # whole channels
        self.classifier = layers.Conv(mid_features, num_classes, 1, bias=output_bias, in_head=True, init=init)

    def __call__(self, features: contracts.Features, rngs: nnx.Rngs | None = None) -> contracts.Logits:
        aux = self.aux(features.aux, rngs)
        pixels = self.pixels(features.main)
        context = self.attention(pixels, gather_regions(pixels, aux))
        beside = pixels if self.pyramid is None else self.pyramid(features.main)
        fused = self.fusion(jnp.concatenate([context, beside], axis=-1))
        return contracts.Logits(aux=aux, main=self.classifier(self.dropout(fused, rngs=rngs)))
