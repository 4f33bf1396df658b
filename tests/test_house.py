"""Who may import whom: the wings in their order, the modes on top of them; and what tests may ask of them."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.places import ROOT

PACKAGE = ROOT / "ovenet_jax"
FOUNDATIONS = {"errors", "files", "tables", "described", "configs.keys"}
# From the ground up: a wing imports itself and those before it.
ORDER = ("data", "segfix", "models", "supervision", "devices", "run", "weights", "evaluation", "training")
MODES = {"train", "evaluate", "predict", "browse", "import_weights", "compare", "export", "env", "plan"}
HEAVY = {"jax", "flax", "tensorflow"}
WITHOUT = {
    "ovenet_jax.run.processes": HEAVY,  # they meet before jax is started
    "ovenet_jax.segfix.refine": HEAVY,  # the refining command needs none
    "ovenet_jax.training.step": {"clu", "orbax", "grain", "tensorflow", "ovenet_jax.evaluation"},  # pure
}


def imports() -> Iterator[tuple[str, str]]:
    """(module, module that it imports) for all of ours, as dotted names without the package's."""
    for file in sorted(PACKAGE.rglob("*.py")):
        importer = ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name.startswith("ovenet_jax."):
                    yield importer, _module(name.removeprefix("ovenet_jax."))


def _module(name: str) -> str:
    """`name` or, where that is a function or class of a module, the module."""
    path = PACKAGE / name.replace(".", "/")
    return name if path.is_dir() or path.with_suffix(".py").exists() else name.rpartition(".")[0]


def wing(module: str) -> str:
    return module if module in FOUNDATIONS else module.partition(".")[0]


def test_every_file_has_its_place():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__pycache__"}
    foundations = {module.partition(".")[0] for module in FOUNDATIONS}
    assert rooms == {"__init__", "__main__", *foundations, *ORDER, *MODES}


def test_no_arrow_runs_back_up():
    floor = {name: 1 + i for i, name in enumerate(ORDER)} | dict.fromkeys(FOUNDATIONS, 0)
    floor |= dict.fromkeys(("configs", *MODES), len(floor)) | {"__main__": len(floor) + 1}
    upward = [
        f"{importer} imports {imported}"
        for importer, imported in imports()
        if importer != "__init__" and floor[wing(importer)] < floor[wing(imported)]
    ]
    assert upward == []


def test_nothing_imports_a_mode():
    """main.py calls them; what two of them need is in a wing."""
    assert [
        f"{importer} imports {imported}"
        for importer, imported in imports()
        if wing(imported) in MODES and importer != "__main__"
    ] == []


def test_no_circle():
    """Not even between two files of one wing."""
    arrows: dict[str, set[str]] = {}
    for importer, imported in imports():
        arrows.setdefault(importer, set()).add(imported)
    on_the_way: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> None:
        assert module not in on_the_way, " -> ".join([*on_the_way, module])
        if module not in done:
            on_the_way.append(module)
            for imported in sorted(arrows.get(module, ())):
                visit(imported)
            done.add(on_the_way.pop())

    for module in sorted(arrows):
        visit(module)


def test_wings_open_without_imports():
    """Importing one file of a wing brings in no other."""
    for file in PACKAGE.glob("*/__init__.py"):
        (docstring,) = ast.parse(file.read_text()).body
        assert isinstance(docstring, ast.Expr), file


@pytest.mark.parametrize("folder", ["data", "segfix"])
def test_data_and_boundaries_do_without_jax(folder: str):
    """Worker processes start fast and leave the GPU alone (tests/data/test_pipeline.py looks into one)."""
    for file in (PACKAGE / folder).glob("*.py"):
        imported = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
        assert not imported & HEAVY, file


@pytest.mark.parametrize("module", WITHOUT)
def test_these_start_without(module: str):
    code = f"import sys, {module}; print({WITHOUT[module]} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


OF_NAMED_TUPLES = {"_replace", "_asdict", "_fields"}  # public all the same


def test_tests_use_public_names():
    """No module, function or attribute whose name begins with an underscore, but for a test class's own."""
    private = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self":
                names = [node.attr]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
                names = [x.value for x in node.args if isinstance(x, ast.Constant) and isinstance(x.value, str)]
            used = {name for name in names if name.startswith("_") and not name.endswith("__")}
            private += [f"{file.relative_to(ROOT)}:{node.lineno} {name}" for name in used - OF_NAMED_TUPLES]
    assert private == []
