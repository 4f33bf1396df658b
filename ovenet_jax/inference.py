"""From an image to class maps at its own size."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ovenet_jax.models import parameters
from ovenet_jax.models.layers import resize_bilinear
from ovenet_jax.models.parameters import Arrays

# The predictions of all models in the order they are shown, the model's answer last.
TITLES = {"main": "prediction", "initial": "initial S_i", "seed": "seed S_s", "fused": "fused S_f"}


class Normalisation(NamedTuple):
    """(image / 255 - mean) / std per channel, RGB."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __call__(self, image: jax.Array) -> jax.Array:
        """uint8 [B, H, W, 3] -> float32 of the same shape."""
        return (image.astype(jnp.float32) / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)


class Segmentation(NamedTuple):
    """Class maps uint8 [B, H, W] by name (see TITLES); OVeNet's offset and confidence at stride 4, else None."""

    class_maps: dict[str, jax.Array]
    offset: jax.Array | None
    confidence: jax.Array | None


def segment(
    graphdef: nnx.GraphDef,
    params: Arrays,
    statistics: Arrays,
    image: jax.Array,
    *,
    normalisation: Normalisation,
) -> Segmentation:
    """Whole images uint8 [B, H, W, 3] through the network once, with its stored BatchNorm statistics."""
    model = parameters.merge(graphdef, params, statistics)
    model.eval()
    output = model(normalisation(image))
    maps = class_maps(output, image.shape[1:3], align_corners=model.align_corners)
    return Segmentation(maps, getattr(output, "offset", None), getattr(output, "confidence", None))


def class_maps(output: Any, size: tuple[int, int], *, align_corners: bool) -> dict[str, jax.Array]:
    """The most probable class of each of the output's predictions at `size` (H, W): uint8 [B, H, W] by name."""
    return {
        name: resize_bilinear(scores, size, align_corners=align_corners).argmax(-1).astype(jnp.uint8)
        for name, scores in output.predictions.items()
    }
