"""Checkpoints by Orbax: the latest one to resume from, the best one by mIoU to evaluate."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_manager, checkpoint_managers

from ovenet_jax import files
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.run.state import TrainState

# Each array is written from one device. Shared out among those that hold a copy, every shape of array would need a
# program of its own to be cut, compiled at the first save: hundreds.
ocp.type_handlers.register_type_handler(
    jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False), override=True
)


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
        self._manager = _open(folder, read_only)

    def save(self, state: TrainState, collected: Any = ()) -> None:
        """Starts saving `state` under its step, and with it what has been `collected` for the next report.

        Waits for the save before. If that or this one fails for want of space or rights, it says so and leaves the
        checkpoints that were complete before.
        """
        self.wait()
        self._saving = int(state.step)
        self._warn(self._start(**_items(state, collected)))

    def save_model(self, params: Arrays, statistics: Arrays) -> None:
        """Saves a network that nothing has trained here, under step 0. Raises UserError where it cannot."""
        self._warn(self._start(model={"params": params, "statistics": statistics}))
        self.check_saved(0)

    def wait(self) -> None:
        """Waits for a save under way; says so if it fails for want of space or rights."""
        self._warn(_storage_error(self._manager.wait_until_finished))

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
        if step not in self._manager.all_steps():
            return
        name = checkpoint_manager.METRIC_ITEM_NAME  # where Orbax itself would write and does read it
        temporary = self.folder / str(step) / f"{name}.tmp"

        def write() -> None:
            temporary.mkdir(exist_ok=True)
            files.write_json(temporary / name, {"miou": miou})
            temporary.replace(temporary.with_name(name))

        error = _storage_error(write) if jax.process_index() == 0 else ""
        if error:
            print(
                f"Warning: the mIoU of step {step} could not be written in {self.folder} ({error}), so it cannot be "
                f"the best; free space.",
                flush=True,
            )
        parallel.gather(None)  # all wait for process 0
        self._manager.reload()

    def is_scored(self, step: int) -> bool:
        """Whether the saved `step` has been evaluated to the end."""
        return self._manager.metrics(step) is not None

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def step_of(self, which: str = "best") -> int:
        """The step of the "latest" checkpoint, or of the "best" evaluated one, where there is none also the latest.

        Raises:
          UserError: another word, or no checkpoint.
        """
        if which not in ("best", "latest"):
            raise UserError(f"config.eval.checkpoint is {which!r}; it must be 'best' or 'latest'.")
        latest, best = self.latest_step(), self._manager.best_step()
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
        damaged = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            restored, error = None, ""
            try:
                restored = self._restore_state(step, like, collected)
            except (UserError, jax.errors.JaxRuntimeError):
                raise
            except Exception as problem:  # Orbax raises plain Exceptions for damaged files
                error = repr(problem)[:200]
            if any(parallel.gather(error)):
                damaged[step] = error
                continue
            self._set_aside(damaged)
            return restored
        if damaged:
            raise UserError(
                f"No checkpoint in {self.folder} can be read ({damaged}); restore them from a copy, or choose another "
                f"--workdir."
            )
        return None

    def restore_model(self, step: int, params: Arrays, statistics: Arrays) -> tuple[Arrays, Arrays]:
        """Parameters and statistics of `step`, with the shapes and shardings of these."""
        try:
            model = self._restore(step, "model", {"params": params, "statistics": statistics})
        except (UserError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:  # Orbax raises plain Exceptions for damaged files
            raise UserError(
                f"Checkpoint {step} in {self.folder} cannot be read ({repr(error)[:200]}); choose another by "
                f"config.eval.checkpoint ('best' or 'latest')."
            ) from error
        return model["params"], model["statistics"]

    def close(self) -> None:
        """Waits for a save under way. Asks no other process, which may be elsewhere when this one fails."""
        error = _storage_error(self._manager.close)
        if error:
            print(self._not_saved(error), flush=True)

    def _start(self, **items: dict) -> str:
        """Starts saving in all processes or in none; returns what is wrong where it cannot."""
        needed = sum(x.nbytes for x in jax.tree.leaves(items))
        free = min(parallel.gather(shutil.disk_usage(self.folder).free))
        if free < needed:  # said here in a sentence, and by Orbax in a thousand lines
            return f"{needed >> 20} MiB are needed and {free >> 20} MiB free"
        args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        save = partial(self._manager.save, self._saving, args=ocp.args.Composite(**args), force=True)
        return _storage_error(save)

    def _warn(self, error: str) -> None:
        errors = [text for text in parallel.gather(error) if text]
        if not errors:
            return
        if jax.process_index() == 0:
            print(self._not_saved(errors[0]), flush=True)
        self._manager = _open(self.folder)  # cleans away the half of it

    def _not_saved(self, error: str) -> str:
        return (
            f"Warning: step {self._saving} could not be saved in {self.folder} ({error}); free space: the next "
            f"checkpoint is tried in its time."
        )

    def _set_aside(self, damaged: dict[int, str]) -> None:
        for step, error in damaged.items():
            if jax.process_index() == 0:
                print(
                    f"Warning: checkpoint {step} in {self.folder} cannot be read ({error}); it is renamed to "
                    f"{step}.damaged, and the one before is used."
                )
                target = self.folder / f"{step}.damaged"
                shutil.rmtree(target, ignore_errors=True)
                (self.folder / str(step)).rename(target)
        if damaged:
            parallel.gather(None)  # all wait for process 0
            self._manager.reload()

    def _restore_state(self, step: int, like: TrainState, collected: Any) -> tuple[TrainState, Any]:
        items = _items(like, collected)
        saved = self._manager.item_metadata(step)["training"]["collected"]
        same_measures = _shapes(saved) == _shapes(collected)
        if not same_measures:  # another version of the code collected them
            everywhere = like.step.sharding
            items["training"]["collected"] = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), saved
            )
            if jax.process_index() == 0:
                print(
                    f"Note: checkpoint {step} holds averages of other measures, of another version; they start anew."
                )
        restored = {name: self._restore(step, name, item) for name, item in items.items()}
        model, training = restored["model"], restored["training"]
        restored_collected = training.pop("collected")
        ema = (model["params"], model["statistics"]) if like.ema else None
        state = TrainState(**model | training, ema=ema)
        return state, restored_collected if same_measures else collected

    def _restore(self, step: int, item: str, like: dict) -> dict:
        if item == "model":
            self._check_same_model(step, like)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        return self._manager.restore(
            step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)})
        )[item]

    def _check_same_model(self, step: int, like: dict) -> None:
        metadata = self._manager.item_metadata(step)["model"]
        saved, ours = _shapes(metadata), _shapes(like)
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


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a state, or of what Orbax knows of a saved one, by the names that lead to it."""
    return {
        jax.tree_util.keystr(path, simple=True, separator=" "): tuple(x.shape)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def _items(state: TrainState, collected: Any) -> dict[str, dict]:
    """What a checkpoint of `state` holds."""
    params, statistics = state.evaluated
    training = {"step": state.step, "opt_state": state.opt_state, "collected": collected}
    if state.ema:
        training |= {"params": state.params, "statistics": state.statistics}
    return {"model": {"params": params, "statistics": statistics}, "training": training}


def _open(folder: Path, read_only: bool = False) -> ocp.CheckpointManager:
    def miou(metrics: dict) -> float:
        return metrics["miou"]

    best = checkpoint_managers.BestN(
        get_metric_fn=miou, n=1, reverse=False, keep_checkpoints_without_metrics=False
    )
    return ocp.CheckpointManager(
        folder.absolute(),
        item_handlers={item: ocp.StandardCheckpointHandler() for item in ("model", "training")},
        options=ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [checkpoint_managers.LatestN(2), best]
            ),
            best_fn=miou,
            best_mode="max",
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        ),
    )


def _storage_error(act: Callable[[], Any]) -> str:
    """What is wrong with the files that `act` writes, itself or by Orbax' threads; "" if nothing is."""
    try:
        act()
    except Exception as error:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        if "os_error_code" in str(error):  # so TensorStore, which writes Orbax' arrays, marks them
            return str(error)[-200:]
        raise
    return ""
