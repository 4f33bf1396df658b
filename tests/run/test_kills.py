"""SIGKILL at any moment: the next start goes on, and the end is that of a run that nothing has hit, bit for bit."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.tiny_run import assert_same_end, tiny_config


def start(config_file: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.training_process", str(config_file), str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_to_the_end(config_file: Path, folder: Path) -> str:
    process = start(config_file, folder)
    out, error = process.communicate(timeout=3600)
    assert process.returncode == 0, error[-2000:]
    return out


def until_saving(folder: Path, process: subprocess.Popen, complete: int) -> None:
    """Waits until `complete` more checkpoints are whole and the next one is under way, or for the end."""
    checkpoints = folder / "checkpoints"
    before = set(checkpoints.glob("*"))
    found = set()
    while process.poll() is None:
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


def test_three_kills(tmp_path):
    """In the first save and in two later ones."""
    file, whole, steps = whole_run(tmp_path, checkpoint_every=1)
    folder = tmp_path / "killed"
    for complete in (0, 2, 1):
        saved = newest_checkpoint(folder)
        process = start(file, folder)
        until_saving(folder, process, complete)
        process.kill()
        out, error = process.communicate()
        assert process.returncode == -signal.SIGKILL, error[-2000:]
        assert step_resumed(out) in (None, saved)
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


@pytest.mark.slow
def test_fifty_kills(tmp_path):
    """A quarter of an hour: python -m pytest -m slow tests/run/test_kills.py -s"""
    file, whole, steps = whole_run(tmp_path, steps=100, report_every=7, evaluate_every=25, checkpoint_every=2)
    moments = random.Random(0)
    folder = tmp_path / "killed"
    kills = 0
    while kills < 50:
        saved = newest_checkpoint(folder)
        process = start(file, folder)
        if moments.random() < 0.8:  # in a save, or shortly after
            until_saving(folder, process, complete=moments.randrange(4))
            time.sleep(moments.uniform(0, 0.5))
        else:  # while it starts
            time.sleep(moments.uniform(0, 8))
        process.kill()
        out, error = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), error[-2000:]
        if process.returncode == 0:
            assert_same_end(whole, folder, steps)
            shutil.rmtree(folder)
            continue
        kills += 1
        assert step_resumed(out) in (None, saved)
        print(f"kill {kills}: this start went on from step {step_resumed(out)}", flush=True)
    run_to_the_end(file, folder)
    assert_same_end(whole, folder, steps)
