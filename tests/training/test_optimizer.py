import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from ovenet_jax.training.optimizer import create_optimizer, poly_schedule


def test_poly_schedule_uses_the_base_rate_twice_and_ends_near_zero():
    schedule = poly_schedule(0.01, 100, power=0.9)
    assert_allclose([schedule(0), schedule(1)], 0.01)
    assert_allclose(schedule(2), 0.01 * 0.99**0.9, rtol=1e-6)
    assert_allclose(schedule(51), 0.01 * 0.5**0.9, rtol=1e-6)
    assert_allclose(schedule(101), 0.0)


def steps(optimizer, params, gradients, count):
    state = optimizer.init(params)
    for _ in range(count):
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_two_steps_of_momentum_and_decay_by_hand():
    optimizer = create_optimizer(lambda _: 0.1, momentum=0.9, weight_decay=0.5)
    params = steps(optimizer, {"norm.bias": jnp.asarray(1.0)}, {"norm.bias": jnp.asarray(2.0)}, 2)
    first = 1.0 - 0.1 * 2.5  # gradient 2 + 0.5 * 1
    second = first - 0.1 * (0.9 * 2.5 + 2 + 0.5 * first)
    assert_allclose(params["norm.bias"], second, rtol=1e-6)


def test_two_steps_of_nesterovs_momentum_by_hand():
    optimizer = create_optimizer(lambda _: 0.1, momentum=0.9, weight_decay=0.0, nesterov=True)
    params = steps(optimizer, {"a": jnp.asarray(1.0)}, {"a": jnp.asarray(2.0)}, 2)
    assert_allclose(params["a"], 1.0 - 0.1 * (2 + 0.9 * 2) - 0.1 * (2 + 0.9 * (0.9 * 2 + 2)), rtol=1e-6)


def test_a_step_of_adamw_and_of_clipped_sgd_by_hand():
    params, gradients = {"a": jnp.asarray(1.0), "b": jnp.asarray(1.0)}, {"a": jnp.asarray(3.0), "b": jnp.asarray(-4.0)}
    adamw = create_optimizer(lambda _: 0.1, momentum=0.9, weight_decay=0.5, name="adamw")
    after = steps(adamw, params, gradients, 1)  # its first step is the sign of the gradient; the decay is 0.1 * 0.5
    assert_allclose([after["a"], after["b"]], [0.85, 1.05], rtol=1e-6)
    clipped = create_optimizer(lambda _: 0.1, momentum=0.9, weight_decay=0.0, clip_norm=1.0)
    after = steps(clipped, params, gradients, 1)
    assert_allclose([after["a"], after["b"]], [1 - 0.1 * 3 / 5, 1 + 0.1 * 4 / 5], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_all_of_the_state_is_0_at_first(name):
    """As run/state.py makes it."""
    options = {"momentum": 0.9, "weight_decay": 0.5, "head_rate_multiplier": 10.0, "warmup_steps": 4, "clip_norm": 1.0}
    optimizer = create_optimizer(poly_schedule(0.1, 10, 0.9), name=name, **options)
    state = optimizer.init({"conv1.kernel": jnp.ones(2), "head.kernel": jnp.ones(3)})
    assert len(jax.tree.leaves(state)) > 2
    assert not any(x.any() for x in jax.tree.leaves(state))


def test_the_rate_multiplier_reaches_the_heads_only():
    optimizer = create_optimizer(lambda _: 0.1, momentum=0.9, weight_decay=0.0, head_rate_multiplier=10.0)
    names = ("backbone.conv1.conv.kernel", "head.classifier.kernel", "offset_head.classifier.output.kernel")
    params = steps(optimizer, dict.fromkeys(names, jnp.asarray(0.0)), dict.fromkeys(names, jnp.asarray(1.0)), 1)
    assert_allclose([params[name] for name in names], [-0.1, -1.0, -1.0], rtol=1e-6)


def test_the_backbones_rate_grows_with_the_fourth_power_and_the_heads_have_theirs_at_once():
    optimizer = create_optimizer(
        lambda _: 0.1, momentum=0.0, weight_decay=0.0, head_rate_multiplier=10.0, warmup_steps=4
    )
    names = ("backbone.conv1.conv.kernel", "offset_trunk.layer4.0.conv1.conv.kernel", "head.classifier.kernel")
    gradients = dict.fromkeys(names, jnp.asarray(1.0))
    state, changes = optimizer.init(gradients), []
    for _ in range(6):
        updates, state = optimizer.update(gradients, state, gradients)
        changes.append([updates[name] for name in names])
    grown = -0.1 * np.array([0.25, 0.5, 0.75, 1, 1, 1]) ** 4
    assert_allclose(changes, np.stack([grown, grown, np.full(6, -1.0)], -1), rtol=1e-6)
