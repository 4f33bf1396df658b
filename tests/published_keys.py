"""State dicts in published form, made from our own arrays, written and loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.weights.published_keys import state_dict
from ovenet_jax.weights.torch_weights import fill


def arrays_of(model: nnx.Module) -> dict[str, np.ndarray]:
    """Parameters and statistics by name."""
    _, params, statistics = parameters.split(model)
    return params | statistics


def trained(model: ConfigDict) -> dict[str, np.ndarray]:
    """Arrays of the network of `config.model` that no initialisation gives."""
    rng = np.random.default_rng(0)
    arrays = arrays_of(create_model(model))
    return {name: rng.uniform(0.1, 2, value.shape).astype(np.float32) for name, value in arrays.items()}


def assert_same(arrays: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)


def published(arrays: Mapping[str, np.ndarray], model: ConfigDict, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of the network of `config.model` as a training script of its code base saves them."""
    return {prefix + key: value for key, value in state_dict(model, arrays, steps=7).items()}


def write_pth(file: Path, state_dict: Mapping[str, np.ndarray], **others: Any) -> Path:
    """The state dict as PyTorch saves it; with others, as an entry of a training checkpoint beside them."""
    import torch

    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state_dict.items()}
    torch.save({**others, "state_dict": tensors} if others else tensors, file)
    return file


def load_state_dict(model: nnx.Module, published_dict: Mapping[str, np.ndarray], source: str) -> nnx.Module:
    """`model` with every parameter and statistic taken from a `published_dict` (read from `source`)."""
    graphdef, params, statistics = parameters.split(model)
    arrays = fill(params | statistics, published_dict, source)
    return parameters.merge(
        graphdef, {name: arrays[name] for name in params}, {name: arrays[name] for name in statistics}
    )
