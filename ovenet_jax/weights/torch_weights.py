"""Published PyTorch weights -> our parameters, by name.

A published state dict is renamed by the table of its code base (published_names.py) and transposed to our layout;
nothing is guessed: every key must land and every parameter must be filled.
"""

import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError, cause_of, listed
from ovenet_jax.tables import number_of
from ovenet_jax.weights import pth_file
from ovenet_jax.weights.published_names import PREFIX, recognise, why_ignored

ABN_EPS = 1e-5  # of in-place ABN: added to |weight|, and to the variance as in BatchNorm


def in_place_abn(keys: Iterable[str]) -> set[str]:
    """The state-dict keys among these that are scales of in-place ABN.

    BatchNorm differs: it has a step counter, or (in heads) is one level deeper, in a sequence with its activation.
    """
    keys = set(keys)
    if not recognise(keys).in_place_abn:
        return set()
    norms = {key.removesuffix("running_var") for key in keys if key.endswith(".running_var")}
    plain = {norm for norm in norms if f"{norm}num_batches_tracked" in keys or re.search(r"\.\d\.0\.$", norm)}
    return {f"{norm}weight" for norm in norms - plain}


def fold_in_place_abn(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`state_dict` with in-place ABN's scales as BatchNorm's: the published kernels scale by |weight| + eps."""
    scales = in_place_abn(state_dict)
    return {key: np.abs(x) + ABN_EPS if key in scales else x for key, x in state_dict.items()}


def matched(names: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """The state-dict keys that belong to our arrays `names`: key -> name."""
    keys = list(keys)
    code_base = recognise(keys)
    title = code_base.title_of(keys)
    name_of = {code_base.key(name, title): name for name in names}
    return {key: name_of[plain] for key in keys if (plain := code_base.plain(key)) in name_of}


def fill(
    expected: Mapping[str, np.ndarray | jax.Array], state_dict: Mapping[str, np.ndarray], source: str
) -> dict[str, np.ndarray]:
    """The published array for each of our arrays in `expected`, in its layout and type.

    A module stored under two names fills one set of arrays; biases that the code base lacks become 0.

    Raises UserError: lists unmatched keys, unfilled arrays, wrong shapes, keys of one array that differ, and values
    that are not finite floating-point numbers.
    """
    names = matched(expected, state_dict)
    keys: dict[str, str] = {}  # name -> its first key
    problems = [f"{key} has no target" for key in state_dict if key not in names and why_ignored(key) is None]
    for key, name in names.items():
        first = keys.setdefault(name, key)
        if key != first and not np.array_equal(state_dict[key], state_dict[first]):
            problems.append(f"{key} and {first} both map to {name}, but differ")
    absent = re.compile(recognise(state_dict).absent)
    arrays = {name: np.zeros_like(expected[name]) for name in expected.keys() - keys.keys() if absent.search(name)}
    missing = sorted(expected.keys() - keys.keys() - arrays.keys())
    for name, key in keys.items():
        value = state_dict[key]
        ours = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value  # [out, in, h, w] -> [h, w, in, out]
        if ours.shape != expected[name].shape:
            problems.append(f"{key} has shape {ours.shape} (channels last), {name} needs {expected[name].shape}")
            continue
        with np.errstate(over="ignore"):  # overflow gives inf, named below
            arrays[name] = ours.astype(expected[name].dtype)
        if not np.issubdtype(value.dtype, np.floating):
            problems.append(f"{key} holds {value.dtype}, not floating-point numbers")
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"{key} holds numbers that are not finite")
    problems += [f"nothing fills {name} {expected[name].shape}" for name in missing]
    if problems:
        fault = f"{source} does not fit the configured model ({number_of(len(problems), 'problem')})"
        raise UserError(f"{fault}; check the model part of the config against the checkpoint:{listed(problems)}")
    return arrays


def read_file(path: Path, entry: str = "") -> dict[str, np.ndarray]:
    """The state dict in a `.pth` or `.safetensors` file as numpy arrays: plain, or an entry of a training checkpoint,
    which `entry` names where several are state dicts. Raises UserError: the file is damaged or holds something else,
    no such entry, or several."""
    if not path.is_file():
        raise UserError(f"{path} is not a file; give a .pth or .safetensors file.")
    try:
        read = import_module("safetensors.numpy").load_file if path.suffix == ".safetensors" else pth_file.read
        content = read(path)
    except ImportError as error:
        raise UserError(f"{path} needs the package safetensors to be read: `pip install safetensors`.") from error
    except Exception as error:  # whatever a damaged or foreign file leads to
        if cause_of(error):
            raise  # a system fault, not a damaged file
        fault = f"{path} cannot be read as a checkpoint ({type(error).__name__})"
        helps = "check that it is a whole .pth or .safetensors file, not cut off or something else"
        raise UserError(f"{fault}; {helps}.") from error
    state_dict = _state_dict(content, path, entry)
    if narrow := sorted({str(value.dtype) for value in state_dict.values() if _widened(value) is not value}):
        parallel.say(f"Note: {path} holds {' and '.join(narrow)} numbers, which are widened to float32.")
    return {key: _widened(value) for key, value in state_dict.items()}


def _state_dict(content: Any, path: Path, entry: str) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        content = {"": content if isinstance(content, pth_file.Foreign) else None}
    if not content:
        raise UserError(f"{path} holds an empty state dict; save the network's state_dict() and import that.")
    dicts = {str(name): x for name, x in content.items() if isinstance(x, dict)} | {"": content}
    arrays = {name: {str(k): x for k, x in part.items() if isinstance(x, np.ndarray)} for name, part in dicts.items()}
    found = {name: part for name, part in arrays.items() if part}
    # Checkpoints may hold other dicts with arrays: random states, or the scale of gradients.
    found = {name: part for name, part in found.items() if any(x.ndim == 4 for x in part.values())} or found
    found = {name: part for whole in found.items() for name, part in _networks(*whole).items()}
    if (entry and entry not in found) or (not entry and len(found) > 1):
        given = f"no state dict under {entry!r}, but" if entry else "several state dicts,"
        under = " and ".join(map(repr, found))
        raise UserError(f"{path} holds {given} under {under}; choose one: --source={path}:{next(iter(found), '')}.")
    chosen = entry or next(iter(found), None)
    held = (x for name, part in dicts.items() if chosen in (name, None) for x in part.values())
    if objects := [x.name for x in held if isinstance(x, pth_file.Foreign)]:
        fault = f"{path} holds Python objects ({objects[0]}), and loading those would run code from the file"
        helps = "if you trust it, load it in PyTorch, save only the network's state_dict() and import that"
        raise UserError(f"{fault}; {helps}.")
    if chosen is None:
        helps = "save the network's state_dict() and import that"
        raise UserError(f"{path} holds no state dict, a dict of names and arrays; {helps}.")
    return found[chosen]


def _networks(name: str, state_dict: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The networks in a state dict, by their wrappers' names where it has several: a network and its average, as
    Lightning saves them."""
    kernels = [key for key, x in state_dict.items() if x.ndim == 4]
    wrappers = {key.partition(".")[0] for key in kernels if re.sub(PREFIX, "", key) != key}
    if len(wrappers) < 2:
        return {name: state_dict}
    return {one: {k: x for k, x in state_dict.items() if k.startswith(f"{one}.")} for one in sorted(wrappers)}


def _widened(value: np.ndarray) -> np.ndarray:
    """Floating-point numbers of 16 bits as float32, others as they are."""
    return value.astype(np.float32) if value.dtype in (np.float16, ml_dtypes.bfloat16) else value
