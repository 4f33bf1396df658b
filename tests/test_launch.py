"""The Slurm script beside a stand-in `srun` that ends as it is told."""

import os
import subprocess

import pytest

from tests.places import ROOT

SCRIPT = ROOT / "launch" / "train.slurm"


@pytest.fixture
def sbatch(tmp_path):
    """Runs the script where srun ends with that code; (its exit code, what srun and scontrol were told)."""

    def run(code, *arguments, restarts=0):
        calls = tmp_path / "calls"
        for name, ends_with in (("srun", code), ("scontrol", 0)):
            program = tmp_path / name
            program.write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\nexit {ends_with}\n')
            program.chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        variables = {"PATH": path, "PYTHON": "python", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
        ended = subprocess.run(["bash", SCRIPT, *arguments], env=variables, stdout=subprocess.DEVNULL)
        return ended.returncode, calls.read_text().splitlines()

    return run


def test_what_is_given_goes_to_main_py(sbatch):
    code, calls = sbatch(0, "--config=configs/demo.py", "--config.data.root=/a folder")
    told = "python main.py --config=configs/demo.py --config.data.root=/a folder"
    assert (code, calls) == (0, [f"srun --kill-on-bad-exit=1 {told}"])


@pytest.mark.parametrize(
    ("code", "restarts", "goes_on"),
    [(75, 0, True), (75, 49, True), (75, 50, False), (134, 0, True), (1, 0, False), (2, 0, False)],
)
def test_an_interrupted_or_lost_process_puts_the_job_back_in_the_queue(sbatch, code, restarts, goes_on):
    ended, calls = sbatch(code, restarts=restarts)
    assert ended == code
    assert ("scontrol requeue 7" in calls) == goes_on
