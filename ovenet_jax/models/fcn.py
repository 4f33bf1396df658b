"""The plain head: every pixel classified from its own features (Long et al., FCN, CVPR 2015; HRNet's `last_layer`)."""

from typing import Any

import jax
from flax import nnx

from ovenet_jax.models import contracts, layers


class PixelClassifier(nnx.Module):
    """Convolution, BatchNorm, activation, dropout of channels, 1x1 convolution: [B, H, W, in] -> [B, H, W, out].

    Also the auxiliary head of the OCNet series (OCR's soft object regions), and OVeNet's offset head.
    `hidden_features` 0: the same number as `in_features`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int,
        kernel_size: int,
        bias: bool,
        output_bias: bool,
        dropout: float,
        activation: layers.Activation,
        in_head: bool,
        init: layers.InitialValues,
    ):
        options: dict[str, Any] = {"in_head": in_head, "init": init}
        width = hidden_features or in_features
        self.hidden = layers.ConvNormAct(in_features, width, kernel_size, bias=bias, activation=activation, **options)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2))  # whole channels
        self.output = layers.Conv(width, out_features, 1, bias=output_bias, **options)

    def __call__(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.output(self.dropout(self.hidden(features), rngs=rngs))


class FCN(nnx.Module):
    """Features -> Logits, with an auxiliary map where there is a classifier for it."""

    def __init__(self, *, classifier: PixelClassifier, aux: PixelClassifier | None = None):
        self.classifier = classifier
        self.aux = aux

    def __call__(self, features: contracts.Features, rngs: nnx.Rngs | None = None) -> contracts.Logits:
        aux = None if self.aux is None else self.aux(features.aux, rngs)
        return contracts.Logits(aux=aux, main=self.classifier(features.main, rngs))
