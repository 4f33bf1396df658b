from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ovenet_jax import parallel
from ovenet_jax.checkpoint import Checkpoints
from ovenet_jax.errors import UserError
from ovenet_jax.step import TrainState

OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def state(step=0, value=1.0, size=3):
    params = {"head.kernel": np.full((2, size), value, np.float32)}
    opt_state = jax.tree.map(lambda x: x + value, OPTIMIZER.init(params))
    state = TrainState(jnp.int32(step), params, {"norm.mean": np.full(size, value, np.float32)}, opt_state)
    return jax.device_put(state, parallel.replicated(parallel.create_mesh()))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def test_the_whole_state_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(5, 2.5))
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 5
    assert_equal(again.restore_state(5, state()), state(5, 2.5))
    params, statistics = again.restore_model(5, state().params, state().statistics)
    assert_equal(params, state(5, 2.5).params)
    assert_equal(statistics, state(5, 2.5).statistics)


def test_the_best_and_the_latest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step, miou in ((1, 0.1), (2, 0.9), (3, 0.3), (4, None)):
        checkpoints.save(state(step), miou)
    checkpoints.close()
    assert steps(tmp_path) == [2, 4]
    again = Checkpoints(tmp_path)
    assert (again.step_of(), again.latest_step()) == (2, 4)


def test_without_an_evaluation_the_latest_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    assert checkpoints.step_of() == 2
    checkpoints.close()


def test_a_model_alone_is_the_best_and_latest_checkpoint(tmp_path):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save_model(state(value=3.0).params, state(value=4.0).statistics)
    with closing(Checkpoints(tmp_path, read_only=True)) as again:
        assert (again.step_of(), again.latest_step()) == (0, 0)
        params, statistics = again.restore_model(0, state().params, state().statistics)
    assert_equal(params, state(value=3.0).params)
    assert_equal(statistics, state(value=4.0).statistics)


def test_what_an_interrupted_save_left_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1, 1.5))
    checkpoints.close()
    (tmp_path / "2.orbax-checkpoint-tmp" / "model").mkdir(parents=True)
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 1
    again.save(state(2))
    again.close()
    assert 2 in steps(tmp_path)


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    checkpoints.close()
    with pytest.raises(UserError, match="Checkpoint 1 in .* is of another model: 2 arrays differ") as error:
        Checkpoints(tmp_path).restore_state(1, state(size=4))
    assert "head.kernel: (2, 3) in the checkpoint, (2, 4) in the config's model" in str(error.value)


def test_averages_are_the_model_and_the_rest_comes_back_beside_them(tmp_path):
    def averaging(step, value, average):
        ema = (state(value=average).params, state(value=average).statistics)
        return state(step, value)._replace(ema=ema)

    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(averaging(5, 2.5, 1.5))
    with closing(Checkpoints(tmp_path)) as again:
        assert_equal(again.restore_state(5, averaging(0, 0.0, 0.0)), averaging(5, 2.5, 1.5))
        params, statistics = again.restore_model(5, state().params, state().statistics)
    assert_equal((params, statistics), averaging(5, 2.5, 1.5).ema)
