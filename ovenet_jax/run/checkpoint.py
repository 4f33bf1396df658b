"""Checkpoints of a run: the latest one to resume from, the best one by mIoU to evaluate."""

import errno
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_manager, checkpoint_managers

from ovenet_jax import files, tables
from ovenet_jax.devices import parallel
from ovenet_jax.errors import EXIT_INTERRUPTED, UserError, cause_of, errno_of
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.run import checksums, workdir
from ovenet_jax.run.state import TrainState

NOT_IN_PATHS = "*?[\\"  # Orbax looks for files by patterns, TensorStore takes a backslash for a slash
SCORE = checkpoint_manager.METRIC_ITEM_NAME
RANK = itemgetter("miou", "minus_step")  # of metrics; the best is the earliest of those with the highest mIoU


class Checkpoints:
    """The checkpoints of a run under `folder`. Each holds "model", the params and statistics to evaluate (with moving
    averages: these), and "training", the rest of the state. After its evaluation the validation mIoU is added. An
    import has one checkpoint, of step 0, with "model" only.

    Saving is asynchronous; a checkpoint is complete when its checksums are computed from its files and all is flushed
    to the disk. The `keep` latest and the best are kept, older ones are deleted only when a newer one is complete;
    leftovers of interrupted saves are removed. With `read_only` nothing changes, except that damaged checkpoints are
    renamed if no other process holds the run's folder. held: this one holds it. All processes call the same methods.
    Raises UserError: `folder` does not exist (`read_only`), or cannot be written.
    """

    def __init__(self, folder: Path, read_only: bool = False, keep: int = 2, held: bool = False):
        self._held = held or not read_only
        self.folder, self._read_only, self._keep, self._saving, self._failure = folder, read_only, keep, 0, ""
        if read_only and not folder.is_dir():
            raise UserError(f"{folder} does not exist; train first, or check --workdir.")
        if not read_only:
            if invalid := sorted(set(str(folder.absolute())) & set(NOT_IN_PATHS)):
                fault = f"contains {' '.join(invalid)}, so that checkpoints could be written but not read"
                raise UserError(f"{folder.absolute()} {fault}; choose another --workdir.")
            with parallel.all_or_none(), files.writing(folder, "--workdir"):
                files.make_folder(folder)
                tempfile.TemporaryFile(dir=folder).close()
        self._manager = self._open()

    def _open(self) -> "_Manager":
        best = checkpoint_managers.BestN(get_metric_fn=RANK, n=1, keep_checkpoints_without_metrics=False)
        kept = checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(self._keep), best])
        # asynchronously, Orbax would wait for minutes for a directory that cannot be created
        saving = ocp.AsyncOptions(post_finalization_callback=self._seal, create_directories_asynchronously=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=kept, cleanup_tmp_directories=not self._read_only, async_options=saving
        )
        handlers = {item: _tree_handler() for item in ("model", "training")}
        return _Manager(self.folder.absolute(), item_handlers=handlers, options=options)

    # ---- saving ----

    def save(self, state: TrainState, collected: Any = ()) -> None:
        """Starts saving `state` under its step, with the averages `collected` for the next report.

        Waits for the previous save. Warns if saving fails (disk full or not writable); complete checkpoints stay as
        they are.
        """
        self._start(int(state.step), _items(state, collected))

    def save_model(self, params: Mapping[str, Any], statistics: Mapping[str, Any]) -> None:
        """Saves an imported network as step 0. Raises UserError where it cannot."""
        self._start(0, {"model": {"params": params, "statistics": statistics}})
        self.check_saved(0)

    def wait(self) -> None:
        """Waits for a save under way; warns if it fails (disk full or not writable)."""
        self._attempt(self._manager.wait_until_finished)
        self._attempt(partial(files.flush, self.folder))

    def check_saved(self, step: int) -> None:
        """Waits for a save under way. Raises UserError if `step` has not been saved."""
        self.wait()
        if (latest := self.latest_step()) != step:
            goes_on = "starts anew" if latest is None else f"goes on from checkpoint {latest}"
            fault = f"Step {step} could not be saved in {self.folder} ({self._failure})"
            raise UserError(f"{fault}; after that the same command {goes_on}.", EXIT_INTERRUPTED)

    def close(self) -> None:
        """Waits for a save under way, but not for other processes, which may still be training when this one fails."""
        if error := _failure_of(self._manager.close):
            print(self._not_saved(error), flush=True)

    def _start(self, step: int, items: dict[str, dict]) -> None:
        """Starts saving in all processes or in none."""
        self.wait()
        self._saving = step
        needed = sum(x.nbytes for x in jax.tree.leaves(items))
        free = min(parallel.gather(shutil.disk_usage(self.folder).free))
        if free < needed:  # a sentence instead of Orbax's thousand lines
            self._give_up(f"{needed >> 20} MiB are needed and {free >> 20} MiB are free: free space")
        else:
            args = ocp.args.Composite(**{name: ocp.args.PyTreeSave(item) for name, item in items.items()})
            self._attempt(lambda: self._manager.save(step, args=args, force=True))

    def _attempt(self, act: Callable[[], Any]) -> None:
        """Calls `act` in all processes; gives the save up if it fails in one of them."""
        if error := parallel.first_of(_failure_of(act)):
            self._give_up(error)

    def _give_up(self, error: str) -> None:
        self._failure = error
        parallel.say(self._not_saved(error))
        _failure_of(self._manager.close)
        self._manager = self._open()  # removes the unfinished checkpoint

    def _not_saved(self, error: str) -> str:
        return f"Warning: step {self._saving} could not be saved in {self.folder} ({error}); earlier ones are kept."

    def _seal(self) -> None:
        """Writes checksums before Orbax renames the finished step; in a background thread of one process."""
        unfinished = next(self.folder.glob(f"{self._saving}.orbax*"))
        checksums.write(unfinished)
        files.flush_all(unfinished)

    # ---- which there are ----

    def score(self, step: int, miou: float) -> None:
        """Adds the validation mIoU, which selects the best, to the saved `step`; warns if it cannot."""
        self.wait()
        if step not in self._manager.all_steps():
            return
        file = self.folder / str(step) / SCORE / SCORE  # where Orbax reads it
        if jax.process_index() == 0 and (error := _failure_of(files.write_json, file, {"miou": miou})):
            fault = f"the mIoU of step {step} could not be written in {self.folder} ({error})"
            parallel.say(f"Warning: {fault}, so it cannot become the best.")
        parallel.barrier()
        self._manager.reload()

    def is_scored(self, step: int) -> bool:
        """Whether the saved `step` has been evaluated to the end."""
        return self._manager.metrics(step) is not None

    def latest_step(self) -> int | None:
        return max(self._manager.all_steps(), default=None)

    def step_of(self, which: str = "best") -> int:
        """The step of the "latest" checkpoint, or of the "best" evaluated one (the latest if none was evaluated).
        Raises UserError: another value of `which`, or no checkpoint."""
        return self._in_order(which)[0]

    def _in_order(self, which: str) -> list[int]:
        """The steps in the order in which they are tried for `which`."""
        if which not in ("best", "latest"):
            raise UserError(f"config.eval.checkpoint is {which!r}; it must be 'best' or 'latest'.")
        if not (steps := sorted(self._manager.all_steps(), reverse=True)):
            raise UserError(f"{self.folder} holds no checkpoint; train first, or check --workdir.")
        if which == "latest":
            return steps
        ranks = {step: RANK(found) for step in steps if (found := self._manager.metrics(step))}
        return sorted(steps, key=lambda step: ranks.get(step, (-1.0, 0)), reverse=True)  # without scores: the latest

    # ---- reading ----

    def restore_latest(self, like: TrainState, collected: Any = ()) -> tuple[TrainState, Any] | None:
        """The latest state and collected averages, with the shapes and shardings of these; None if nothing is saved.

        If another version of the code saved averages of other metrics, prints a note and returns `collected`. Raises
        UserError as `restore_model` does.
        """
        if self.latest_step() is None:
            return None
        return self._first_readable("latest", lambda step: self._restore_state(step, like, collected))[1]

    def restore_model(self, which: str, params: Arrays, statistics: Arrays) -> tuple[int, Arrays, Arrays]:
        """Step, parameters and statistics of the "best" or "latest" checkpoint, with the shapes and shardings of these.

        Checkpoints that cannot be read are renamed to <step>.damaged with a warning, and the next one is used: the
        best of the others, or the previous one. Raises UserError where none can be read, or they are of another model.
        """
        like = {"params": params, "statistics": statistics}
        step, model = self._first_readable(which, lambda step: self._restore_model(step, like))
        return step, model["params"], model["statistics"]

    def _first_readable(self, which: str, restore: Callable[[int], Any]) -> tuple[int, Any]:
        damaged: dict[int, str] = {}
        for step in self._in_order(which):
            try:
                restored = restore(step)
            except UnreadableError as error:
                damaged[step] = str(error)
                continue
            self._set_aside(damaged, step)
            return step, restored
        remedy = "restore them from a copy, or choose another --workdir"
        raise UserError(f"No checkpoint in {self.folder} can be read ({damaged}); {remedy}.")

    def _set_aside(self, damaged: dict[int, str], instead: int) -> None:
        for step, error in damaged.items():
            if jax.process_index() == 0:
                failure = _failure_of(self._rename, step)
                renamed = f"could not be renamed ({failure})" if failure else f"is renamed to {step}.damaged"
                fault = f"checkpoint {step} in {self.folder} cannot be read ({error})"
                parallel.say(f"Warning: {fault}; it {renamed}, and checkpoint {instead} is used.")
        if damaged:
            parallel.barrier()
            self._manager.reload()

    def _rename(self, step: int) -> None:
        target = self.folder / f"{step}.damaged"
        with nullcontext() if self._held else workdir.held(self.folder.parent):  # no other process is saving there
            shutil.rmtree(target, ignore_errors=True)
            (self.folder / str(step)).rename(target)

    def _restore_state(self, step: int, like: TrainState, collected: Any) -> tuple[TrainState, Any]:
        items = _items(like, collected)
        saved = self._shapes(step, "training")
        measures = {name: shape for name, shape in saved.items() if name.startswith("collected ")}
        if measures != _shapes_of({"collected": collected}):
            del items["training"]["collected"]
            other = "averages of other metrics, from another version of the code; averages start anew"
            parallel.say(f"Note: checkpoint {step} holds {other}.")
        model = self._restore_model(step, items["model"])
        training = self._restore(step, "training", items["training"])
        collected = training.pop("collected", collected)
        ema = (model["params"], model["statistics"]) if like.ema else None
        return TrainState(**model | training, ema=ema), collected

    def _restore_model(self, step: int, like: dict) -> dict:
        saved, ours = self._shapes(step, "model"), _shapes_of(like)
        if differ := sorted({name for name, _ in saved.items() ^ ours.items()}):
            shapes = [(name, saved.get(name, "absent"), ours.get(name, "absent")) for name in differ[:3]]
            first = "; ".join(f"{name}: {x} in the checkpoint, {y} in the config's model" for name, x, y in shapes)
            fault = f"is of another model in {tables.number_of(len(differ), 'array')}, the first being {first}"
            helps = "use the config it was trained with, or another --workdir"
            raise UserError(f"Checkpoint {step} in {self.folder} {fault}; {helps}.")
        return self._restore(step, "model", like)

    def _shapes(self, step: int, item: str) -> dict[str, tuple[int, ...]]:
        """The shapes of the saved arrays, after their checksums are verified."""

        def read() -> Any:
            checksums.check(self.folder / str(step), item)
            return _shapes_of(self._manager.item_metadata(step)[item].tree)

        return _read_by_all(read)

    def _restore(self, step: int, item: str, like: Any) -> Any:
        """The saved tree, with the shardings of `like`; arrays that are not in `like` are not read."""
        shardings = ocp.checkpoint_utils.construct_restore_args(like)
        args = ocp.args.PyTreeRestore(like, restore_args=shardings, partial_restore=True)
        return _read_by_all(lambda: self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item])


class UnreadableError(Exception):
    """The files of a checkpoint are damaged."""


class _Manager(ocp.CheckpointManager):
    def metrics(self, step: int) -> dict[str, float] | None:
        """The score of a step; None, with a warning, if it is damaged."""
        file = Path(self.directory) / str(step) / SCORE / SCORE
        try:
            found = files.parse_json(file.read_bytes(), {"miou": float})
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _say_once(f"Warning: {file} is damaged ({error}); checkpoint {step} counts as not evaluated.")
            return None
        return found | {"minus_step": -step} if math.isfinite(found["miou"]) else None


_say_once = cache(parallel.say)


def _items(state: TrainState, collected: Any) -> dict[str, dict]:
    """What a checkpoint of `state` holds."""
    params, statistics = state.evaluated
    training = {"step": state.step, "opt_state": state.opt_state, "collected": collected}
    if state.ema:
        training |= {"params": state.params, "statistics": state.statistics}
    return {"model": {"params": params, "statistics": statistics}, "training": training}


def _shapes_of(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of arrays by their paths in the tree."""
    name = partial(jax.tree_util.keystr, simple=True, separator=" ")
    return {name(path): tuple(x.shape) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _tree_handler() -> ocp.PyTreeCheckpointHandler:
    """Writes each array from one device. By default Orbax splits each among the devices that hold a copy, for which it
    compiles a program per shape: hundreds at the first save."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler()),
        (jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False)),
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def _read_by_all(read: Callable[[], Any]) -> Any:
    """The result of `read`. Raises UnreadableError in all processes if the files are damaged for one of them."""
    found, fault = None, ""
    try:
        found = read()
    except jax.errors.JaxRuntimeError:  # an error of the devices
        raise
    except Exception as error:  # Orbax raises plain Exceptions for damaged files
        if cause_of(error) and errno_of(error) != errno.EIO:
            raise  # a system fault, not a damaged file
        fault = repr(error)[:200]
    if fault := parallel.first_of(fault):
        raise UnreadableError(fault)
    return found


def _failure_of(act: Callable, *arguments: Any) -> str:
    """Why `act` could not write (disk full, not writable), also in threads of Orbax; "" if it could."""
    try:
        act(*arguments)
    except Exception as error:
        if not (isinstance(error, OSError | UserError) or errno_of(error)):
            raise
        return cause_of(error) or getattr(error, "strerror", None) or str(error)[-200:]
    return ""
