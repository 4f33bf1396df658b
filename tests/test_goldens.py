"""Every golden folder beside the project, if there are any: see tests/goldens.py."""

import json
import shutil

import numpy as np
import pytest

from tests import goldens
from tests.golden_case import Case, within
from tests.places import SHARED

FOLDERS = sorted(path.parent for path in (SHARED / "goldens").rglob("case.json"))

needs_goldens = pytest.mark.skipif(not FOLDERS, reason=f"no {SHARED.name}/goldens beside the project")


@needs_goldens
def test_every_case_is_covered():
    """Those of the list of all cases, and those that came later."""
    listed = {case["case"] for case in json.loads((SHARED / "goldens" / "INDEX.json").read_text())["cases"]}
    assert listed <= {folder.name for folder in FOLDERS}
    assert [folder.name for folder in FOLDERS if not goldens.topics(Case(folder))] == []


@needs_goldens
@pytest.mark.parametrize("folder", FOLDERS or [None], ids=lambda folder: folder and folder.name)
def test_ours_equals_the_published_numbers(folder):
    different = [str(comparison) for comparison in goldens.run_case(folder) if comparison.verdict != "ok"]
    assert not different, "\n".join(different)


@needs_goldens
def test_a_wrong_number_fails_and_sets_the_exit_code(tmp_path, capsys):
    source = next(folder for folder in FOLDERS if folder.name.startswith("11a"))
    shutil.copytree(source, tmp_path / "case", copy_function=shutil.copyfile)
    arrays = dict(np.load(source / "io.npz"))
    arrays["out"] = arrays["out"] + 0.01
    (tmp_path / "case").chmod(0o755)
    np.savez(tmp_path / "case" / "io.npz", **arrays)
    assert goldens.main([str(tmp_path / "case")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed"


@needs_goldens
def test_a_case_that_cannot_be_computed_fails_and_the_others_go_on(tmp_path, capsys):
    good = next(folder for folder in FOLDERS if folder.name.startswith("14"))
    shutil.copytree(good, tmp_path / "broken", copy_function=shutil.copyfile)
    (tmp_path / "broken").chmod(0o755)
    (tmp_path / "broken" / "case.json").write_text("{")
    assert goldens.main([str(tmp_path / "broken"), str(tmp_path / "absent"), str(good)]) == 1
    broken, absent, *others, last = capsys.readouterr().out.splitlines()
    assert broken.startswith("broken - nan nan FAIL, not computed (JSONDecodeError: ")
    assert absent.startswith("absent - nan nan FAIL, not computed (FileNotFoundError: ")
    assert last == f"{len(others)} passed, 2 failed"


def test_each_tolerance_rule_can_fail():
    reference, mask = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1, 0], [1, 0]])
    for rule, passing, failing in (
        ({"max_abs": 0.1}, 0.05, 0.2),
        ({"max_rel_of_scale": 0.1}, 0.3, 0.5),
        ({"mismatch_fraction": 0.5}, np.array([[1, 1], [0, 0]]), np.array([[1, 1], [1, 0]])),
        ({"exact": True}, 0.0, 1e-9),
        ({"max_abs": 1.0, "within": {"where": "mask", "max_abs": 0.1}}, [[0.0, 0.5]], [[0.5, 0.0]]),
        ({"max_abs": 1.0, "by_row": [{"max_abs": 0.1}, {"max_abs": 1.0}]}, [[0.0], [0.5]], [[0.5], [0.0]]),
    ):
        for error, expected in ((passing, True), (failing, False), (np.nan, False)):
            assert within(rule, reference + error, reference, {"mask": mask}) == expected, rule
