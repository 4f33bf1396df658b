"""State dicts in published form, made from our own arrays, and loaded."""

from collections.abc import Mapping

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from ovenet_jax.models import parameters
from ovenet_jax.weights.published_keys import state_dict
from ovenet_jax.weights.torch_weights import fill


def published(arrays: Mapping[str, np.ndarray], model: ConfigDict, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of the network of `config.model` as a training script of its code base saves them."""
    return {prefix + key: value for key, value in state_dict(model, arrays, steps=7).items()}


def load_state_dict(model: nnx.Module, published_dict: Mapping[str, np.ndarray], source: str) -> nnx.Module:
    """`model` with every parameter and statistic taken from a `published_dict` (read from `source`)."""
    graphdef, params, statistics = parameters.split(model)
    arrays = fill(params | statistics, published_dict, source)
    return parameters.merge(
        graphdef, {name: arrays[name] for name in params}, {name: arrays[name] for name in statistics}
    )
