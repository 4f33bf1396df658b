"""What a network is fed of an image: a part of the network, since it was trained so."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from ovenet_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class Normalisation(NamedTuple):
    """(image / divisor - mean) / std per channel: what a network is fed of an RGB image.

    `bgr`: it is fed blue, green, red, and `mean` and `std` are in that order.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    divisor: float
    bgr: bool

    @classmethod
    def from_config(cls, settings: "ConfigDict") -> "Normalisation":
        """From `config.model.input`. Raises UserError: numbers that are not one per channel, or that nothing can be
        divided by."""
        mean, std = tuple(settings.mean), tuple(settings.std)
        if (len(mean), len(std)) != (3, 3) or 0 in (settings.divisor, *std):
            raise UserError(
                f"config.model.input: mean {mean} and std {std} must be three numbers each, one per channel, and no "
                f"std and not the divisor ({settings.divisor}) may be 0."
            )
        return cls(mean, std, settings.divisor, settings.bgr)

    def __call__(self, image: jax.Array) -> jax.Array:
        """RGB values from 0 to 255 [B, H, W, 3] -> float32 of the same shape, in the network's order of channels."""
        image = image.astype(jnp.float32)
        if self.bgr:
            image = image[..., ::-1]
        return (image / self.divisor - jnp.asarray(self.mean)) / jnp.asarray(self.std)
