"""Published PyTorch weights -> our parameters, by name.

A published state dict is renamed by the table of its code base (published_names.py) and transposed to our layout;
nothing is guessed: every key must land and every parameter must be filled.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from ovenet_jax.errors import UserError
from ovenet_jax.weights import pth_file
from ovenet_jax.weights.published_names import recognise, why_ignored

NARROW = (np.float16, ml_dtypes.bfloat16)
ABN_EPS = 1e-5  # of in-place ABN: added to its scale, and to the variance as in BatchNorm


def in_place_abn(keys: Iterable[str]) -> set[str]:
    """Of these state-dict keys, the scales of in-place ABN.

    BatchNorm has a step counter beside it, and in heads lies one level deeper, in a sequence with its activation.
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
    """Of these state-dict keys, those of our arrays of these names: key -> name."""
    keys = list(keys)
    code_base = recognise(keys)
    title = code_base.title_of(keys)
    name_of = {code_base.key(name, title): name for name in names}
    return {key: name_of[plain] for key in keys if (plain := code_base.plain(key)) in name_of}


def fill(
    expected: Mapping[str, np.ndarray | jax.Array], state_dict: Mapping[str, np.ndarray], source: str
) -> dict[str, np.ndarray]:
    """For each of our arrays in `expected`, the published one of that name, in its layout and type.

    A module that is stored under two names fills one array.

    Raises UserError: naming all keys without a target, all arrays left unfilled, all wrong shapes, all keys of one
    array that differ, and all values that are no finite floating-point numbers.
    """
    names, keys = matched(expected, state_dict), {}
    problems = [f"{key} has no target" for key in state_dict if key not in names and why_ignored(key) is None]
    for key, name in names.items():
        first = keys.setdefault(name, key)
        if not np.array_equal(state_dict[key], state_dict[first]):
            problems.append(f"{key} and {first} are both {name}, and differ")
    problems += [f"nothing fills {name} {expected[name].shape}" for name in expected.keys() - keys.keys()]
    arrays = {}
    for name, key in keys.items():
        value = state_dict[key]
        ours = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value  # [out, in, h, w] -> [h, w, in, out]
        if ours.shape != expected[name].shape:
            problems.append(f"{key} has shape {ours.shape} (channels last), {name} needs {expected[name].shape}")
            continue
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and named below
            arrays[name] = ours.astype(expected[name].dtype)
        if not np.issubdtype(value.dtype, np.floating):
            problems.append(f"{key} holds {value.dtype}, not floating-point numbers")
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"{key} holds numbers that are not finite")
    if problems:
        raise UserError(
            f"{source} does not fit the configured model ({len(problems)} problems); check the model part of "
            f"the config against the checkpoint: {'; '.join(sorted(problems))}."
        )
    return arrays


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """The state dict in a `.pth` file (plain, or under "state_dict" of a training checkpoint) as numpy arrays. Raises
    UserError: the file is damaged or holds something else."""
    if not Path(path).is_file():
        raise UserError(f"{path} is no file; give a .pth file.")
    try:
        content = pth_file.read(Path(path))
    except pth_file.HoldsObjectsError as error:
        raise UserError(
            f"{path} holds Python objects ({error}), and loading those would run code from the file; save the "
            f"network's state_dict() alone where you trust it, and import that."
        ) from error
    except Exception as error:  # whatever a damaged or foreign file leads to
        raise UserError(
            f"{path} cannot be read as a PyTorch checkpoint ({type(error).__name__}); check that it is a whole "
            f".pth file, not cut off or something else."
        ) from error
    state_dict = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state_dict, dict) or not all(isinstance(x, np.ndarray) for x in state_dict.values()):
        raise UserError(
            f"{path} holds no state dict, that is names with arrays, plain or under 'state_dict'; save the network's "
            f"state_dict() and import that."
        )
    if not state_dict:
        raise UserError(f"{path} holds an empty state dict; save the network's state_dict() and import that.")
    narrow = sorted({str(value.dtype) for value in state_dict.values() if _widened(value) is not value})
    if narrow:
        print(f"Note: {path} holds {' and '.join(narrow)} numbers, which are widened to float32.")
    return {str(key): _widened(value) for key, value in state_dict.items()}


def _widened(value: np.ndarray) -> np.ndarray:
    """Floating-point numbers of 16 bits as float32, others as they are."""
    return value.astype(np.float32) if value.dtype in NARROW else value
