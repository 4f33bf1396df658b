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

    def __init__(
        self, settings: ConfigDict, folder: Path, first_step: int, images: Callable[[int], Sequence[str]]
    ):
        self._settings = settings
        self._images = images
        self._file = JsonLines(
            folder / "non_finite.jsonl",
            keep=lambda line: line["step"] <= first_step,
            read_only=jax.process_index() > 0,
        )
        self._pending: tuple[int, jax.Array] | None = None

    def add(self, step: int, finite: jax.Array) -> None:
        """Looks at the step before, which it waits for: the host works one step ahead of the devices, no more.

        Raises:
          UserError: the step before was not finite, and the run is to stop.
        """
        self.check()
        self._pending = step, finite

    def check(self) -> None:
        """Looks at the last step too; to be called before anything is reported or saved.

        Raises:
          UserError: it was not finite, and the run is to stop.
        """
        if self._pending is None:
            return
        (step, finite), self._pending = self._pending, None
        if finite:
            return
        self._file.append({"step": step, "images": self._images(step)})
        count, limit = self._file.count, self._settings.limit
        if self._settings.policy == "stop":
            raise UserError(
                f"Loss or parameters were not finite at step {step}, so training stopped; what was saved before is "
                f"kept. {self._file.path} names the images of that step: look for odd ones, lower "
                f"config.optimizer.rate in another --workdir, or go on without such steps by "
                f"--config.non_finite.policy=skip."
            )
        if count > limit:
            raise UserError(
                f"Loss or parameters were not finite at step {step}, such step number {count}, and "
                f"config.non_finite.limit is {limit}, so training stopped; what was saved before is kept. "
                f"{self._file.path} names the images of these steps."
            )
        parallel.say(
            f"Warning: loss or parameters were not finite at step {step}, whose update is left out; "
            f"{count} of at most {limit} such steps, their images are named in {self._file.path}."
        )


class Pace:
    """Says which step took far longer than usual: five times the median of the last hundred, and over a second."""

    def __init__(self):
        self._recent: deque[float] = deque(maxlen=100)

    def add(self, step: int, seconds: float, waiting: float) -> None:
        """`seconds` from the step before to this one, `waiting` of them for data."""
        if len(self._recent) >= ENOUGH_STEPS:
            usual = statistics.median(self._recent)
            if seconds - waiting > max(1.0, SLOW * usual):
                print(
                    f"Warning: step {step} took {seconds - waiting:.1f} s where {usual:.2f} s are usual; see whether "
                    f"something else uses the devices or a machine is failing.",
                    flush=True,
                )
        self._recent.append(seconds)


class Watchdog:
    """Within its `with`, says what the run has been waiting for whenever that takes longer than `patience` seconds."""

    def __init__(self, patience: float = 300.0):
        self._patience = patience
        self._sign = Event()
        self._waiting_for = ""
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)
        self._over = False

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
                print(
                    f"Warning: no sign of life for {self._patience:g} s, waiting for {self._waiting_for}.",
                    flush=True,
                )
