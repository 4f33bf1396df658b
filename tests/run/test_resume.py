"""A run that was interrupted anywhere ends as one that was not, bit for bit."""

import errno
import itertools
import json
import os
import shutil
import signal
import time
from threading import Event

import jax
import numpy as np
import pytest

from ovenet_jax.data import pipeline
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError, cause_of
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.run.interruption import Agreement
from ovenet_jax.train import train
from ovenet_jax.training.packing import Packing
from ovenet_jax.training.reporter import Reporter
from tests.free_port import free_address
from tests.tiny_run import assert_same_end, metrics, tiny_config
from tests.training_process import Training


def interrupt() -> None:
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # who cannot wait does no harm
        os.kill(os.getpid(), number)


@pytest.fixture(scope="module", autouse=True)
def packed_as_on_gpus():
    """The state of runs in this process is in few long vectors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ovenet_jax.training.compilation.Packing", lambda state, _platform: Packing(state, "cuda"))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(config, in_memory):
    """The folder of an uninterrupted run."""
    folder = in_memory()
    assert train(config, folder)
    return folder


def saved_steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def test_a_run_interrupted_anywhere_ends_as_the_uninterrupted_one(config, whole, in_memory, monkeypatch, capsys):
    """In every evaluation (before the first step, amid, of the last step, for the report) and in the first step; and
    where the machine has no memory for a batch, or no open files left for an evaluation, between two saves."""
    evaluate, collect, evaluations = Evaluator.run, Reporter.collect, itertools.count()
    restore, initial = Checkpoints.restore_latest, []
    folder = in_memory()
    to_global, batches = parallel.to_global, itertools.count()

    def evaluate_and_interrupt(*arguments, **options):
        number = next(evaluations)
        if number == 5:
            raise OSError(errno.EMFILE, "Too many open files")
        if number in (0, 2, 4, 7):
            interrupt()
        return evaluate(*arguments, **options)

    def put_on_devices(*arguments):
        if next(batches) == 5:  # that of step 6
            raise MemoryError
        return to_global(*arguments)

    def start():
        try:
            return train(config, folder), max(saved_steps(folder))
        except (MemoryError, OSError) as error:
            return cause_of(error).partition(";")[0], max(saved_steps(folder))

    def collect_and_interrupt(self, step, *arguments):
        collect(self, step, *arguments)
        if step == 1:
            interrupt()

    def restore_and_remember(self, like, collected):
        initial.append(like)
        return restore(self, like, collected)

    monkeypatch.setattr(Evaluator, "run", evaluate_and_interrupt)
    monkeypatch.setattr(parallel, "to_global", put_on_devices)
    monkeypatch.setattr(Checkpoints, "restore_latest", restore_and_remember)
    monkeypatch.setattr(Reporter, "collect", collect_and_interrupt)
    faults = [("the machine's memory is used up", 5), ("too many files are open", 6)]
    starts = [start() for _ in range(7)]
    assert capsys.readouterr().out.count("Compiling the training step") == 7
    starts.append(start())  # which has nothing left but the report
    assert "Compiling" not in capsys.readouterr().out
    assert starts[:3] == [(False, 0), (False, 1), (False, 3)]
    assert starts[3:] == [faults[0], (False, 6), faults[1], (False, 6), (True, 6)]
    assert [line["step"] for line in metrics(folder)] == [0, 3, 4, 6, 6]
    assert_same_end(whole, folder, step=6)
    on_devices = [x for x in jax.tree.leaves(initial) if isinstance(x, jax.Array)]
    assert on_devices == []  # where there is a saved state, devices hold that alone


def test_a_run_that_gets_no_better_ends_early(config, tmp_path, monkeypatch, capsys):
    """By AdamW with clipped gradients; of its checkpoints the best and the last one are kept."""
    score = Checkpoints.score
    monkeypatch.setattr(Checkpoints, "score", lambda self, step, _: score(self, step, 0.25))
    config = config.copy_and_resolve_references()
    config.optimizer.update({"name": "adamw", "clip_norm": 1.0})
    config.update({"steps": 100, "evaluate_every": 1, "patience": 2, "keep_checkpoints": 1})
    assert train(config, tmp_path)
    assert "No better mIoU for config.patience=2 steps: training ends here." in capsys.readouterr().out
    assert saved_steps(tmp_path) == [1, 3]
    assert train(config, tmp_path)
    assert "Compiling" not in capsys.readouterr().out
    # Process 0 says whether it is over: here it does so where this process sees no checkpoint.
    monkeypatch.setattr(parallel, "gather", lambda own: [True if own is False else own])
    with pytest.raises(UserError, match="holds no checkpoint"):
        train(config, tmp_path / "new")


@pytest.mark.usefixtures("whole")
def test_the_batches_of_a_step_are_the_same_for_any_number_of_processes_and_their_images_are_known(config):
    """A run of one process that two take over at step 3."""
    source = pipeline.open_split(config.data, "train")
    order = {"batch_size": 8, "seed": config.seed}

    def batches(first_step, count, **place):
        options = {**order, "first_step": first_step, **place}
        with pipeline.train_batches(source, (), **options) as iterator:
            return [next(iterator)["image"] for _ in range(count)]

    rest = batches(0, 6)[3:]
    halves = [batches(3, 3, process_index=index, process_count=2) for index in (0, 1)]
    np.testing.assert_array_equal(rest, np.concatenate(halves, axis=1))
    names = [pipeline.images_of_step(source, step=step, **order) for step in (4, 5, 6)]
    assert [[f"train_{image[1, 0, 0]:02d}" for image in batch] for batch in rest] == names


def test_the_agreement_of_one_process_is_its_own(monkeypatch):
    event = Event()
    agreement = Agreement(parallel.create_mesh(), event)
    assert not agreement.reached()
    event.set()
    assert agreement.reached()
    monkeypatch.setattr(jax, "process_count", lambda: 2)  # among several it is known one step later
    assert [agreement.reached() for _ in range(2)] == [False, True]


def two_processes(config_file, folder):
    address = free_address()
    return [Training(config_file, folder, address, 2, index) for index in range(2)]


def ends(trainings):
    codes, printed = zip(*[training.end() for training in trainings], strict=True)
    return list(codes), "\n".join(printed)


def test_two_processes_stop_at_the_same_step_when_one_is_interrupted_and_two_or_one_go_on(in_memory):
    place = in_memory()
    config = tiny_config(place, steps=8, evaluate_every=4, report_every=3, checkpoint_every=1)
    pipeline.prepare(config.data)
    file = place / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    codes, output = ends(two_processes(file, place / "whole"))
    assert codes == [0, 0], output[-3000:]

    folder = place / "resumed"
    trainings = two_processes(file, folder)
    while not (folder / "checkpoints" / "2").exists() and all(t.process.is_alive() for t in trainings):
        time.sleep(0.01)
    trainings[1].process.terminate()
    codes, output = ends(trainings)
    assert codes == [75, 75], output[-3000:]
    stopped = max(saved_steps(folder))
    assert 2 < stopped < 8
    alone = shutil.copytree(folder, place / "alone")

    codes, output = ends(two_processes(file, folder))
    assert codes == [0, 0], output[-3000:]
    assert_same_end(place / "whole", folder, step=8)

    code, output = Training(file, alone).end()
    assert code == 0, output[-3000:]
    assert f"Resuming {alone} from step {stopped} of 8." in output
    assert max(saved_steps(alone)) == 8
