"""Files of any origin are data: damaged ones are answered in a sentence or read, within bounds of time and memory."""

import re
import subprocess
import sys

import pytest

from tests.places import ROOT

# Not PARSERS' own keys, which would bring all parsers into this process.
PARSERS = ("png", "jpeg", "label", "any", "pth", "yaml", "list", "offsets", "mat", "mat_labels", "instances")


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_read(parser, count):
    result = subprocess.run(
        [sys.executable, "-m", "tests.mutations", parser, str(count)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    read, refused = map(int, re.search(r": (\d+) read, (\d+) refused", result.stdout).groups())
    assert read + refused >= count
    assert read and (refused or parser == "list")  # whose faults are all named in its answer
