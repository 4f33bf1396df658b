import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from ovenet_jax.devices.memory import TRAINING_MEMORY, enough_memory
from ovenet_jax.errors import UserError
from ovenet_jax.run.state import TrainState
from ovenet_jax.training.health import FiniteWatch, Pace, watchdog, watched


def steep_step(state, image, label):
    """Goes down by the image; adds the label to the loss."""
    params = {"w": state.params["w"] - image}
    measures = {"loss_total": params["w"] + label, "parameter_norm": jnp.abs(params["w"])}
    momentum, schedule = state.opt_state
    opt_state = (momentum + image, schedule._replace(count=schedule.count + 1))
    return TrainState(state.step + 1, params, {"mean": image}, opt_state), measures


def state(step, w, mean, momentum):
    """After so many steps of a schedule."""
    params, statistics = {"w": jnp.float32(w)}, {"mean": jnp.float32(mean)}
    opt_state = (jnp.float32(momentum), optax.ScaleByScheduleState(jnp.int32(step)))
    return TrainState(jnp.int32(step), params, statistics, opt_state)


BAD = {"loss": (1.0, np.nan), "parameters": (np.inf, 0.0)}


@pytest.mark.parametrize("bad", BAD)
def test_a_skipped_step_changes_nothing_but_the_step_and_the_place_in_the_schedule(bad):
    step = jax.jit(watched(steep_step, "skip"))
    after, measures = step(state(0, w=1, mean=2, momentum=3), *map(jnp.float32, BAD[bad]))
    assert not measures["finite"]
    assert after == state(1, w=1, mean=2, momentum=3)
    after, measures = step(after, jnp.float32(0.5), jnp.float32(0))
    assert measures["finite"]
    assert after == state(2, w=0.5, mean=0.5, momentum=3.5)


def test_a_skipped_step_does_not_count_as_an_update_of_adams_moments():
    def step(state, image, label):
        advanced = optax.tree.set(state.opt_state, count=state.step + 1)
        return state._replace(step=state.step + 1, opt_state=advanced), {"loss_total": label, "parameter_norm": image}

    counters = (optax.ScaleByAdamState(jnp.int32(0), {}, {}), optax.ScaleByScheduleState(jnp.int32(0)))
    before = TrainState(jnp.int32(0), {}, {}, counters)
    after, _ = watched(step, "skip")(before, jnp.float32(1), jnp.float32(np.nan))
    adam, schedule = after.opt_state
    assert (int(adam.count), int(schedule.count)) == (0, 1)


def test_a_finite_step_is_the_same_under_both_policies():
    arguments = (state(0, w=1, mean=2, momentum=3), jnp.float32(0.5), jnp.float32(0))
    skip, stop = (jax.jit(watched(steep_step, policy))(*arguments) for policy in ("skip", "stop"))
    assert skip == stop


def watch(folder, policy="skip", limit=2, first_step=0):
    settings = ConfigDict({"policy": policy, "limit": limit})
    return FiniteWatch(settings, folder, first_step, lambda step: [f"{step}a", f"{step}b"])


def test_a_step_is_looked_at_when_the_next_one_has_begun(tmp_path):
    finite_watch = watch(tmp_path, "stop")
    finite_watch.add(1, jnp.asarray(True))
    finite_watch.add(2, jnp.asarray(False))
    with pytest.raises(UserError, match="not finite at step 2, so training stopped; .*listed in .*non_finite.jsonl"):
        finite_watch.add(3, jnp.asarray(True))
    assert json.loads((tmp_path / "non_finite.jsonl").read_text()) == {"step": 2, "images": ["2a", "2b"]}


def test_the_last_step_is_looked_at_before_it_is_saved(tmp_path):
    finite_watch = watch(tmp_path, "stop")
    finite_watch.add(7, jnp.asarray(False))
    with pytest.raises(UserError, match="not finite at step 7"):
        finite_watch.check()


def test_only_so_many_steps_of_a_run_are_skipped_however_often_it_is_resumed(tmp_path, capsys):
    finite_watch = watch(tmp_path)
    for step in (1, 2, 3):
        finite_watch.add(step, jnp.asarray(step != 2))
    assert "not finite at step 2; its update is left out, 1 of at most 2 times" in capsys.readouterr().out
    finite_watch.add(4, jnp.asarray(False))
    finite_watch.check()

    resumed = watch(tmp_path, first_step=3)  # step 4 was not saved, and comes again
    resumed.add(4, jnp.asarray(False))
    resumed.add(5, jnp.asarray(False))
    with pytest.raises(UserError, match="at step 5; that makes 3 such steps, and config.non_finite.limit is 2, so"):
        resumed.check()
    lines = [json.loads(line) for line in (tmp_path / "non_finite.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]


def test_a_step_far_above_the_median_is_named(capsys):
    pace = Pace()
    for step in range(1, 21):
        pace.add(step, seconds=0.4, waiting=0.1)
    for step, seconds, waiting in ((21, 1.9, 0.0), (22, 2.1, 0.0), (23, 9.0, 8.0)):
        pace.add(step, seconds, waiting)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Warning: step 22 took 2.1 s (usually 0.40 s)")


def test_short_steps_may_vary(capsys):
    pace = Pace()
    for step in range(1, 31):
        pace.add(step, seconds=0.9 if step == 30 else 0.01, waiting=0.0)
    assert not capsys.readouterr().out


def test_a_run_that_is_stuck_says_where(capsys):
    with watchdog(patience=0.05) as waits_for:
        waits_for("")
        time.sleep(0.2)
        assert not capsys.readouterr().out
        waits_for("the data of step 3")
        time.sleep(0.2)
    out = capsys.readouterr().out
    assert out.startswith("Warning: no progress for 0.05 s, waiting for the data of step 3.")


def test_too_little_memory_is_told_with_what_helps():
    keys = "config.batch_size .* config.augment.crop.* config.rematerialise, .* config.accumulate"
    with pytest.raises(UserError, match=f"too little memory .*{keys}"), enough_memory(TRAINING_MEMORY):
        jnp.zeros(1 << 50, jnp.uint8).block_until_ready()


def test_another_error_of_the_devices_is_left_as_it_is():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), enough_memory(TRAINING_MEMORY):
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault")
