"""The files of configs/ that --config takes, and their variants; what is kept of them: tests/configs, docs/config.md.

python -m tests.config_files    # writes both anew
"""

import json
import re
import textwrap
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from ml_collections import ConfigDict

from configs import openseg
from ovenet_jax import described
from ovenet_jax.configs.keys import FREE, KEYS, OWN, PART, Key
from ovenet_jax.errors import UserError
from tests.places import ROOT

_MODULES = [import_module(f"configs.{path.stem}") for path in sorted((ROOT / "configs").glob("*.py"))]
FILES = [module for module in _MODULES if hasattr(module, "get_config")]


def variants(file: ModuleType) -> list[str]:
    """Those that it names itself; openseg's are left out."""
    with pytest.raises(UserError) as error:
        file.get_config("?")
    return re.search("choose one of (.*); or", str(error.value))[1].split(", ")


# All of them, but of openseg's heads and backbones: each on Cityscapes, and four of them elsewhere.
SOME = ["ocr_w48", "ovenet_ocr_w48", "base_oc_r101", "ovenet_isa_r50"]
OPENSEG = [f"{head}_r101" for head in openseg.HEADS] + [f"{head}_w48" for head in openseg.HRNET_HEADS]
OPENSEG += [f"ocr_{backbone}" for backbone in openseg.BACKBONES] + [f"ovenet_ocr_{b}" for b in openseg.BACKBONES]
OPENSEG += ["base_oc_r101_ohem", "base_oc_r101_stage2", "ocnet_base_oc_r101_stage2", "ovenet_isa_r50"]
NAMED = [(file, variant) for file in FILES for variant in variants(file)]
NAMED += [(file, variant) for file in FILES for variant in (OPENSEG if "cityscapes" in file.__name__ else SOME)]
VARIANTS = list(dict.fromkeys(NAMED))

DOCUMENT = ROOT / "docs" / "config.md"
SECTIONS = {
    "": "The run",
    "init": "Where a new run takes its initial values from",
    "model": "The network",
    "loss": "The loss",
    "optimizer": "The optimizer",
    "data": "The data",
    "augment": "Training augmentation",
    "eval": "Tests",
    "predict": "Predictions",
    "non_finite": "Steps whose loss, or parameters after them, are not finite",
}


def kept(config: ConfigDict) -> Path:
    return ROOT / "tests" / "configs" / f"{config.name}.json"


def as_text(config: ConfigDict) -> str:
    """One line for each key."""
    values = sorted(described.leaves(config.to_dict()).items())
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in values]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def document() -> str:
    """docs/config.md"""
    lines = [
        "# Keys of a config",
        "",
        "Made of `configs/keys.py` by `python -m tests.config_files`. `--config.KEY=VALUE` sets a key;",
        "`--mode=config` prints those of a config, or of the run in `--workdir`, with their values, and marks what",
        "differs from the file in `configs/`.",
        "",
        "A key is in a config where it has an effect; elsewhere it is refused. A default is OVeNet's published value",
        "where one was published; the source is the key of the experiment files of OVeNet, HRNet and HRNet-OCR, or of",
        "openseg's. Without a default (-) each config sets the key, or the part of the network that it belongs to.",
        "",
        "When a run is resumed, other values may be given to",
        *textwrap.wrap(f"{', '.join(f'`{key}*`' if key[-1] == '.' else f'`{key}`' for key in FREE)}.", 110),
    ]
    for section, title in SECTIONS.items():
        lines += ["", f"## {title}", "", "| key | default | it must be | meaning | has an effect | source |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [_row(key, known) for key, known in KEYS.items() if (key.split(".")[:-1] or [""])[0] == section]
    return "\n".join(lines) + "\n"


def _row(key: str, known: Key) -> str:
    default = "-" if known.default in (OWN, PART) else f"`{known.default!r}`"
    where = known.when.where or ("with that part" if known.default is PART else "always")
    cells = f"`{key}`", default, known.values.wanted, known.meaning, where, known.source or "-"
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    for file, variant in VARIANTS:
        config = described.resolved(file.get_config(variant))
        kept(config).parent.mkdir(exist_ok=True)
        kept(config).write_text(as_text(config))
    DOCUMENT.write_text(document())
