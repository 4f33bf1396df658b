"""The predictions of all models: their names, their order, and what their scores mean."""

import jax
import jax.numpy as jnp

from ovenet_jax.models.segfix import offset_classes

# The predictions of all models in the order they are shown, the model's answer last.
TITLES = {
    "main": "prediction",
    "initial": "initial S_i",
    "seed": "seed S_s",
    "fused": "fused S_f",
    "offset": "offsets",
}
PARTS = ("initial", "seed")


def class_maps(predictions: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The most probable class of each pixel, or what SegFix's scores mean: [B, H, W, K] -> uint8 [B, H, W], by name."""
    return {
        name: offset_classes(scores) if name == "offset" else scores.argmax(-1).astype(jnp.uint8)
        for name, scores in predictions.items()
    }
