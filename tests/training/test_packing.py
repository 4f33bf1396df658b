from functools import partial

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from ovenet_jax.devices import parallel
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run.state import TrainState, init_state
from ovenet_jax.training.optimizer import create_optimizer
from ovenet_jax.training.packing import ARRAYS_PER_VECTOR, Packing
from tests.steps import step_of
from tests.tiny_step import batch, config, small_model

KERNEL = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)
PARAMS = {
    "backbone.conv.kernel": KERNEL,
    "backbone.norm.scale": np.full(4, 7.0, np.float32),
    "backbone.other.kernel": KERNEL[:1, :1] + 100,
    "head.conv.kernel": KERNEL + 200,
}
PLATFORMS = pytest.mark.parametrize("platform", ["cpu", "cuda"])


def packing_of(params, platform="cuda"):
    return Packing(TrainState(np.zeros((), int), params, {}, ()), platform)


def shapes(vectors):
    return {name: x.shape for name, x in vectors.items()}


def test_vectors_are_named_by_part_and_kind():
    scale, head = {"backbone.scale.0": (4,)}, {"head.kernel.0": (48,)}
    together, alone = ({"backbone.kernel.0": (48 + 12,)}, {"backbone.kernel.0": (48,), "backbone.kernel.1": (12,)})
    assert shapes(packing_of(PARAMS, "cuda").pack(PARAMS)) == {**together, **scale, **head}
    assert shapes(packing_of(PARAMS, "cpu").pack(PARAMS)) == {**alone, **scale, **head}


def test_a_kernel_is_stored_as_gpus_convolve_with_it():
    vector = packing_of(PARAMS).pack(PARAMS)["head.kernel.0"]
    np.testing.assert_array_equal(vector[:12].reshape(2, 2, 3), KERNEL[..., 0] + 200)


@PLATFORMS
@pytest.mark.parametrize("wrapped", [lambda function: function, jax.jit], ids=["numpy", "jit"])
def test_unpacking_gives_back_what_was_packed(platform, wrapped):
    packing = packing_of(PARAMS, platform)
    step, unpacked = wrapped(packing.unpack)(wrapped(packing.pack)((np.ones(()), PARAMS)))
    assert step == 1
    assert unpacked.keys() == PARAMS.keys()
    for name, x in PARAMS.items():
        np.testing.assert_array_equal(unpacked[name], x, err_msg=name)


def test_some_parts_are_packed_by_themselves():
    head = {"head.conv.kernel": PARAMS["head.conv.kernel"]}
    assert packing_of(PARAMS).pack(head).keys() == {"head.kernel.0"}


def test_many_arrays_are_spread_over_vectors():
    arrays = {f"head.{i}.bias": np.full(1, i) for i in range(ARRAYS_PER_VECTOR + 2)}
    assert [x.size for x in packing_of(arrays).pack(arrays).values()] == [ARRAYS_PER_VECTOR, 2]


def test_what_was_unpacked_stays_when_a_step_overwrites_the_vectors():
    mesh, packing = parallel.create_mesh(), packing_of(PARAMS, "cpu")
    vectors = parallel.replicate(mesh, packing.pack(PARAMS))
    kept = packing.by_name(mesh, vectors)
    jax.jit(partial(jax.tree.map, lambda x: x + 1), donate_argnums=0)(vectors)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(kept), PARAMS)


@PLATFORMS
def test_a_step_on_vectors_is_the_step_on_arrays(platform):
    """With all that an optimizer can be told of parts of the network."""
    settings = config(small_model())
    model = create_model(settings.model)
    optimizer = create_optimizer(
        lambda _: 0.1, momentum=0.9, weight_decay=0.01, head_rate_multiplier=10.0, warmup_steps=3
    )
    before = init_state(model, optimizer, frozen=("head",), ema=0.9)
    packing = Packing(before, platform)

    def step(packing):
        return jax.jit(step_of(settings, model, optimizer, frozen=("head",), ema=0.9, packing=packing))

    after, measures = step(None)(before, **batch(2, 32, 32))
    packed, measures_packed = step(packing)(packing.pack(before), **batch(2, 32, 32))
    unpacked = packing.unpack(jax.device_get(packed))
    assert jax.tree.structure(unpacked) == jax.tree.structure(after)
    jax.tree.map(partial(assert_allclose, rtol=1e-5, atol=1e-6), unpacked, after)
    jax.tree.map(partial(assert_allclose, rtol=1e-5), measures_packed, measures)
    assert any(np.abs(after.params[name] - x).max() > 1e-3 for name, x in before.params.items())
