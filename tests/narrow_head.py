"""A head of few channels, made without a config."""

from flax import nnx

from ovenet_jax.models.fcn import PixelClassifier
from ovenet_jax.models.layers import InitialValues, relu


def narrow_head(kind: type[nnx.Module], aux_features: int, init: InitialValues, **options) -> nnx.Module:
    """A head of 5 classes on 6 channels, without dropout; its auxiliary one on `aux_features`."""
    aux = PixelClassifier(
        aux_features,
        5,
        hidden_features=0,
        kernel_size=1,
        bias=True,
        output_bias=True,
        dropout=0.0,
        activation=relu,
        in_head=True,
        init=init,
    )
    narrow = {"mid_features": 8, "key_features": 4, "dropout": 0.0, "activation": relu}
    return kind(6, 5, aux=aux, init=init, **narrow, **options)
