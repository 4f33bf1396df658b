"""The files of configs/ that --config takes, and their variants."""

import re
from importlib import import_module
from types import ModuleType

import pytest

from ovenet_jax.errors import UserError
from tests.places import ROOT

_MODULES = [import_module(f"configs.{path.stem}") for path in sorted((ROOT / "configs").glob("*.py"))]
FILES = [module for module in _MODULES if hasattr(module, "get_config")]


def variants(file: ModuleType) -> list[str]:
    """Those that it names itself; openseg's are left out."""
    with pytest.raises(UserError) as error:
        file.get_config("?")
    return re.search("choose one of (.*); or", str(error.value))[1].split(", ")
