"""A model's arrays by name: one flat dict for the parameters, one for the BatchNorm statistics.

A name is the attribute path, "backbone.trunk.stage4.0.branches.1.0.conv1.conv.kernel". Checkpoints, imported
weights, optimizer groups and messages all use these names.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from flax.traverse_util import unflatten_dict

Arrays = dict[str, jax.Array]


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """The model's structure, its parameters and its BatchNorm statistics, by name."""
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    parameters, statistics = map(_by_name, states)
    return graphdef, parameters, statistics


def merge(graphdef: nnx.GraphDef, parameters: Mapping[str, Any], statistics: Mapping[str, Any]) -> nnx.Module:
    """The model of that structure holding these arrays; the inverse of `split`."""
    return nnx.merge(graphdef, _nested(parameters), _nested(statistics))


def statistics_of(model: nnx.Module) -> Arrays:
    """The BatchNorm statistics, by name: what a training step of the model has changed besides its parameters."""
    return _by_name(nnx.state(model, nnx.BatchStat))


def _by_name(state: nnx.State) -> Arrays:
    return {".".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def _nested(arrays: Mapping[str, Any]) -> dict:
    paths = (tuple(int(x) if x.isdigit() else x for x in name.split(".")) for name in arrays)
    return unflatten_dict(dict(zip(paths, arrays.values(), strict=True)))
