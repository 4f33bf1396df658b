"""Every golden folder beside the project, if there are any: see tests/goldens.py."""

import shutil

import numpy as np
import pytest

from tests import goldens
from tests.conftest import SHARED

FOLDERS = sorted(path.parent for path in (SHARED / "goldens").glob("*/case.json"))


@pytest.mark.skipif(not FOLDERS, reason="no ../shared/goldens beside the project")
def test_there_are_goldens_of_each_kind_covered():
    covered = {folder.name[:2] for folder in FOLDERS}
    assert {"01", "04", "05", "07", "08", "09", "11"} <= covered


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_ours_equals_the_published_numbers(folder):
    comparisons = list(goldens.run_case(folder))
    failed = [str(c) for c in comparisons if c.verdict == "FAIL"]
    assert not failed, "\n".join(failed)
    if all(c.verdict == "not covered" for c in comparisons):
        pytest.skip("not covered yet")


@pytest.mark.skipif(not FOLDERS, reason="no ../shared/goldens beside the project")
def test_a_wrong_number_fails_and_sets_the_exit_code(tmp_path, capsys):
    source = next(folder for folder in FOLDERS if folder.name.startswith("11a"))
    shutil.copytree(source, tmp_path / "case", copy_function=shutil.copyfile)
    arrays = dict(np.load(source / "io.npz"))
    arrays["out"] = arrays["out"] + 0.01
    (tmp_path / "case").chmod(0o755)
    np.savez(tmp_path / "case" / "io.npz", **arrays)
    assert goldens.main([str(tmp_path / "case")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed"


def test_each_tolerance_rule_can_fail():
    reference = np.array([[1.0, 2.0], [3.0, 4.0]])
    for rule, passing, failing in (
        ({"max_abs": 0.1}, 0.05, 0.2),
        ({"max_rel_of_scale": 0.1}, 0.3, 0.5),
        ({"mismatch_fraction": 0.5}, np.array([[1, 1], [0, 0]]), np.array([[1, 1], [1, 0]])),
        ({"exact": True}, 0.0, 1e-9),
        ({"max_abs": 1.0, "by_row": [{"max_abs": 0.1}, {"max_abs": 1.0}]}, [[0.0], [0.5]], [[0.5], [0.0]]),
    ):
        for error, expected in ((passing, True), (failing, False)):
            ours = reference + error
            assert goldens._within(rule, ours, reference, np.abs(ours - reference)) == expected, rule
