"""A golden folder, and the comparison of our numbers with its own."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Case:
    """`case.json`, which says everything about the case, and the arrays of `io.npz`."""

    def __init__(self, folder: Path):
        self.name = folder.name
        self.spec = json.loads((folder / "case.json").read_text())
        self.io = dict(np.load(folder / "io.npz", allow_pickle=False))
        self.weights_file = folder / self.spec["weights"]["npz"] if "weights" in self.spec else None
        self.network = self.spec["config"].get("network")
        self.outputs = [name for name in self.io if name not in self.spec["inputs"]]

    def rule(self, array: str) -> dict:
        return self.spec["tolerance"]["arrays"][array]

    def image(self, name: str = "x", dtype=jnp.float32) -> jax.Array:
        return jnp.asarray(self.io[name].transpose(0, 2, 3, 1), dtype)

    def label(self) -> jax.Array:
        return jnp.asarray(self.io["target"], jnp.int32)


class Comparison(NamedTuple):
    case: str
    array: str
    error: float
    scale: float
    verdict: str  # "ok", "FAIL" or "not covered"

    def __str__(self) -> str:
        return f"{self.case} {self.array} {self.error:.3g} {self.scale:.3g} {self.verdict}"


def compare(case: Case, array: str, ours: np.ndarray | None) -> Comparison:
    """Ours, None where there is none, against the reference, both in its layout, under the case's own rule."""
    rule, reference = case.rule(array), np.asarray(case.io[array], np.float64)
    scale = np.abs(reference).max(initial=0)
    if ours is None:
        return Comparison(case.name, array, np.nan, scale, "not covered")
    ours = np.asarray(ours, np.float64).reshape(reference.shape)
    if np.isnan(reference).all() and reference.ndim == 0:
        # A loss over no valid pixel is NaN there and, on purpose, 0 here: see losses.py.
        return Comparison(case.name, array, 0.0, np.nan, "ok" if ours == 0 else "FAIL")
    passed = within(rule, ours, reference, case.io)
    error = np.abs(ours - reference).max(initial=0)
    return Comparison(case.name, array, error, scale, "ok" if passed else "FAIL")


def within(rule: dict, ours: np.ndarray, reference: np.ndarray, io: dict[str, np.ndarray]) -> bool:
    """Whether ours fulfils a tolerance rule of `case.json`, with all its finer parts."""
    difference, scale = np.abs(ours - reference), np.abs(reference).max(initial=0)

    def where_masked(finer: dict) -> bool:
        mask = io[finer["where"]] == 1
        return within(finer, ours[mask], reference[mask], io)

    checks = {
        "max_abs": lambda bound: difference.max(initial=0) <= bound,
        "max_rel_of_scale": lambda bound: difference.max(initial=0) <= bound * scale,
        "mismatch_fraction": lambda bound: (~(difference == 0)).mean() <= bound,
        "exact": lambda _: np.array_equal(ours, reference, equal_nan=True),
        "by_row": lambda rules: all(within(*row, io) for row in zip(rules, ours, reference, strict=True)),
        "within": where_masked,
    }
    applied = [checks[key](value) for key, value in rule.items() if key in checks]
    if not applied:
        raise ValueError(f"no rule that compares in {rule}")
    return all(applied)


def channels_first(x: jax.Array) -> np.ndarray:
    """[B, H, W, C] -> [B, C, H, W]."""
    return np.asarray(x).transpose(0, 3, 1, 2)


def torch_layout(x: jax.Array) -> np.ndarray:
    """Our parameter in PyTorch's layout: kernels [h, w, in, out] -> [out, in, h, w], vectors as they are."""
    return np.asarray(x).transpose(3, 2, 0, 1) if x.ndim == 4 else np.asarray(x)
