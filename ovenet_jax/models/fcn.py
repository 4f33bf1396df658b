"""The plain head: every pixel classified from its own features (Long et al., FCN, CVPR 2015; HRNet's `last_layer`)."""

import jax
from flax import nnx

from ovenet_jax.models.layers import Conv, ConvNormAct, InitialValues
from ovenet_jax.models.segmentor import Logits


class PixelClassifier(nnx.Module):
    """1x1 convolution, BatchNorm, ReLU, 1x1 convolution, all with biases: [B, H, W, in] -> [B, H, W, out].

    Also OCR's auxiliary head (soft object regions) and OVeNet's offset head.
    """

    def __init__(self, in_features: int, out_features: int, *, in_head: bool, init: InitialValues):
        self.hidden = ConvNormAct(in_features, in_features, 1, bias=True, in_head=in_head, init=init)
        self.output = Conv(in_features, out_features, 1, bias=True, in_head=in_head, init=init)

    def __call__(self, features: jax.Array) -> jax.Array:
        return self.output(self.hidden(features))


class FCN(nnx.Module):
    """Features [B, H, W, C] -> Logits without an auxiliary map."""

    def __init__(self, in_features: int, num_classes: int, *, init: InitialValues):
        self.classifier = PixelClassifier(in_features, num_classes, in_head=False, init=init)

    def __call__(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> Logits:  # noqa: ARG002
        return Logits(aux=None, main=self.classifier(features))
