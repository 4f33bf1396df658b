"""The pages name what the program has, and the README's links lead somewhere. `make docs` checks all other links."""

import re

import pytest

import main
from ovenet_jax.configs.keys import KEYS
from ovenet_jax.devices.memory import EVALUATION_MEMORY, TRAINING_MEMORY
from ovenet_jax.errors import CAUSES, SIGNALS
from tests.config_files import FILES
from tests.places import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("cause", sorted({*CAUSES.values(), *SIGNALS.values(), TRAINING_MEMORY, EVALUATION_MEMORY}))
def test_troubleshooting_has_every_cause(cause):
    assert cause in page("troubleshooting.md")


def test_pages_have_every_mode_and_config():
    assert [mode for mode in main.MODES if f"| `{mode}` |" not in page("training.md")] == []
    names = [file.__name__.rpartition(".")[-1] for file in FILES]
    assert [name for name in names if f"`{name}`" not in page("data.md")] == []


def test_the_map_of_the_code_names_files_that_are_there():
    rows = re.findall(r"^\| `ovenet_jax/.*", page("code.md"), re.MULTILINE)
    assert len(rows) > 10
    for row in rows:
        folder, names = re.match(r"\| `(ovenet_jax/(?:\w+/)?)", row)[1], re.findall(r"`(?:ovenet_jax/)?(\w+\.py)`", row)
        assert [name for name in names if not (ROOT / folder / name).exists()] == []


def test_pages_name_keys_and_benchmarks_that_are_there():
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "launch").iterdir()]
    text = "\n".join(file.read_text() for file in pages)
    keys = set(re.findall(r"--config\.([a-z][\w.]*\w)(?![\w.])", text))
    assert len(keys) > 20 and keys - KEYS.keys() == set()
    benchmarks = {file.stem: file.read_text() for file in (ROOT / "benchmarks").glob("[a-z]*.py")}
    named = set(re.findall(r"benchmarks\.([a-z]\w*)", text))
    assert len(named) > 10 and named - benchmarks.keys() == set()
    programs = {name for name, source in benchmarks.items() if '"__main__"' in source}
    assert [name for name in programs if f"`{name}`" not in page("code.md")] == []


def test_the_readmes_links_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 10 and [link for link in links if not (ROOT / link).exists()] == []


def test_the_tutorial_is_kept_without_outputs():
    assert not re.search(r'"outputs": \[\s*[^\]\s]|"execution_count": \d', page("tutorial.ipynb"))
