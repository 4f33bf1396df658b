"""A run's folder belongs to one config, saved in it as `config.json`."""

import json
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from ovenet_jax.errors import UserError

# Keys that change how a run is fed and watched, not what it computes: they may differ when it is resumed.
FREE_KEYS = (
    "data.root",
    "data.prepared",
    "data.workers",
    "report_every",
    "evaluate_every",
    "checkpoint_every",
    "eval.panels",
    "eval.batch_size",
)


def claim(workdir: Path, config: ConfigDict) -> None:
    """Makes `workdir` this config's, or finds that it already is.

    Raises:
      UserError: it holds a run of another config.
    """
    saved = _read(workdir)
    if saved is not None:
        differing = [
            f"{key} is {saved.get(key, 'absent')!r} there and {value!r} here"
            for key, value in _differences(config, saved).items()
            if key not in FREE_KEYS
        ]
        if differing:
            raise UserError(
                f"{workdir} holds the run of another config ({'; '.join(differing[:5])}); resume it with its own "
                f"config, or choose another --workdir."
            )
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / "config.json.tmp"
    temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    temporary.replace(workdir / "config.json")


def note_model_differences(workdir: Path, config: ConfigDict) -> None:
    """Says where the model to be evaluated is configured otherwise than it was trained."""
    saved = _read(workdir)
    if saved is None:
        raise UserError(f"{workdir} holds no run (no config.json); train it first, or check --workdir.")
    for key, value in _differences(config, saved).items():
        if key.startswith("model."):
            logging.warning(
                "config.%s is %r; the run was trained with %r.", key, value, saved.get(key, "absent")
            )


def _read(workdir: Path) -> dict | None:
    file = workdir / "config.json"
    return _flat(json.loads(file.read_text())) if file.exists() else None


def _differences(config: ConfigDict, saved: dict) -> dict:
    ours = _flat(json.loads(json.dumps(config.to_dict())))
    return {key: ours.get(key, "absent") for key in sorted(saved | ours) if saved.get(key) != ours.get(key)}


def _flat(tree: dict, prefix: str = "") -> dict:
    items = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            items |= _flat(value, f"{prefix}{key}.")
        else:
            items[f"{prefix}{key}"] = value
    return items
