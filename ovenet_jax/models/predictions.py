"""The names of all models' predictions, and the order in which they are shown."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Value = TypeVar("Value")

TITLES = {"main": "prediction", "initial": "initial S_i", "seed": "seed S_s", "fused": "fused S_f", "offset": "offsets"}


def in_order(by_name: Mapping[str, Value]) -> dict[str, Value]:
    """The same dict in the order of TITLES: jax.jit returns dicts sorted by key."""
    return {name: by_name[name] for name in sorted(by_name, key=list(TITLES).index)}


class Ranking(NamedTuple):
    """The most probable classes of each pixel, the predicted class first: uint8 and float32 [..., ranks]."""

    classes: jax.Array | np.ndarray
    probabilities: jax.Array | np.ndarray


def ranking(probabilities: jax.Array, class_map: jax.Array, ranks: int) -> Ranking:
    """The `ranks` (at most K) most probable classes of `probabilities` [..., K], the class of `class_map` [...] first:
    it need not be the most probable for SegFix, which decides on boundaries before directions."""
    count = probabilities.shape[-1]
    order = probabilities + jax.nn.one_hot(class_map, count)
    classes = jax.lax.top_k(order, min(ranks, count))[1]
    return Ranking(classes.astype(jnp.uint8), jnp.take_along_axis(probabilities, classes, axis=-1))
