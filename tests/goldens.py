"""Compares ours with the numbers the published systems produced: `python -m tests.goldens DIR [DIR ...]`.

A golden folder holds `case.json`, `io.npz` and `weights.npz`; everything about a case is read from its
`case.json`. One line per array, `case array max_abs_error scale ok|FAIL|not covered`, and a last line
`N passed, M failed`; the exit code is 1 if anything failed.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovenet_jax.losses import (
    Ohem,
    _pixel_losses,
    confidence_loss,
    ohem_bound,
    ovenet_loss,
    segmentation_loss,
)
from ovenet_jax.models import parameters
from ovenet_jax.models.fcn import FCN
from ovenet_jax.models.hrnet import HRNet, Stage, fuse_resolutions
from ovenet_jax.models.layers import InitialValues
from ovenet_jax.models.ocr import OCR, gather_regions
from ovenet_jax.models.ovenet import OVeNet
from ovenet_jax.models.segmentor import Logits, Segmentor
from ovenet_jax.optimizer import create_optimizer, poly_schedule
from ovenet_jax.step import init_state, loss_and_gradients
from ovenet_jax.torch_weights import load_state_dict, rename


class Comparison(NamedTuple):
    case: str
    array: str
    error: float
    scale: float
    verdict: str  # "ok", "FAIL" or "not covered"

    def __str__(self) -> str:
        return f"{self.case} {self.array} {self.error:.3g} {self.scale:.3g} {self.verdict}"


class Case:
    """One golden folder."""

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

    def model(self) -> nnx.Module:
        weights = dict(np.load(self.weights_file, allow_pickle=False))
        return load_state_dict(build_model(self.network), weights, str(self.weights_file))


def build_model(network: dict) -> nnx.Module:
    """The network that `config.network` describes."""
    init = InitialValues(seed=0)
    backbone = network["backbone"]
    first, *stages = backbone["stages"]
    hrnet = HRNet(
        stages=[Stage(s["modules"], s["blocks"][0], tuple(s["channels"])) for s in stages],
        layer1_blocks=first["blocks"][0],
        layer1_width=first["planes"][0],
        stem_width=backbone["stem"]["channels"][0],
        align_corners=network["align_corners"],
        init=init,
    )
    features, classes = backbone["concat_channels"], network["num_classes"]
    head = network["head"]
    if head["type"] == "conv":
        head = FCN(features, classes, init=init)
    else:
        head = OCR(
            features,
            classes,
            mid_features=head["mid_channels"],
            key_features=head["key_channels"],
            dropout=network.get("dropout_in_this_case", head["dropout"]),
            init=init,
        )
    if "offset_head" not in network:
        return Segmentor(hrnet, head)
    offset = network["offset_head"]
    return OVeNet(
        hrnet,
        head,
        offset_branch=offset["branch"],
        offset_modules=tuple(stage["modules"] for stage in backbone["offset_stages"].values()),
        threshold=offset["threshold"],
        refinement=offset["refinement"],
        grid_align_corners=offset["grid_sample_align_corners"],
        logits=offset["logits"],
        init=init,
    )


def run_case(folder: str | Path) -> Iterator[Comparison]:
    """Compares every output array of a golden folder."""
    case = Case(Path(folder))
    ours = _compute(case)
    for array in case.outputs:
        yield compare(case, array, ours[array]) if array in ours else _not_covered(case, array)


def compare(case: Case, array: str, ours: np.ndarray) -> Comparison:
    """Ours against the reference, both in the reference's layout, under the case's own rule."""
    rule, reference = case.rule(array), np.asarray(case.io[array], np.float64)
    ours = np.asarray(ours, np.float64).reshape(reference.shape)
    if np.isnan(reference).all() and reference.ndim == 0:
        # A loss over no valid pixel is NaN there and, on purpose, 0 here: see losses.py.
        return Comparison(case.name, array, 0.0, np.nan, "ok" if ours == 0 else "FAIL")
    difference = np.abs(ours - reference)
    passed = within(rule, ours, reference, case.io)
    return Comparison(
        case.name,
        array,
        difference.max(initial=0),
        np.abs(reference).max(initial=0),
        "ok" if passed else "FAIL",
    )


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


def _not_covered(case: Case, array: str) -> Comparison:
    scale = np.abs(case.io[array].astype(np.float64)).max(initial=0)
    return Comparison(case.name, array, np.nan, scale, "not covered")


def is_covered(case: Case) -> bool:
    """Whether ours has what the case is about: losses on given maps, or the outputs or the training of our networks."""
    if case.network is None:
        return {"aux", "main", "offset", "f"} <= case.io.keys()
    ours = case.network["architecture"] in ("ovenet_hrnet_ocr", "hrnet", "hrnet_ocr")
    openseg = "key_layout" in case.network  # the same architectures in openseg's form
    holds_outputs = any(output["array"] in case.outputs for output in case.network["outputs"])
    return ours and not openseg and (holds_outputs or "optimizer" in case.spec)


def later_arrays(case: Case) -> set[str]:
    """The arrays of a covered case that belong to topics not covered yet."""
    groups = case.spec.get("groups", {})
    return {array for topic, arrays in groups.items() if topic != "forward_and_loss" for array in arrays}


def _compute(case: Case) -> dict[str, np.ndarray]:
    """All arrays of the case that ours can compute, in the reference's layout (channels first)."""
    if not is_covered(case):
        return {}
    if case.network is None:
        return _loss_values(case)
    if "optimizer" in case.spec:
        return _training(case)
    return _forward(case) | (_eval_losses(case) if "ohem" in case.spec else {})


def _forward(case: Case) -> dict[str, np.ndarray]:
    model = case.model()
    model.eval()
    graphdef, params, statistics = parameters.split(model)

    @jax.jit
    def run(params, statistics, image):
        model = parameters.merge(graphdef, params, statistics)
        return _output_arrays(model(image)) | _intermediate_arrays(model, image)

    return {name: _channels_first(x) for name, x in run(params, statistics, case.image()).items()}


def _output_arrays(output) -> dict[str, jax.Array]:
    if isinstance(output, Logits):
        return {name: x for name, x in (("aux", output.aux), ("out", output.main)) if x is not None}
    arrays = {"offset": output.offset, "confidence": output.confidence}
    for prefix, logits in (("s_i", output.initial), ("s_s", output.seed), ("s_f", output.fused)):
        arrays |= {f"{prefix}_aux": logits.aux, f"{prefix}_out": logits.main}
    return arrays


def _intermediate_arrays(model: nnx.Module, image: jax.Array) -> dict[str, jax.Array]:
    """The outputs of the named parts inside an OVeNet, `mid_*`."""
    if not isinstance(model, OVeNet):
        return {}
    stages = model.backbone(image)
    fuse = partial(fuse_resolutions, align_corners=model.align_corners)
    arrays = {"mid_layer1": stages[0][0]}
    for number, maps in enumerate(stages[1:], start=2):
        arrays |= {f"mid_stage{number}_{branch}": x for branch, x in enumerate(maps)}
    offset_stages = model.offset_trunk(stages[model.offset_branch - 2])
    for number, maps in enumerate(offset_stages, start=model.offset_branch):
        arrays |= {f"mid_stage{number}_2_{branch}": x for branch, x in enumerate(maps)}
    features = fuse(stages[-1])
    pixels = model.head.pixels(features)
    regions = gather_regions(pixels, model.head.aux(features))
    return arrays | {
        "mid_conv3x3_ocr": pixels,
        "mid_ocr_gather_head": regions[:, :, None],
        "mid_ocr_distri_head": model.head.augment(pixels, regions),
        "mid_aux_head_offset": model.offset_head.classifier(fuse(offset_stages[-1])),
    }


def _eval_losses(case: Case) -> dict[str, np.ndarray]:
    model = case.model()
    model.eval()
    logits = model(case.image())
    ohem = Ohem(case.spec["ohem"]["thres"], case.spec["ohem"]["min_kept"], group=case.spec["batch"])
    options = {"class_weights": case.io["class_weights"], "align_corners": case.network["align_corners"]}
    return {
        "loss_ce": segmentation_loss(logits, case.io["target"], **options),
        "loss_ohem": segmentation_loss(logits, case.io["target"], ohem=ohem, **options),
    }


def _training(case: Case) -> dict[str, np.ndarray]:
    single = _train(case, jnp.float32)
    with jax.enable_x64(True):
        double = _train(case, jnp.float64)
    arrays = {}
    for name in case.outputs:
        results = double if case.rule(name).get("precision") == "float64" else single
        value = results.get(_our_name(name.removesuffix("_f64")))
        if value is not None:
            arrays[name] = value
    return arrays


def _our_name(array: str) -> str:
    """grad.<published key> -> grad.<our name>; other names as they are."""
    prefix, _, key = array.partition(".")
    return f"{prefix}.{rename(key)}" if key else array


def _train(case: Case, dtype) -> dict[str, np.ndarray]:
    """The case's steps with our loss and optimizer -> its arrays under our names, in the reference's layout."""
    optimizer_spec, loss_spec = case.spec["optimizer"], case.spec["loss"]
    ohem = None
    if loss_spec["ohem_threshold"] is not None:
        ohem = Ohem(loss_spec["ohem_threshold"], loss_spec["ohem_min_kept"], group=case.spec["batch"])
    loss = partial(
        ovenet_loss,
        aux_weight=loss_spec["balance_weights"][0],
        class_weights=np.asarray(case.io["class_weights"], dtype),
        ohem=ohem,
        align_corners=case.network["align_corners"],
        grid_align_corners=loss_spec["grid_sample_align_corners"],
        confidence_weight=float(case.spec["batch"]),  # the published sum over the batch, ours a mean
    )
    schedule = poly_schedule(
        optimizer_spec["lr"], optimizer_spec["poly_total_iterations"], optimizer_spec["poly_power"]
    )
    optimizer = create_optimizer(
        schedule, momentum=optimizer_spec["momentum"], weight_decay=optimizer_spec["weight_decay"]
    )
    model = case.model()
    graphdef, *_ = parameters.split(model)
    state = jax.tree.map(
        lambda x: jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype),
        init_state(model, optimizer),
    )
    gradients_of = jax.jit(partial(loss_and_gradients, graphdef, loss=loss, dropout_key=jax.random.key(0)))
    image, label = case.image(dtype=dtype), jnp.asarray(case.io["target"], jnp.int32)
    arrays, rows, rates = {}, [], []
    params, statistics, opt_state = state.params, state.statistics, state.opt_state
    for step in range(optimizer_spec["steps"]):
        (terms, output, statistics), gradients = gradients_of(params, statistics, image, label)
        rows.append([terms[key] for key in ("initial", "seed", "fused", "confidence", "total")])
        rates.append(schedule(step))
        if step == 0:
            arrays |= {f"train_{k}": _channels_first(x) for k, x in _output_arrays(output).items()}
            arrays |= {f"grad.{k}": _torch_layout(x) for k, x in gradients.items()}
            arrays |= {f"stats1.{k}": x for k, x in statistics.items()}
            arrays["losses_step1"] = rows[0]
            if ohem is not None:
                arrays |= _ohem_arrays(output, label, ohem, case.network["align_corners"])
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
    arrays |= {f"param3.{k}": _torch_layout(x) for k, x in params.items()}
    arrays |= {f"stats3.{k}": x for k, x in statistics.items()}
    return arrays | {"losses": np.asarray(rows), "lrs": np.asarray(rates)}


def _ohem_arrays(output, label: jax.Array, ohem: Ohem, align_corners: bool) -> dict[str, np.ndarray]:
    arrays = {}
    for name, logits in (("s_i", output.initial), ("s_s", output.seed), ("s_f", output.fused)):
        *_, probability = _pixel_losses(logits.main, label, None, align_corners)
        valid = label != 255
        at_keep, bound = ohem_bound(probability, valid, ohem)
        counts = [(valid & (probability < bound)).sum(), valid.sum()]
        arrays |= {f"ohem_{name}": np.array([at_keep, bound, *counts])}
        arrays |= {f"ohem_{name}_probs": np.array([at_keep, bound]), f"ohem_{name}_counts": np.array(counts)}
    return arrays


def _loss_values(case: Case) -> dict[str, np.ndarray]:
    """A case of loss functions on given tensors; how each was computed is in its name."""
    aux, main, offset, f = (case.image(name) for name in ("aux", "main", "offset", "f"))
    label = jnp.asarray(case.io["target"], jnp.int32)
    all_ignored = jnp.full_like(label, 255)
    one_valid = all_ignored.at[0, 3, 4].set(2)
    batch, valid = label.shape[0], int((case.io["target"] != 255).sum())
    weights = jnp.asarray(case.io["class_weights"])

    def both(main, label=label, align=True, class_weights=weights, ohem=None):
        options = {"class_weights": class_weights, "align_corners": align}
        return segmentation_loss(Logits(aux, main), label, ohem=ohem, **options)

    def single(main, label=label, ohem=None):
        options = {"class_weights": weights, "align_corners": True}
        return segmentation_loss(Logits(None, main), label, ohem=ohem, **options)

    def confidence(f, offset=offset, label=label, align=True):
        return batch * confidence_loss(offset, f, label, grid_align_corners=align)

    named: dict[str, tuple[Callable, jax.Array]] = {
        "ce_single": (single, main),
        "ohem_single": (partial(single, ohem=Ohem(0.7, valid // 3, batch)), main),
        "ce_all_ignored": (partial(single, label=all_ignored), main),
        "ohem_all_ignored": (partial(single, label=all_ignored, ohem=Ohem(0.7, 1, batch)), main),
        "ohem_one_valid": (partial(single, label=one_valid, ohem=Ohem(0.7, 1, batch)), main),
        "ohem_nothing_below": (partial(single, ohem=Ohem(0.0, 1, batch)), main),
        "conf_all_ignored": (partial(confidence, label=all_ignored), f),
    }
    for align in (0, 1):
        named[f"conf_gs{align}"] = (partial(confidence, align=bool(align)), f)
        full = partial(confidence, offset=case.image("offset_full"), align=bool(align))
        named[f"conf_full_gs{align}"] = (full, case.image("f_full"))
    pattern = r"(ce|ohem)_ac([01])_(w|nw)(?:_t([\d.]+)_k(\d+))?$"
    for match in filter(None, (re.match(pattern, name) for name in case.outputs)):
        kind, align, weighted, threshold, keep = match.groups()
        ohem = Ohem(float(threshold), int(keep), batch) if kind == "ohem" else None
        class_weights = weights if weighted == "w" else None
        named[match[0]] = (partial(both, align=align == "1", class_weights=class_weights, ohem=ohem), main)

    arrays = {}
    for name, (function, argument) in named.items():
        value, gradient = jax.value_and_grad(function)(argument)
        suffix = "f" if argument is f else "main"
        arrays |= {name: value, f"{name}_grad_{suffix}": _channels_first(gradient)}
    return arrays


def _channels_first(x: jax.Array) -> np.ndarray:
    return np.asarray(x).transpose(0, 3, 1, 2)


def _torch_layout(x: jax.Array) -> np.ndarray:
    return np.asarray(x).transpose(3, 2, 0, 1) if x.ndim == 4 else np.asarray(x)


def main(folders: list[str]) -> int:
    passed = failed = 0
    for folder in folders:
        for comparison in run_case(folder):
            print(comparison, flush=True)
            passed += comparison.verdict == "ok"
            failed += comparison.verdict == "FAIL"
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
