"""SIGKILL at any moment: the next start goes on, and the end is that of a run that nothing has hit, bit for bit."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import closing
from itertools import count
from pathlib import Path

import cv2
import jax
import pytest
from absl import logging
from ml_collections import ConfigDict

import ovenet_jax
from ovenet_jax.data import pipeline
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import evaluate
from ovenet_jax.import_weights import import_weights
from ovenet_jax.predict import predict
from ovenet_jax.run import workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.train import train
from tests import tiny_step
from tests.published_keys import arrays_of, assert_same, published, trained, write_pth
from tests.tiny_run import assert_same_end, tiny_config
from tests.training_process import Training


def run_to_the_end(config_file: Path, folder: Path) -> str:
    code, printed = Training(config_file, folder).end()
    assert code == 0, printed[-2000:]
    return printed


def until_saving(folder: Path, process: multiprocessing.Process, complete: int) -> None:
    """Waits until `complete` more checkpoints are whole and the next one is under way, or for the end."""
    checkpoints = folder / "checkpoints"
    before = set(checkpoints.glob("*"))
    found = set()
    while process.is_alive():
        found |= {path for path in checkpoints.glob("*") if path.name.isdigit()} - before
        if len(found) >= complete and any(checkpoints.glob("*.orbax-checkpoint-tmp")):
            return
        time.sleep(0.001)


def whole_run(folder: Path, **changes) -> tuple[Path, Path, int]:
    """(config file, folder of an undisturbed run, its last step)."""
    config = tiny_config(folder, **changes)
    file = folder / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    run_to_the_end(file, folder / "whole")
    return file, folder / "whole", config.steps


def test_three_kills(in_memory):
    """In the first save and in two later ones. The steps are those of test_resume.py, whose program this is."""
    place = in_memory()
    file, whole, steps = whole_run(place, steps=8, evaluate_every=4, checkpoint_every=1)
    folder = place / "killed"
    for complete in (0, 2, 1):
        saved = newest_checkpoint(folder)
        training = Training(file, folder)
        until_saving(folder, training.process, complete)
        training.process.kill()
        code, printed = training.end()
        assert code == -signal.SIGKILL, printed[-2000:]
        assert step_resumed(printed) in (None, saved)
    saved = newest_checkpoint(folder)
    assert saved >= 3
    assert step_resumed(run_to_the_end(file, folder)) == saved
    assert_same_end(whole, folder, steps)


def newest_checkpoint(folder):
    """The last step whose checkpoint is complete, 0 if none is."""
    return max((int(p.name) for p in (folder / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def step_resumed(out):
    """The step that a start said it went on from; None if it did not come so far."""
    resumed = re.search(r"Resuming .* from step (\d+)", out)
    return resumed and int(resumed[1])


# ---- forty kills of each mode: python -m pytest -m slow tests/run/test_kills.py -s ----


def in_a_process_of_its_own(mode: str, config: dict, folder: Path, source: Path | None) -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.modules["clu.metric_writers"] = None
    jax.config.update("jax_num_cpu_devices", 1)
    logging.set_verbosity(logging.ERROR)
    given = ConfigDict(config)
    if mode == "training":
        train(given, folder)
    elif mode == "evaluation":
        evaluate(given, folder)
    elif mode == "preparation":
        pipeline.prepare(given.data)
    elif mode == "import":
        import_weights(given, source, folder)
    else:
        predict(given, folder, None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[ConfigDict, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    file, whole, _ = whole_run(folder, steps=30, report_every=7, evaluate_every=15, checkpoint_every=2)
    return ConfigDict(json.loads(file.read_text())), whole


def training(undisturbed, folder):
    def state() -> str:
        step = newest_checkpoint(folder)
        if step:
            with closing(Checkpoints(folder / "checkpoints", read_only=True)) as checkpoints:
                assert checkpoints.latest_step() == step
        if not (folder / "evaluation/val/report.json").exists():
            return f"step {step}"
        assert_same_end(undisturbed[1], folder, 30)
        return "new"

    return undisturbed[0], None, state


def evaluation(undisturbed, folder):
    shutil.copytree(undisturbed[1], folder)
    expected = json.loads((folder / "evaluation/val/report.json").read_text())
    shutil.rmtree(folder / "evaluation")

    def state() -> str:
        report = folder / "evaluation/val/report.json"
        if not report.exists():
            return "old"
        assert json.loads(report.read_text()) | {"made": 0} == expected | {"made": 0}
        return "new"

    return undisturbed[0], None, state


def preparation(undisturbed, folder):
    config = undisturbed[0].copy_and_resolve_references()
    config.data.prepared = str(folder)

    def state() -> str:
        try:
            sources = [pipeline.open_split(config.data, split) for split in ("train", "val", "test")]
        except UserError as refusal:
            assert "is not prepared" in str(refusal)  # noqa: PT017
            return "old"
        assert [len([source[i] for i in range(len(source))]) for source in sources] == [9, 3, 1]
        return "new"

    return config, None, state


def importing(undisturbed, folder):
    pytest.importorskip("torch")
    model = tiny_step.tiny_model()
    config = ConfigDict({**undisturbed[0], "model": model, "data": {"name": "toy_streets"}})
    arrays = trained(model)
    source = write_pth(folder.parent / "weights.pth", published(arrays, model))

    def state() -> str:
        if not workdir.has_checkpoint(folder):
            return "old"
        assert_same(arrays_of(ovenet_jax.load_model(folder)), arrays)
        return "new"

    return config, source, state


def prediction(undisturbed, folder):
    shutil.copytree(undisturbed[1], folder)
    config = undisturbed[0].copy_and_resolve_references()
    config.data.test_split = "val"

    def state() -> str:
        target = folder / "predictions/val"
        if not target.exists():
            return "old"
        pictures = [path for path in target.rglob("*.*") if cv2.imread(str(path)) is not None]
        assert len(pictures) == len(list(target.rglob("*.*"))) >= 7
        return "new"

    return config, None, state


BEGINNINGS = {"training": training, "evaluation": evaluation, "preparation": preparation}
BEGINNINGS |= {"import": importing, "prediction": prediction}


@pytest.mark.slow
@pytest.mark.parametrize("mode", BEGINNINGS)
def test_forty_kills(mode, undisturbed, tmp_path):
    """Each leaves the old state or the new one, and the same command goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.run.test_kills"])
    moments, found, kills, seconds = random.Random(0), Counter(), 0, 0.0
    for attempt in count():
        folder = tmp_path / str(attempt)
        config, source, state = BEGINNINGS[mode](undisturbed, folder)
        while state() != "new":
            began = time.monotonic()
            process = context.Process(target=in_a_process_of_its_own, args=(mode, config.to_dict(), folder, source))
            process.start()
            process.join(moments.uniform(0, seconds) if attempt and kills < 40 else None)
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            if process.exitcode == 0:
                seconds = min(seconds or 60, time.monotonic() - began)  # the first one compiles, too
                assert state() == "new"
            else:
                kills += 1
                found[state()] += 1
        shutil.rmtree(folder)
        if kills == 40:
            break
    print(f"{mode}: {kills} kills, {dict(found)}, {attempt} ends, {seconds:.1f} s undisturbed")
