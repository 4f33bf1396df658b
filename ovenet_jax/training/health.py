"""Run monitoring: steps that are not finite, slow steps, stalls."""

import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.run.state import TrainState
from ovenet_jax.run.summaries import JsonLines

Step = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]

SLOW_FACTOR, STEPS_OF_MEDIAN = 5, 20  # slow: above such a multiple of the median, which takes so many steps


def watched(step_function: Step, policy: str) -> Step:
    """`step_function` with one more measure, `finite`: whether the loss and the updated parameters are finite.

    Under the policy "skip", a step that is not finite only advances the step counters of the state and of optax's
    schedule.
    """

    def train_step(state, image, label):
        after, measures = step_function(state, image, label)
        finite = jnp.isfinite(measures["loss_total"]) & jnp.isfinite(measures["parameter_norm"])
        if policy == "skip":
            kept = jax.tree.map(partial(jnp.where, finite), after, state)
            opt_state = optax.tree.set(kept.opt_state, _is_of_a_schedule, count=after.step)
            after = kept._replace(step=after.step, opt_state=opt_state)
        return after, measures | {"finite": finite}

    return train_step


def _is_of_a_schedule(path: tuple, _: object) -> bool:
    """Whether this is the counter of a schedule; Adam's own counts the updates of its moments."""
    return getattr(path[-1], "tuple_name", "") == optax.ScaleByScheduleState.__name__


class FiniteWatch:
    """Checks of each step whether it was finite; writes those that were not, with their images, to non_finite.jsonl.

    Then `settings.policy` decides: "stop", or "skip" for at most `settings.limit` steps of a run.
    """

    def __init__(self, settings: ConfigDict, folder: Path, first_step: int, images: Callable[..., Sequence[str]]):
        self._settings, self._images = settings, images
        file, others = folder / "non_finite.jsonl", jax.process_index() > 0
        self.file = JsonLines(file, keep=lambda line: line["step"] <= first_step, read_only=others)
        self._pending: tuple[int, jax.Array] | None = None

    def add(self, step: int, finite: jax.Array) -> None:
        """Checks the previous step, for which it waits, so that the host is at most one step ahead of the devices.
        Raises UserError where that was not finite, and the run is to stop."""
        self.check()
        self._pending = step, finite

    def check(self) -> None:
        """Checks the last step too; to be called before anything is reported or saved. Raises UserError as `add`."""
        if self._pending is None:
            return
        (step, finite), self._pending = self._pending, None
        if finite:
            return
        self.file.append({"step": step, "images": self._images(step=step)})
        fault = f"The loss or the parameters were not finite at step {step}"
        stopped = "so training stopped; saved checkpoints are kept"
        remedy = f"Check the images of such steps, listed in {self.file.path}"
        if self._settings.policy == "stop":
            others = "lower config.optimizer.rate in another --workdir, or skip such steps by"
            raise UserError(f"{fault}, {stopped}. {remedy}, {others} --config.non_finite.policy=skip.")
        count, limit = self.file.count, self._settings.limit
        if count > limit:
            number = f"that makes {count} such steps, and config.non_finite.limit is {limit}"
            raise UserError(f"{fault}; {number}, {stopped}. {remedy}.")
        parallel.say(f"Warning: {fault}; its update is left out, {count} of at most {limit} times. {remedy}.")


class Pace:
    """Warns of slow steps: over five times the median of the last hundred, and over a second."""

    def __init__(self):
        self._recent: deque[float] = deque(maxlen=100)

    def add(self, step: int, seconds: float, waiting: float) -> None:
        """`seconds` since the previous step, `waiting` of them for data."""
        if len(self._recent) >= STEPS_OF_MEDIAN:
            usual = statistics.median(self._recent)
            if seconds - waiting > max(1.0, SLOW_FACTOR * usual):
                took = f"step {step} took {seconds - waiting:.1f} s (usually {usual:.2f} s)"
                print(f"Warning: {took}; check for other jobs on the devices or a failing machine.", flush=True)
        self._recent.append(seconds)


@contextmanager
def watchdog(patience: float = 300.0) -> Iterator[Callable[[str], None]]:
    """Yields a function to call with what the run waits for next ("": something that may take long). Within the `with`,
    warns whenever it has not been called for `patience` seconds."""
    told: SimpleQueue[str | None] = SimpleQueue()

    def watch() -> None:
        waiting_for: str | None = ""
        while waiting_for is not None:
            try:
                waiting_for = told.get(timeout=patience)
            except Empty:
                if waiting_for:
                    print(f"Warning: no progress for {patience:g} s, waiting for {waiting_for}.", flush=True)

    thread = Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield told.put
    finally:
        told.put(None)
        thread.join()
