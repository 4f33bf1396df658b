"""Trees of arrays by step and name in a folder, each step with a score once it has one: all that is known of Orbax."""

import logging
import math
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_manager, checkpoint_managers

from ovenet_jax import files
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError

CHECKSUMS = "checksums.json"  # in a step's folder: of each file the CRC-32 of each block
BLOCK = 2**22  # bytes
NOT_IN_PATHS = "*?[\\"  # Orbax looks for files by patterns, TensorStore takes a backslash for a slash
SCORE = checkpoint_manager.METRIC_ITEM_NAME


@contextmanager
def _silent(wanted: bool) -> Iterator[None]:
    logger = logging.getLogger("absl")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR if wanted else level)
        yield
    finally:
        logger.setLevel(level)


class UnreadableError(Exception):
    """The files of a step are damaged."""


class OrbaxStorage:
    """Keeps the two latest steps and the best, older ones only until a newer one is complete.

    Saving is asynchronous. A step is complete when its files have been read back for their checksums and are on the
    disk. All processes call the same methods, but those that are said to be for one. What cannot be
    written, for want of space or rights, raises OSError, in whichever thread Orbax met it.
    """

    def __init__(self, folder: Path, items: tuple[str, ...], read_only: bool = False):
        """What an interrupted save left in `folder` is no step, and is cleaned away; `read_only`: nothing is touched.

        items: names of the trees; a step holds some of them.

        Raises:
          UserError: Orbax cannot read what it would write there.
        """
        odd = sorted(set(str(folder.absolute())) & set(NOT_IN_PATHS))
        if odd and not read_only:
            raise UserError(
                f"{folder.absolute()} has {' '.join(odd)} in it, where checkpoints could be written but not read; "
                f"choose another --workdir."
            )
        self.folder = folder
        self._saving = 0
        best = checkpoint_managers.BestN(
            get_metric_fn=_miou, n=1, reverse=False, keep_checkpoints_without_metrics=False
        )
        with _silent(read_only):  # else Orbax warns that it is read only
            self._manager = _Manager(
                folder.absolute(),
                item_handlers={item: _tree_handler() for item in items},
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                        [checkpoint_managers.LatestN(2), best]
                    ),
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                    # directories at once: where one cannot be made, threads would wait for it for minutes
                    async_options=ocp.AsyncOptions(
                        post_finalization_callback=self._seal, create_directories_asynchronously=False
                    ),
                ),
            )

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Starts saving trees by name."""
        self._saving = step
        args = {name: ocp.args.PyTreeSave(item) for name, item in items.items()}
        with _writing():
            self._manager.save(step, args=ocp.args.Composite(**args), force=True)

    def wait(self) -> None:
        """Waits for a save under way."""
        with _writing():
            self._manager.wait_until_finished()
            files.flush(self.folder)

    def close(self) -> None:
        """Waits for a save under way."""
        with _writing():
            self._manager.close()

    def score(self, step: int, miou: float) -> None:
        """For one process, others `reload` then: notes the score of `step`, where Orbax itself would write it."""
        temporary = self.folder / str(step) / f"{SCORE}.tmp"
        temporary.mkdir(exist_ok=True)
        files.write_json(temporary / SCORE, {"miou": miou})
        temporary.replace(temporary.with_name(SCORE))
        files.flush(temporary.parent)

    def reload(self) -> None:
        """Reads anew which steps there are, and their scores."""
        self._manager.reload()

    def steps(self) -> list[int]:
        """Those that are complete, the latest last."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The one with the highest score, the latest of several, if any has one."""
        scores = {step: _miou(found) for step in self.steps() if (found := self._manager.metrics(step))}
        return max(reversed(scores), key=scores.__getitem__, default=None)

    def is_scored(self, step: int) -> bool:
        return self._manager.metrics(step) is not None

    def shapes(self, step: int, item: str) -> dict[str, tuple[int, ...]]:
        """As `shapes_of`, of what is saved, once its checksums are right. Raises UnreadableError."""
        with _reading():
            _check(self.folder / str(step), item)
            return shapes_of(self._manager.item_metadata(step)[item].tree)

    def restore(self, step: int, item: str, like: Any) -> Any:
        """The saved tree, with the shardings of `like`; what that leaves out is not read. Raises UnreadableError."""
        args = ocp.args.PyTreeRestore(
            like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
        )
        with _reading():
            return self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]

    def _seal(self) -> None:
        """The last before a step is renamed and counts, in the background of one process."""
        begun = f"{self._saving}.orbax"
        unfinished = next(path for path in self.folder.iterdir() if path.name.startswith(begun))
        files.write_json(unfinished / CHECKSUMS, _checksums(unfinished))
        files.flush_all(unfinished)


class _Manager(ocp.CheckpointManager):
    def metrics(self, step: int) -> dict[str, float] | None:
        """The score of a step. One that cannot be read is none, and said."""
        file = Path(self.directory) / str(step) / SCORE / SCORE
        try:
            found = files.parse_json(file.read_bytes(), {"miou": float})
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _say_once(f"Warning: {file} is damaged ({error}); checkpoint {step} counts as not evaluated.")
            return None
        return found if math.isfinite(found["miou"]) else None


@cache
def _say_once(text: str) -> None:
    parallel.say(text)


def _checksums(folder: Path, below: str = "") -> dict[str, list[int]]:
    """The CRC-32 of each block of the files in folder/below, by their paths in `folder`."""
    paths = sorted(path for path in (folder / below).rglob("*") if path.is_file())
    with ThreadPoolExecutor() as threads:
        return {
            path.relative_to(folder).as_posix(): [
                *threads.map(partial(_checksum, path), range(0, path.stat().st_size, BLOCK))
            ]
            for path in paths
        }


def _checksum(path: Path, start: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        return zlib.crc32(file.read(BLOCK))


def _check(folder: Path, item: str) -> None:
    """Raises ValueError or OSError where files of an item are not as they were written; of a step that commit 27140ce
    has written, which has no checksums, only Orbax can tell."""
    file = folder / CHECKSUMS
    if not file.exists():
        return
    written, now = files.parse_json(file.read_bytes(), {str: [int]}), _checksums(folder, item)
    wrong = [path for path, x in written.items() if path.startswith(f"{item}/") and now.get(path) != x]
    if wrong:
        raise ValueError(f"{wrong[0]} is not as it was written")


def shapes_of(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array by the names that lead to it."""
    return {
        jax.tree_util.keystr(path, simple=True, separator=" "): tuple(x.shape)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def _tree_handler() -> ocp.PyTreeCheckpointHandler:
    """Writes each array from one device. Shared out among those that hold a copy, as Orbax does by itself, every shape
    of array would need a program of its own to be cut, compiled at the first save: hundreds."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler()),
        (jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False)),
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def _miou(metrics: dict[str, float]) -> float:
    return metrics["miou"]


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError:  # of the devices
        raise
    except Exception as error:  # Orbax raises plain Exceptions for damaged files
        raise UnreadableError(repr(error)[:200]) from error


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if "os_error_code" in str(error):  # so TensorStore, which writes Orbax' arrays, marks them
            raise OSError(str(error)[-200:]) from error
        raise
