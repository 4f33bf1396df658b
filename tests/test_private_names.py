"""Names with an underscore that we use of libraries all the same: their next release may take them away."""

import ast
import itertools
import pkgutil
import sys
from collections.abc import Iterator

import pytest

from ovenet_jax.devices import environment
from tests.places import ROOT

# A name comes in here where its library has no public way to the same.
PRIVATE = {
    "jax._src.clusters.ClusterEnv.auto_detect_unset_distributed_params": "ovenet_jax/run/processes.py",
    "jaxlib._jax.CompileOptions": "ovenet_jax/devices/environment.py",
    "tensorflow_datasets.core.ShardBasedBuilder._download_and_prepare": "ovenet_jax/data/prepare.py",
    "tensorflow_datasets.core.ShardBasedBuilder._info": "ovenet_jax/data/prepare.py",
    "tensorflow_datasets.core.ShardBasedBuilder._shard_iterators_per_split": "ovenet_jax/data/prepare.py",
}
OURS = {"ovenet_jax", "benchmarks", "configs", "tests", "main"}
STARTED_AS_TEXT = {"ovenet_jax/devices/environment.py": environment.READ_FLAGS}


@pytest.mark.parametrize("name", PRIVATE)
def test_the_installed_library_has_it(name: str):
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{PRIVATE[name]} uses {name}, which the installed release lacks: {error}")


def test_every_use_is_listed():
    files = [ROOT / "main.py", *(file for folder in OURS for file in (ROOT / folder).rglob("*.py"))]
    sources = [(str(file.relative_to(ROOT)), file.read_text()) for file in files]
    found = {name: place for place, source in [*sources, *STARTED_AS_TEXT.items()] for name in uses(source)}
    assert found == PRIVATE


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import jax._src.core as core; core.Tracer", {"jax._src.core.Tracer"}),
        ("def f():\n    from flax.nnx import _graph as graph\n    return graph", {"flax.nnx._graph"}),
        ("import numpy as np; np._core.multiarray.scalar()", {"numpy._core.multiarray.scalar"}),
        ("import numpy as np; np.__version__; np.zeros(1)._own", set()),
        ("import os; os._exit(1)", set()),  # Python's own are documented
        ("import ast\nclass V(ast.NodeVisitor):\n    def _own(self): ...", set()),
    ],
)
def test_uses(source: str, found: set[str]):
    assert uses(source) == found


def uses(source: str) -> set[str]:
    """Full names that are private in libraries: imported ones, and methods of theirs that our classes have as well."""
    tree = ast.parse(source)
    imported = dict(imports(tree))
    found = set()
    for node in ast.walk(tree):
        name = full_name(node, imported)
        if is_private(name):
            found.add(name)
        if isinstance(node, ast.ClassDef):
            methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
            bases = [full_name(base, imported) for base in node.bases]
            for base, method in itertools.product(filter(None, bases), filter(is_private, methods)):
                if hasattr(pkgutil.resolve_name(base), method):
                    found.add(f"{base}.{method}")
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name in the source, full name) of what comes from libraries other than Python's own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.asname or alias.name.partition(".")[0], alias) for alias in node.names]
            pairs = [(name, alias.name if alias.asname else name) for name, alias in names]
        elif isinstance(node, ast.ImportFrom):
            pairs = [(alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names]
        else:
            continue
        for name, full in pairs:
            if full.partition(".")[0] not in OURS | sys.stdlib_module_names:
                yield name, full


def full_name(node: ast.AST, imported: dict[str, str]) -> str:
    """Of an imported name or what is read from one by dots; "" of everything else."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, "")
    if isinstance(node, ast.Attribute) and (value := full_name(node.value, imported)):
        return f"{value}.{node.attr}"
    return ""


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
