"""Input normalisation: a part of the network, because its weights depend on it."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class Normalisation(NamedTuple):
    """(image / divisor - mean) / std per channel: the input of a network for an RGB image, or one of named channels.

    `bgr`: its channels are blue, green, red, and `mean` and `std` are in that order.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisor: float
    bgr: bool

    @classmethod
    def from_config(cls, settings: "ConfigDict") -> "Normalisation":
        """From `config.model.input`."""
        return cls(tuple(settings.mean), tuple(settings.std), settings.divisor, settings.bgr)

    def __call__(self, image: jax.Array) -> jax.Array:
        """RGB values from 0 to 255 [B, H, W, 3], or named channels -> float32, in the network's order of channels."""
        image = image.astype(jnp.float32)
        if self.bgr:
            image = jnp.flip(image, -1)
        return (image / self.divisor - jnp.asarray(self.mean)) / jnp.asarray(self.std)


def images_of(settings: "ConfigDict", *size: Any, **options: Any) -> jax.ShapeDtypeStruct:
    """Images [*size, C] of `config.model.input`: uint8 RGB, or uint16 where channels are named. options: JAX's."""
    dtype = jnp.uint16 if settings.get("channels") else jnp.uint8
    return jax.ShapeDtypeStruct((*size, len(settings.mean)), dtype, **options)
