"""A fault at any single write, flush, rename or new folder, a full disk or a kill, leaves the old state or the new one.

Python's own calls are counted, and each in turn fails; those that libraries make in C++ are not. The suite takes some,
`python -m pytest -m slow tests/run/test_faults.py -s` all, and prints how many there are.
"""

import builtins
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import folder as folder_config
from ovenet_jax.data import pipeline
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import evaluate
from ovenet_jax.predict import predict
from ovenet_jax.run import identity, workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.run.identity import Identity
from ovenet_jax.run.state import TrainState
from tests import trees
from tests.untrained import save_untrained, tiny

FULL = OSError(28, "No space left on device")


class Killed(BaseException):
    """Nothing that comes after it is done: no cleaning up either."""


class Faults:
    """Counts calls, of which the one of this `number` fails, and all after it where the process is killed."""

    def __init__(self, number: int | None, error: BaseException):
        self.calls: list[str] = []
        self._number, self._error = number, error

    def watched(self, name: str, call: Callable, counts: Callable[..., bool] = lambda *_, **__: True) -> Callable:
        def watched_call(*arguments, **options):
            if counts(*arguments, **options):
                self.calls.append(name)
                number = len(self.calls) - 1
                dead = isinstance(self._error, Killed) and self._number is not None and number > self._number
                if number == self._number or dead:
                    raise self._error
            result = call(*arguments, **options)
            return _Written(result, self) if name == "open" and counts(*arguments, **options) else result

        return watched_call

    def cleaning(self, call: Callable) -> Callable:
        """Is not counted, but does nothing after a kill."""

        def cleaning_call(*arguments, **options):
            if isinstance(self._error, Killed) and self._number is not None and len(self.calls) > self._number:
                raise self._error
            return call(*arguments, **options)

        return cleaning_call


class _Written:
    """A file whose writes are counted."""

    def __init__(self, file, faults: Faults):
        self._file = file
        self.write = faults.watched("write", file.write)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def writes(_, mode="r", *__, **___) -> bool:
    return set(mode) & set("wxa+") != set()


@contextmanager
def faults(number: int | None, error: BaseException) -> Iterator[Faults]:
    found = Faults(number, error)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace", "rename", "mkdir"):
            patch.setattr(os, name, found.watched(name, getattr(os, name)))
        for owner in (io, builtins):
            patch.setattr(owner, "open", found.watched("open", open, writes))
        for owner, name in ((os, "unlink"), (os, "rmdir"), (shutil, "rmtree")):
            patch.setattr(owner, name, found.cleaning(getattr(owner, name)))
        yield found


def outcomes(
    folder: Path, begin: Callable, act: Callable, state_of: Callable, error: BaseException, every: int
) -> Counter:
    """How often the state was the "old" or the "new" one afterwards, over every `every`-th fault.

    begin: what is there before, at a path. act: what may fail. state_of: the state, "old" or "new"; it may fail, too.
    """
    begin(folder / "counted")
    with faults(None, error) as counted:
        act(folder / "counted")
    assert state_of(folder / "counted") == "new"
    found: Counter = Counter()
    missed = 0
    for number in range(0, len(counted.calls), every):
        place = folder / str(number)
        begin(place)
        with faults(number, error) as hit, suppress(Killed, UserError, OSError):
            act(place)
        missed += len(hit.calls) <= number
        found[state_of(place)] += 1
        act(place) if state_of(place) == "old" else None
        assert state_of(place) == "new", f"after {counted.calls[number]} {number} it does not go on"
        shutil.rmtree(place)
    print(f"{len(counted.calls)} calls ({dict(Counter(counted.calls))}), every {every}. failed: {dict(found)}")
    assert found.keys() <= {"old", "new"}
    assert missed <= 2, "faults were not reached"  # threads that make one folder may each flush it
    return found


ERRORS = pytest.mark.parametrize("error", [FULL, Killed()], ids=["full", "killed"])
ALL = pytest.param(1, marks=pytest.mark.slow, id="all")


@ERRORS
def test_a_preparation(tmp_path, error):
    data = trees.write_folder(tmp_path)

    def data_of(place: Path) -> ConfigDict:
        return ConfigDict({**data, "prepared": str(place)})

    def state_of(place: Path) -> str:
        try:
            source = pipeline.open_split(data_of(place), "val")
        except UserError as refusal:
            assert "is not prepared" in str(refusal)  # noqa: PT017
            return "old"
        assert [source[i]["label"].shape for i in range(len(source))] == [trees.SIZE] * 2
        assert not list(place.rglob("incomplete.*"))
        return "new"

    act = lambda place: pipeline.prepare(data_of(place))  # noqa: E731
    outcomes(tmp_path / "faults", lambda place: place.mkdir(parents=True), act, state_of, error, every=1)


def state(step: int) -> TrainState:
    arrays = {"kernel": np.full((2, 3), step, np.float32)}
    made = TrainState(np.int32(step), arrays, {"mean": np.full(3, step, np.float32)}, {"momentum": arrays})
    return jax.device_put(made, parallel.replicated(parallel.create_mesh(jax.devices()[:1])))


@ERRORS
@pytest.mark.parametrize("every", [11, ALL])
def test_what_a_training_saves(tmp_path, error, every):
    """Config, class table, checkpoints and score."""
    config = folder_config.get_config("hrnet_tiny")
    classes = pipeline.classes(trees.write_folder(tmp_path / "data"))

    def save(place: Path, steps: tuple[int, ...]) -> None:
        identity.write(place, Identity(classes, {"images": 1}))
        workdir.claim(place, config)
        with closing(Checkpoints(place / "checkpoints")) as checkpoints:
            for step in steps:
                checkpoints.save(state(step))
                checkpoints.score(step, step / 10)

    def state_of(place: Path) -> str:
        assert identity.classes_of(place) == classes
        assert workdir.read_config(place).name == config.name
        with closing(Checkpoints(place / "checkpoints", read_only=True)) as checkpoints:
            restored, _ = checkpoints.restore_latest(state(0))
            step = int(restored.step)
            jax.tree.map(np.testing.assert_array_equal, restored, state(step))
            assert checkpoints.step_of() in (step, 2)
        assert step in (2, 3)
        return "new" if step == 3 else "old"

    outcomes(tmp_path, lambda place: save(place, (1, 2)), lambda place: save(place, (3,)), state_of, error, every)


def untrained(folder: Path) -> tuple[ConfigDict, Path]:
    """(config, folder) of a run of two classes."""
    config = tiny(folder_config.get_config("hrnet"), trees.write_folder(folder))
    config.model.num_classes = 2
    return config, save_untrained(config, folder / "run")


@ERRORS
@pytest.mark.parametrize("every", [25, ALL])
def test_a_prediction(tmp_path, error, every):
    config, run = untrained(tmp_path)
    source = tmp_path / "source/images/val"

    def state_of(place: Path) -> str:
        target = place / "predictions/val"
        if not target.exists():
            return "old"
        assert len(list(target.rglob("*.png"))) == 3 and len(list(target.rglob("*.jpg"))) == 2
        return "new"

    act = lambda place: predict(config, place, source)  # noqa: E731
    outcomes(tmp_path / "faults", lambda place: shutil.copytree(run, place), act, state_of, error, every)


@ERRORS
@pytest.mark.parametrize("every", [ALL])
def test_the_report_of_an_evaluation(tmp_path, error, every):
    config, run = untrained(tmp_path)
    evaluate(config, shutil.copytree(run, tmp_path / "first"))  # compiles, and loads fonts

    def state_of(place: Path) -> str:
        files = [path for path in (place / "evaluation").rglob("[!.]*") if path.is_file()]
        assert all(cv2.imread(str(path)) is not None for path in files if path.suffix == ".png")
        assert all(json.loads(path.read_bytes()) for path in files if path.suffix == ".json")
        pages = [path.read_text() for path in files if path.suffix == ".html"]  # the last that is written
        assert all(page.rstrip().endswith("</html>") for page in pages)
        return "new" if pages else "old"

    act = lambda place: evaluate(config, place)  # noqa: E731
    outcomes(tmp_path / "faults", lambda place: shutil.copytree(run, place), act, state_of, error, every)
