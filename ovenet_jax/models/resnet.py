"""The dilated ResNet of openseg and OCNet: a deep stem, and strides turned into dilation.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Yu and Koltun, "Multi-Scale Context
Aggregation by Dilated Convolutions", ICLR 2016. Attribute paths follow the published state dicts.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
from flax import nnx

from ovenet_jax.models import contracts, hrnet
from ovenet_jax.models.layers import ConvNormAct, InitialValues, chain


class Layer(NamedTuple):
    """Bottlenecks of `width` (4 * width channels out), one per entry of `dilations`; `stride` is that of the first."""

    width: int
    stride: int
    dilations: tuple[int, ...]


def dilated_layers(
    blocks: Sequence[int], widths: Sequence[int], *, output_stride: int, multi_grid: Sequence[int], half_dilation: bool
) -> tuple[Layer, ...]:
    """The four layers of a ResNet whose last ones keep the resolution of `output_stride` (8 or 16).

    Each removed stride doubles the dilation of the 3x3 convolutions from there on; those of layer 4 are also multiplied
    by `multi_grid`, a factor per block. `half_dilation`: True halves the dilation of the first block of a layer whose
    stride is removed (openseg), False does not (OCNet's first release).
    """
    layers, total, dilation = [], 4, 1
    factors = [*((1,) * count for count in blocks[:3]), multi_grid]
    for width, stride, own_factors in zip(widths, (1, 2, 2, 2), factors, strict=True):
        dilate = total * stride > output_stride
        stride, dilation = (1, 2 * dilation) if dilate else (stride, dilation)
        total *= stride
        dilations = [dilation * factor for factor in own_factors]
        if dilate and half_dilation:
            dilations[0] //= 2
        layers.append(Layer(width, stride, tuple(dilations)))
    return tuple(layers)


class Layers(nnx.Module):
    """The last len(layers) of ResNet's layers 1 to 4: [B, H, W, in] -> the maps after each of them.

    With the attribute `rematerialise` only the inputs of blocks are stored for the backward pass.
    """

    def __init__(self, in_features: int, layers: Sequence[Layer], *, init: InitialValues):
        self.numbers = tuple(range(5 - len(layers), 5))
        self.rematerialise = False
        for number, layer in zip(self.numbers, layers, strict=True):
            block = partial(hrnet.Bottleneck, width=layer.width, init=init)
            first, *others = layer.dilations
            blocks = [block(in_features, stride=layer.stride, dilation=first)]
            in_features = 4 * layer.width
            blocks += [block(in_features, dilation=dilation) for dilation in others]
            setattr(self, f"layer{number}", nnx.List(blocks))

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        outputs = []
        for number in self.numbers:
            x = chain(getattr(self, f"layer{number}"), x, rematerialise=self.rematerialise)
            outputs.append(x)
        return outputs


class ResNet(nnx.Module):
    """The backbone: a stem, max pooling to stride 4, and four layers.

    `stem`: channels of its 3x3 convolutions, published 64, 64, 128; a single entry means one 7x7 convolution.
    Published: ResNet-101 has 3, 4, 23, 3 blocks of widths 64 to 512, ResNet-50 6 instead of 23.
    """

    def __init__(self, layers: Sequence[Layer], *, stem: Sequence[int], channels: int = 3, init: InitialValues):
        self.conv1 = ConvNormAct(channels, stem[0], 7 if len(stem) == 1 else 3, stride=2, init=init)
        for number, (width, following) in enumerate(pairwise(stem), start=2):
            setattr(self, f"conv{number}", ConvNormAct(width, following, 3, init=init))
        self.stem = tuple(f"conv{number}" for number in range(1, len(stem) + 1))
        self.trunk = Layers(stem[-1], layers, init=init)
        self.layers = tuple(layers)
        self.width, self.aux_width = 4 * layers[3].width, 4 * layers[2].width

    def __call__(self, image: jax.Array) -> list[jax.Array]:
        """Image [B, H, W, C] -> the maps after layers 1 to 4, [B, H / 4, W / 4, C] the first."""
        stem = chain([getattr(self, name) for name in self.stem], image)
        return self.trunk(max_pool_ceil(stem))

    def last(self, layers: Sequence[jax.Array]) -> jax.Array:
        return layers[-1]

    def features(self, layers: Sequence[jax.Array]) -> contracts.Features:
        """Layer 4, and layer 3 for an auxiliary head."""
        return contracts.Features(aux=layers[2], main=layers[3])

    def offset_trunk(self, branch: int, modules: Sequence[int], *, init: InitialValues) -> Layers:
        """Copies the first `modules` blocks of each layer."""
        copied = zip(self.layers[branch - 1 :], modules, strict=True)
        copies = [layer._replace(dilations=layer.dilations[:count]) for layer, count in copied]
        return Layers(4 * self.layers[branch - 2].width, copies, init=init)


def max_pool_ceil(x: jax.Array) -> jax.Array:
    """3x3 max pooling of stride 2 with padding 1, PyTorch's ceil mode: a last window may reach over the padded edge."""
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 2), (1, 2)))  # odd sides leave the last one unread
