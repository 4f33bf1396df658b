"""docs/extending.md: its worked examples are followed in a copy of the project, and their own tests pass there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
STEP = re.compile(r"^(New file|In) `([^`]+)`:\n\n```\w+\n(.*?)^```$", re.M | re.S)
COPIED = ("configs", "main.py", "ovenet_jax", "tests", "pyproject.toml")


@pytest.mark.parametrize("example", ["A data set", "A head"])
def test_a_worked_example_can_be_followed(example, tmp_path):
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    steps = STEP.findall(PAGE.split(f"\n## {example}\n")[1].split("\n## ")[0])
    assert len({file for what, file, _ in steps if what == "In"}) <= 3
    for what, file, content in steps:
        if what == "New file":
            assert not (tmp_path / file).exists()
            (tmp_path / file).write_text(content)
        else:
            for lines in content.split("@@\n"):
                add(lines.splitlines(), tmp_path / file)
    tests = [file for _, file, _ in steps if file.startswith("tests/")]
    house = [f"tests/test_house.py::{name}" for name in ("test_no_arrow_runs_back_up", "test_no_circle")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, *house]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def add(lines: list[str], file: Path) -> None:
    """Puts those that begin with + into the file, between the others, which stand there once, one after the other."""
    there, wanted = file.read_text(), [line[1:] for line in lines]
    before = "\n".join(text for text, line in zip(wanted, lines, strict=True) if line.startswith(" "))
    assert there.count(before) == 1, f"{file}: {before}"
    file.write_text(there.replace(before, "\n".join(wanted)))


def test_what_the_page_names_is_there():
    """Every path and, in its sentence, every name of a file."""
    for path in re.findall(r"`((?:ovenet_jax|configs|tests|benchmarks|docs)/[\w/.]+|[a-z]+/\w+\.py)`", PAGE):
        new = f"New file `{path}`" in PAGE
        assert new or (ROOT / path).exists() or (ROOT / "ovenet_jax" / path).exists(), path
