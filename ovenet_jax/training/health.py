"""A sick run says so: steps that are not finite, that take too long or never end; devices with too little memory."""

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Event, Thread

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.run.state import TrainState
from ovenet_jax.run.summaries import JsonLines

Measures = dict[str, jax.Array]
Step = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Measures]]

POLICIES = ("stop", "skip")
SLOW, ENOUGH_STEPS = 5, 20  # times the median; steps that make one


def watched(step_function: Step, policy: str) -> Step:
    """`step_function` with one more measure, `finite`: whether its loss and all parameters after it are.

    Under the policy "skip", a step that is not finite changes nothing of the state but the step itself, and with it
    the place in the schedule, which optax counts by itself.
    """

    def train_step(state, image, label):
        after, measures = step_function(state, image, label)
        finite = jnp.isfinite(measures["loss_total"]) & jnp.isfinite(measures["parameter_norm"])
        if policy == "skip":
            kept = jax.tree.map(partial(jnp.where, finite), after, state)
            opt_state = optax.tree.set(kept.opt_state, count=after.step)
            after = kept._replace(step=after.step, opt_state=opt_state)
        return after, measures | {"finite": finite}

    return train_step


class FiniteWatch:
    """Hears of each step whether it was finite; writes those that were not, with their images, to non_finite.jsonl.

    Then `settings.policy` says what happens: "stop", or "skip" for at most `settings.limit` steps of a run.
    """

    def __init__(self, settings: ConfigDict, folder: Path, first_step: int, images: Callable[..., Sequence[str]]):
        self._settings, self._images = settings, images
        file, others = folder / "non_finite.jsonl", jax.process_index() > 0
        self._file = JsonLines(file, keep=lambda line: line["step"] <= first_step, read_only=others)
        self._pending: tuple[int, jax.Array] | None = None

    def add(self, step: int, finite: jax.Array) -> None:
        """Looks at the step before, which it waits for: the host works one step ahead of the devices, no more. Raises
        UserError where that was not finite, and the run is to stop."""
        self.check()
        self._pending = step, finite

    def check(self) -> None:
        """As `add`, of the last step too; to be called before anything is reported or saved."""
        if self._pending is None:
            return
        (step, finite), self._pending = self._pending, None
        if finite:
            return
        self._file.append({"step": step, "images": self._images(step=step)})
        count, limit = self._file.count, self._settings.limit
        happened, named = (f"oss or parameters were not finite at step {step}", f"{self._file.path} names the images")
        stopped = f"so training stopped; what was saved before is kept. {named} of such steps"
        if self._settings.policy == "stop":
            raise UserError(
                f"L{happened}, {stopped}: look for odd ones, lower config.optimizer.rate in another --workdir, or go "
                f"on without such steps by --config.non_finite.policy=skip."
            )
        if count > limit:
            number = f"such step number {count}, and config.non_finite.limit is {limit}"
            raise UserError(f"L{happened}, {number}, {stopped}.")
        left_out = f"whose update is left out; {count} of at most {limit} such steps"
        parallel.say(f"Warning: l{happened}, {left_out}. {named}.")


class Pace:
    """Says which step took far longer than usual: five times the median of the last hundred, and over a second."""

    def __init__(self):
        self._recent: deque[float] = deque(maxlen=100)

    def add(self, step: int, seconds: float, waiting: float) -> None:
        """`seconds` from the step before to this one, `waiting` of them for data."""
        if len(self._recent) >= ENOUGH_STEPS:
            usual = statistics.median(self._recent)
            if seconds - waiting > max(1.0, SLOW * usual):
                took = f"step {step} took {seconds - waiting:.1f} s where {usual:.2f} s are usual"
                helps = "see whether something else uses the devices or a machine is failing"
                print(f"Warning: {took}; {helps}.", flush=True)
        self._recent.append(seconds)


class Watchdog:
    """Within its `with`, says what the run has been waiting for whenever that takes longer than `patience` seconds."""

    def __init__(self, patience: float = 300.0):
        self._patience, self._waiting_for, self._over = patience, "", False
        self._sign = Event()
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    def sign(self, waiting_for: str) -> None:
        """A sign of life, and what comes next; "" for what may take its time."""
        self._waiting_for = waiting_for
        self._sign.set()

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over = True
        self._sign.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over:
            if self._sign.wait(self._patience):
                self._sign.clear()
            elif self._waiting_for:
                since = f"no sign of life for {self._patience:g} s"
                print(f"Warning: {since}, waiting for {self._waiting_for}.", flush=True)
