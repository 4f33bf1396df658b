"""Completes, checks, compares and prints configs by the table of their keys, configs/keys.py."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from ovenet_jax.configs.keys import KEYS, OWN, PART, faults_between
from ovenet_jax.errors import UserError, nearest


def resolved(config: ConfigDict, given: Iterable[str] = ()) -> ConfigDict:
    """Fills in defaults, leaves out keys without effect, and checks the values.

    given: keys that the command line sets. Raises UserError: an invalid value, a missing key, or a given key without
    effect.
    """
    values = completed(config)
    if idle := [key for key in given if key in KEYS and key not in values]:
        raise UserError(unknown(idle[0]))
    for key, known in KEYS.items():
        if known.default is OWN and known.when.holds(values) and key not in values:
            raise UserError(f"config.{key} is missing; it must be {known.values.wanted}.")
    result = nested(values)
    check(result)
    return result


def check(config: ConfigDict, prefix: str = "") -> None:
    """Raises UserError for invalid values of `config`. prefix: of its keys, if it is a part of a config."""
    values = leaves(config.to_dict(), prefix)
    for key, value in values.items():
        if key in KEYS and not KEYS[key].values.include(value):
            raise UserError(f"config.{key} is {value!r}; it must be {KEYS[key].values.wanted}.")
    for fault in faults_between(values):
        raise UserError(fault)


def unknown(key: str) -> str:
    """The message for a key that a config does not have."""
    if key in KEYS:
        return f"config.{key} has an effect only {KEYS[key].when.where or 'in other variants'}; leave it out."
    known = {name.rpartition(".")[2]: name for name in KEYS} | {name: name for name in KEYS}
    similar = nearest(key, known) or nearest(key.rpartition(".")[2], known)
    return f"There is no key config.{key}{similar}; --mode=config lists all with their meanings."


def completed(config: ConfigDict) -> dict[str, Any]:
    """The values of `config` by dotted keys, with defaults, without keys that have no effect."""
    values = defaults() | leaves(with_tuples(config.to_dict()))
    return {key: value for key, value in values.items() if key not in KEYS or KEYS[key].when.holds(values)}


def defaults(prefix: str = "") -> dict[str, Any]:
    """The defaults of the keys that begin with `prefix`."""
    values = {key: known.default for key, known in KEYS.items() if key.startswith(prefix)}
    return {key: value for key, value in values.items() if value is not OWN and value is not PART}


def published(name: str) -> ConfigDict | None:
    """The config in configs/ of this name (file and variant), or None."""
    file, _, variant = name.partition("-")
    try:
        return importlib.import_module(f"ovenet_jax.configs.{file}").get_config(variant)
    except (ImportError, AttributeError, UserError):
        return None


def as_text(config: ConfigDict) -> str:
    """Every key with its value and meaning; marks values that differ from configs/."""
    shipped = published(config.name)
    before = completed(shipped) if shipped else {}
    lines = []
    for key, value in sorted(leaves(config.to_dict()).items()):
        known, differs = KEYS.get(key), shipped and value != before.get(key, value)
        said = f"{known.meaning}{f' ({known.source})' if known.source else ''}" if known else ""
        instead = f"; in configs/: {before[key]!r}" if differs else ""
        lines.append(f"{'*' if differs else ' '} {f'{key} = {value!r}':<50}  # {said}{instead}")
    compared = f"{config.name} is not a config of configs/, so there is nothing to compare with."
    if shipped:
        count, file = sum(line.startswith("*") for line in lines), config.name.replace("-", ".py:", 1)
        marked = f"{count} of {len(lines)} values, marked by *, differ from configs/{file}"
        compared = f"{marked}; the sources of published values are in brackets."
    return "\n".join([*lines, "", compared])


# ---- dotted keys ----


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested dict by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def nested(values: Mapping[str, Any]) -> ConfigDict:
    """The inverse of `leaves`. Raises UserError: a key that is also the prefix of another."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parts, last = key.split(".")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UserError(f"config.{key} cannot be set: {part} is a value.")
        if last in place:
            raise UserError(f"config.{key} is {value!r}; it must hold keys, such as {key}.{next(iter(place[last]))}.")
        place[last] = config_dict.placeholder(KEYS[key].values.kind) if value is None and key in KEYS else value
    return ConfigDict(tree)


def with_tuples(value: Any) -> Any:
    """A value read from JSON, with its lists as tuples."""
    if isinstance(value, dict):
        return {key: with_tuples(inner) for key, inner in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value
