"""The plain head: every pixel classified from its own features (Long et al., FCN, CVPR 2015; HRNet's `last_layer`)."""

import jax
import numpy as np
from flax import nnx

from ovenet_jax.models.layers import BACKBONE_STD, Conv, ConvNormAct
from ovenet_jax.models.segmentor import Logits


class PixelClassifier(nnx.Module):
    """1x1 convolution, BatchNorm, ReLU, 1x1 convolution, all with biases: [B, H, W, in] -> [B, H, W, out].

    Also OCR's auxiliary head (soft object regions) and OVeNet's offset head.
    """

    def __init__(self, in_features: int, out_features: int, *, std: float | None, rng: np.random.Generator):
        self.hidden = ConvNormAct(in_features, in_features, 1, bias=True, std=std, rng=rng)
        self.output = Conv(in_features, out_features, 1, bias=True, std=std, rng=rng)

    def __call__(self, features: jax.Array) -> jax.Array:
        return self.output(self.hidden(features))


class FCN(nnx.Module):
    """Features [B, H, W, C] -> Logits without an auxiliary map."""

    def __init__(self, in_features: int, num_classes: int, *, rng: np.random.Generator):
        self.classifier = PixelClassifier(in_features, num_classes, std=BACKBONE_STD, rng=rng)

    def __call__(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> Logits:  # noqa: ARG002
        return Logits(aux=None, main=self.classifier(features))
