"""Layers computed twice: the same numbers, in less memory.

Left to itself, XLA's CPU compiler finds that they are the same and computes them once. Without the pass that lets it,
its programs are of the kind that GPUs get.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovenet_jax.models import parameters
from ovenet_jax.models.hrnet import Stage, Trunk
from ovenet_jax.models.layers import InitialValues
from ovenet_jax.models.resnet import Layer, Layers
from tests.float64 import float64

COMPUTES_TWICE = {"xla_disable_hlo_passes": "cse_barrier_expander"}
SIDES = (32, 16)
PARTS = {
    "hrnet": lambda init: Trunk((4,) * 2, [Stage(2, (1,) * 3, (4,) * 3)], align_corners=True, init=init),
    "resnet": lambda init: Layers(4, [Layer(2, 2, (1, 1, 1))], init=init),
}


@pytest.mark.parametrize("kind", PARTS)
def test_gradients_and_statistics_are_the_same_and_memory_is_less(kind):
    """In float64, to rounding: XLA adds up the sums of two programs in two orders."""
    part = PARTS[kind](InitialValues(0, he=True))
    part.train()
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, side, side, 4)) for side in SIDES]
    results, memory = [], []
    for rematerialise in (False, True):
        part.set_attributes(rematerialise=rematerialise)
        graphdef, *arrays = parameters.split(part)

        def loss(params, statistics, maps, graphdef=graphdef):
            network = parameters.merge(graphdef, params, statistics)
            outputs = network(maps if kind == "hrnet" else maps[0])
            total = sum(jnp.square(x).mean() for x in jax.tree.leaves(outputs))
            return total, parameters.statistics_of(network)

        with float64():
            arrays = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (*arrays, maps))
            program = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arrays).compile(COMPUTES_TWICE)
            results.append(jax.device_get(program(*arrays)))
        memory.append(program.memory_analysis().temp_size_in_bytes)
    ((loss, statistics), gradients), ((loss_again, statistics_again), gradients_again) = results
    np.testing.assert_allclose(loss_again, loss, rtol=1e-13)
    for one, again in ((statistics, statistics_again), (gradients, gradients_again)):
        scale = max(np.abs(value).max() for value in one.values())
        for name, value in one.items():
            np.testing.assert_allclose(again[name], value, rtol=1e-12, atol=1e-13 * scale, err_msg=name)
    for name, value in statistics.items():  # they do not start as they are now
        assert (value != float(name.endswith("var"))).all(), name
    assert memory[1] < 0.8 * memory[0]
