"""Checkpoints of a run: the latest one to resume from, the best one by mIoU to evaluate."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from ovenet_jax import files
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.run.orbax_storage import OrbaxStorage, UnreadableError, shapes_of
from ovenet_jax.run.state import TrainState

ITEMS = ("model", "training")


class Checkpoints:
    """The checkpoints of a run under `folder`: each holds "model", the params and statistics that are evaluated, and
    "training", the rest of the state: where averages are evaluated also the params and statistics that go on training.
    Once it has been evaluated it holds its validation mIoU. An import's only one, of step 0, holds "model" alone.

    Saving is asynchronous. The two latest and the best are kept, older ones are deleted only when a newer one is
    complete; what an interrupted save left behind is ignored and cleaned away. With `read_only` nothing is touched:
    a training may be saving there meanwhile.

    Raises:
      UserError: `folder` does not exist to be read, or cannot be written.
    """

    def __init__(self, folder: Path, read_only: bool = False):
        if read_only and not folder.is_dir():
            raise UserError(f"{folder} does not exist; train first, or check --workdir.")
        self.folder = folder
        self._saving = 0
        if not read_only:
            with parallel.all_or_none(), files.writing(folder, "--workdir"):
                files.make_folder(folder)
                tempfile.TemporaryFile(dir=folder).close()
        self._storage = OrbaxStorage(folder, ITEMS, read_only)

    def save(self, state: TrainState, collected: Any = ()) -> None:
        """Starts saving `state` under its step, and with it what has been `collected` for the next report.

        Waits for the save before. If that or this one fails for want of space or rights, it says so and leaves the
        checkpoints that were complete before.
        """
        self._start(int(state.step), _items(state, collected))

    def save_model(self, params: Mapping[str, Any], statistics: Mapping[str, Any]) -> None:
        """Saves a network that nothing has trained here, under step 0. Raises UserError where it cannot."""
        self._start(0, {"model": {"params": params, "statistics": statistics}})
        self.check_saved(0)

    def wait(self) -> None:
        """Waits for a save under way; says so if it fails for want of space or rights."""
        self._attempt(self._storage.wait)

    def check_saved(self, step: int) -> None:
        """Waits for a save under way. Raises UserError if `step` is not saved now."""
        self.wait()
        latest = self.latest_step()
        if latest != step:
            goes_on = "starts anew" if latest is None else f"goes on from checkpoint {latest}"
            raise UserError(
                f"Step {step} could not be saved in {self.folder}; free space, and the same command {goes_on}."
            )

    def score(self, step: int, miou: float) -> None:
        """Notes the validation mIoU of the saved `step`, by which the best is known; says so if it cannot."""
        self.wait()
        if step not in self._storage.steps():
            return
        if jax.process_index() == 0:
            try:
                self._storage.score(step, miou)
            except OSError as error:
                parallel.say(
                    f"Warning: the mIoU of step {step} could not be written in {self.folder} ({_reason(error)}), so it "
                    f"cannot be the best; free space."
                )
        parallel.barrier()
        self._storage.reload()

    def is_scored(self, step: int) -> bool:
        """Whether the saved `step` has been evaluated to the end."""
        return self._storage.is_scored(step)

    def latest_step(self) -> int | None:
        return max(self._storage.steps(), default=None)

    def step_of(self, which: str = "best") -> int:
        """The step of the "latest" checkpoint, or of the "best" evaluated one, where there is none also the latest.

        Raises:
          UserError: another word, or no checkpoint.
        """
        if which not in ("best", "latest"):
            raise UserError(f"config.eval.checkpoint is {which!r}; it must be 'best' or 'latest'.")
        latest, best = self.latest_step(), self._storage.best_step()
        if latest is None:
            raise UserError(f"{self.folder} holds no checkpoint; train first, or check --workdir.")
        return latest if which == "latest" or best is None else best

    def restore_latest(self, like: TrainState, collected: Any = ()) -> tuple[TrainState, Any] | None:
        """The latest state and what had been collected, shaped and sharded like these; None if nothing is saved.

        Where other measures were collected, by another version of the code, it says so, and these come back as they
        are.
        Checkpoints that cannot be read are renamed to <step>.damaged, which it says, and the one before is the latest.

        Raises:
          UserError: none of them can be read, or they are of another model.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self._storage.steps()):
            restored, error = None, ""
            try:
                restored = self._restore_state(step, like, collected)
            except UnreadableError as problem:
                error = str(problem)
            error = parallel.first_of(error)
            if not error:
                self._set_aside(damaged)
                return restored
            damaged[step] = error
        if damaged:
            raise UserError(
                f"No checkpoint in {self.folder} can be read ({damaged}); restore them from a copy, or choose another "
                f"--workdir."
            )
        return None

    def restore_model(self, step: int, params: Arrays, statistics: Arrays) -> tuple[Arrays, Arrays]:
        """Parameters and statistics of `step`, with the shapes and shardings of these."""
        try:
            model = self._restore_model(step, {"params": params, "statistics": statistics})
        except UnreadableError as error:
            raise UserError(
                f"Checkpoint {step} in {self.folder} cannot be read ({error}); choose another by "
                f"config.eval.checkpoint ('best' or 'latest')."
            ) from error
        return model["params"], model["statistics"]

    def close(self) -> None:
        """Waits for a save under way. Asks no other process, which may be elsewhere when this one fails."""
        try:
            self._storage.close()
        except OSError as error:
            print(self._not_saved(_reason(error)), flush=True)

    def _start(self, step: int, items: dict[str, dict]) -> None:
        """Starts saving in all processes or in none."""
        self.wait()
        self._saving = step
        needed = sum(x.nbytes for x in jax.tree.leaves(items))
        free = min(parallel.gather(shutil.disk_usage(self.folder).free))
        if free < needed:  # said here in a sentence, and by Orbax in a thousand lines
            self._give_up(f"{needed >> 20} MiB are needed and {free >> 20} MiB free")
        else:
            self._attempt(lambda: self._storage.save(step, items))

    def _attempt(self, act: Callable[[], None]) -> None:
        """Does it in all processes; gives the save up where one of them has no space or rights."""
        error = ""
        try:
            act()
        except OSError as problem:
            error = _reason(problem)
        if error := parallel.first_of(error):
            self._give_up(error)

    def _give_up(self, error: str) -> None:
        parallel.say(self._not_saved(error))
        with suppress(OSError):
            self._storage.close()
        self._storage = OrbaxStorage(self.folder, ITEMS)  # cleans away the half of it

    def _not_saved(self, error: str) -> str:
        return (
            f"Warning: step {self._saving} could not be saved in {self.folder} ({error}); free space: the next "
            f"checkpoint is tried in its time."
        )

    def _set_aside(self, damaged: dict[int, str]) -> None:
        for step, error in damaged.items():
            parallel.say(
                f"Warning: checkpoint {step} in {self.folder} cannot be read ({error}); it is renamed to "
                f"{step}.damaged, and the one before is used."
            )
            if jax.process_index() == 0:
                target = self.folder / f"{step}.damaged"
                shutil.rmtree(target, ignore_errors=True)
                (self.folder / str(step)).rename(target)
        if damaged:
            parallel.barrier()
            self._storage.reload()

    def _restore_state(self, step: int, like: TrainState, collected: Any) -> tuple[TrainState, Any]:
        items = _items(like, collected)
        saved = self._storage.shapes(step, "training")
        measures = {name: shape for name, shape in saved.items() if name.startswith("collected ")}
        same_measures = measures == shapes_of({"collected": collected})
        if not same_measures:
            del items["training"]["collected"]
            parallel.say(
                f"Note: checkpoint {step} holds averages of other measures, of another version; they start anew."
            )
        model = self._restore_model(step, items["model"])
        training = self._storage.restore(step, "training", items["training"])
        collected = training.pop("collected", collected)
        ema = (model["params"], model["statistics"]) if like.ema else None
        return TrainState(**model | training, ema=ema), collected

    def _restore_model(self, step: int, like: dict) -> dict:
        saved, ours = self._storage.shapes(step, "model"), shapes_of(like)
        differences = [
            f"{name}: {saved.get(name, 'absent')} in the checkpoint, {ours.get(name, 'absent')} in the config's model"
            for name in sorted(saved.keys() | ours.keys())
            if saved.get(name) != ours.get(name)
        ]
        if differences:
            raise UserError(
                f"Checkpoint {step} in {self.folder} is of another model: {len(differences)} arrays differ, the first "
                f"being {'; '.join(differences[:3])}; use the config it was trained with, or another --workdir."
            )
        return self._storage.restore(step, "model", like)


def _items(state: TrainState, collected: Any) -> dict[str, dict]:
    """What a checkpoint of `state` holds."""
    params, statistics = state.evaluated
    training = {"step": state.step, "opt_state": state.opt_state, "collected": collected}
    if state.ema:
        training |= {"params": state.params, "statistics": state.statistics}
    return {"model": {"params": params, "statistics": statistics}, "training": training}


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
