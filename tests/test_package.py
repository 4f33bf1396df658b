"""What is installed: a command that knows the shipped configs by name, an import that leaves a program as it was."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module

import pytest

import ovenet_jax
from ovenet_jax import env
from tests import command_line
from tests.places import ROOT


def run(*command, folder):
    """By the package that this checkout is, from another folder."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_python_m_is_main_from_any_folder(tmp_path):
    result = run(sys.executable, "-m", "ovenet_jax", "--config=demo:hrnet", "--mode=import", folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: --mode=import needs the file to read"), result.stderr


@pytest.mark.parametrize(("module", "at_once"), [("ovenet_jax.__main__", True), ("main", False)])
def test_an_interruption_ends_the_command_at_once_while_it_starts_but_no_program_that_imports_it(module, at_once):
    code = "import signal as s; s.signal(s.SIGINT, s.default_int_handler)"
    code = f"{code}; import {module}; print(s.getsignal(s.SIGINT) == s.SIG_DFL)"
    assert run(sys.executable, "-c", code, folder=ROOT).stdout == f"{at_once}\n"


@pytest.mark.parametrize("start", ["main.py", "command"])
def test_help_lists_the_flags(tmp_path, start):
    command = [str(ROOT / "main.py")] if start == "main.py" else ["-c", COMMAND]
    result = run(sys.executable, *command, "--help", folder=tmp_path)
    assert result.returncode == 0
    for said in ("--mode=evaluate", "--workdir", "--mode=config prints", "docs/config.md", "Configs: acdc, ade20k"):
        assert said in result.stdout


def test_the_machine_is_described_for_a_report_of_a_bug(tmp_path):
    result = run(sys.executable, "-m", "ovenet_jax", "--mode=env", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    for said in ("ovenet_jax: ", "Python: 3", "pillow: 1", "cores: ", "memory: ", "devices: ", "JAX_PLATFORMS: cpu"):
        assert said in result.stdout


def test_variables_that_may_be_secrets_are_not_described(monkeypatch):
    for name in ("SLURM_JWT", "NVIDIA_API_KEY", "SLURM_PROCID"):
        monkeypatch.setenv(name, "7 seals")
    assert re.findall("(.*): 7 seals", env.as_text()) == ["SLURM_PROCID"]


def test_a_notebook_completes_the_names_of_the_package():
    assert {"load", "load_model", "create_model"} <= set(dir(ovenet_jax))


def test_a_config_is_printed_with_meanings_and_what_differs(tmp_path):
    given = ["--config=demo:hrnet", "--mode=config", "--config.steps=7"]
    result = run(sys.executable, "-m", "ovenet_jax", *given, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^  optimizer.momentum = 0.9 +# .* \(TRAIN.MOMENTUM\)$", result.stdout, re.M)
    assert re.search(r"^\* steps = 7 .*; in configs/: 500$", result.stdout, re.M)
    assert "loss.ohem.keep" not in result.stdout
    assert "values, marked by *, differ from configs/demo.py:hrnet" in result.stdout


COMMAND = "import sys; from ovenet_jax.__main__ import run; sys.exit(run())"  # as pip writes it


def test_a_name_that_is_no_config_is_answered_with_the_list():
    sentence = command_line.refusal("--config=citiscapes:ovenet", "--mode=prepare")
    assert sentence.startswith(
        "There is no config 'citiscapes' (did you mean cityscapes?); known: acdc, ade20k, camvid"
    )
    assert command_line.refusal("--config=openseg", "--mode=prepare").startswith("There is no config 'openseg'")
    assert command_line.refusal("--config", "nothing", "--mode=prepare").startswith("There is no config 'nothing'")


def test_the_package_holds_the_configs():
    ours, shipped = (import_module(f"{package}.camvid").get_config() for package in ("configs", "ovenet_jax.configs"))
    assert ours.to_dict() == shipped.to_dict()


def test_a_wheel_takes_along_every_file_that_is_no_module():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folders = {ROOT / package.replace(".", "/"): patterns for package, patterns in table.items()}
    taken = {file for folder, patterns in folders.items() for pattern in patterns for file in folder.glob(pattern)}
    files = {path for path in (ROOT / "ovenet_jax").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == taken


def test_the_import_leaves_a_program_as_it_was(tmp_path):
    code = """
import logging, sys, warnings
import jax
from absl import flags
def state():
    return (dict(jax.config.values), sorted(flags.FLAGS), list(warnings.filters), logging.root.level,
            list(logging.root.handlers), logging.getLoggerClass(), sorted(logging.root.manager.loggerDict))
before, modules = state(), set(sys.modules)
import ovenet_jax
assert state() == before and ovenet_jax.__version__
print(len(set(sys.modules) - modules))
"""
    result = run(sys.executable, "-c", code, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert int(result.stdout) <= 3  # modules: nothing that takes time


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match="'laod'; it has load, create_model"):
        ovenet_jax.laod  # noqa: B018
