"""`python main.py`: in a process of its own, as users run it, or in this one, where only its answer counts."""

import os
import subprocess
import sys

import pytest
from absl.testing import flagsaver

import main
import ovenet_jax.train  # noqa: F401  libraries define flags when they are imported, which flagsaver would take away
from ovenet_jax.errors import UserError
from tests.places import ROOT

WITHOUT_TENSORFLOW = {"PYTHONPATH": str(ROOT / "tests/without_tensorflow")}  # a variable of a process that starts fast


def start(*arguments: str, devices: int = 1, **variables: str | None) -> subprocess.Popen:
    """With this number of CPU devices and these environment variables; None: without that one."""
    variables = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **variables}
    return subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, **variables: str | None) -> subprocess.CompletedProcess:
    """On one device, to the end."""
    process = start(*arguments, **variables)
    output, errors = process.communicate(timeout=900)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def output(*arguments: str, **variables: str | None) -> str:
    """What a command that ends well prints."""
    result = run(*arguments, **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refusal(*arguments: str) -> str:
    """The sentence with which this process, of eight devices, refuses a command."""
    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver(), pytest.raises(UserError) as error:
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", ["main.py", *arguments])
        main.main(main.parse_flags(sys.argv))
    return str(error.value)
