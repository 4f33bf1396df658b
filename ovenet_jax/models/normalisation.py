"""Input normalisation: a part of the network, because its weights depend on it."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class Normalisation(NamedTuple):
    """(image / divisor - mean) / std per channel: the input of a network for an RGB image.

    `bgr`: its channels are blue, green, red, and `mean` and `std` are in that order.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    divisor: float
    bgr: bool

    @classmethod
    def from_config(cls, settings: "ConfigDict") -> "Normalisation":
        """From `config.model.input`."""
        return cls(tuple(settings.mean), tuple(settings.std), settings.divisor, settings.bgr)

    def __call__(self, image: jax.Array) -> jax.Array:
        """RGB values from 0 to 255 [B, H, W, 3] -> float32 of the same shape, in the network's order of channels."""
        image = image.astype(jnp.float32)
        if self.bgr:
            image = jnp.flip(image, -1)
        return (image / self.divisor - jnp.asarray(self.mean)) / jnp.asarray(self.std)
