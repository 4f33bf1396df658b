"""The predictions of all models: their names, their order, and what their scores mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.models.segfix import offset_classes, offset_probabilities

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


class Ranking(NamedTuple):
    """The most probable classes of each pixel, the model's choice first: uint8 and float32 [..., ranks]."""

    classes: jax.Array | np.ndarray
    probabilities: jax.Array | np.ndarray


def probabilities(name: str, scores: jax.Array, logits: bool = True) -> jax.Array:
    """Of the classes of a prediction [..., K]. logits: whether its scores are, or probabilities already."""
    if name == "offset":
        return offset_probabilities(scores)
    return jax.nn.softmax(scores, axis=-1) if logits else scores


def ranking(name: str, scores: jax.Array, ranks: int, logits: bool = True) -> Ranking:
    """Of scores [..., K] the `ranks` most probable classes, or all K where they are fewer."""
    shares = probabilities(name, scores, logits)
    order = shares
    if name == "offset":  # whose boundaries are decided before their directions are
        order = shares + jax.nn.one_hot(offset_classes(scores), shares.shape[-1])
    classes = jax.lax.top_k(order, min(ranks, shares.shape[-1]))[1]
    return Ranking(classes.astype(jnp.uint8), jnp.take_along_axis(shares, classes, axis=-1))
