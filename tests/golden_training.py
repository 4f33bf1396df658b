"""Losses, gradients, BatchNorm statistics and steps of training."""

import re
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.models import parameters
from ovenet_jax.models.contracts import Logits
from ovenet_jax.models.segfix import SegFixOutput
from ovenet_jax.run.state import init_state
from ovenet_jax.segfix.ground_truth import GroundTruth
from ovenet_jax.segfix.labels import boundary_and_direction, training_label
from ovenet_jax.supervision.losses import (
    Ohem,
    confidence_loss,
    ohem_bound,
    ovenet_loss,
    pixel_losses,
    rarity,
    segfix_loss,
    segmentation_loss,
)
from ovenet_jax.training.optimizer import create_optimizer, poly_schedule
from ovenet_jax.training.step import loss_and_gradients
from ovenet_jax.weights.published_keys import HRNET
from tests.golden_case import Case, channels_first, torch_layout
from tests.golden_outputs import evaluate, load_model, output_arrays

AUX_WEIGHT = 0.4  # published
TERMS = ("initial", "seed", "fused", "confidence", "total")


def baseline_losses(case: Case) -> dict[str, np.ndarray]:
    """Cross entropy and OHEM of a baseline in evaluation mode."""
    logits = evaluate(case)
    ohem = _published_ohem(case.spec["ohem"]["thres"], case.spec["ohem"]["min_kept"], case.spec["batch"])
    options = {
        "aux_weight": AUX_WEIGHT,
        "class_weights": case.io["class_weights"],
        "align_corners": case.network["align_corners"],
    }
    return {
        "loss_ce": jax.jit(partial(segmentation_loss, **options))(logits, case.label()),
        "loss_ohem": jax.jit(partial(segmentation_loss, ohem=ohem, **options))(logits, case.label()),
    }


def criteria(case: Case) -> dict[str, np.ndarray]:
    """The loss terms of each of the case's criteria in both modes, with the gradients and statistics of training."""
    graphdef, *of_model = parameters.split(load_model(case))
    dtype = jnp.float64 if case.name.startswith("10f") else jnp.float32  # rounding decides one ReLU there
    step = partial(loss_and_gradients, graphdef, loss=_either_loss(case, dtype), dropout_key=jax.random.key(0))
    step, evaluated = jax.jit(step, compiler_options=_options(dtype)), jax.jit(_either_loss(case))
    arrays = {}
    for name, numbers in case.spec["losses"]["criteria_numbers"].items():
        given = case.label(), _mining(numbers)
        with jax.enable_x64(dtype == jnp.float64):
            params, statistics = jax.tree.map(lambda x: jnp.asarray(x, dtype), of_model)
            (terms, _, after), gradients = step(params, statistics, case.image(dtype=dtype), given)
        arrays[f"loss_{name}_eval"] = _row(evaluated(evaluate(case), given))
        arrays[f"loss_{name}_train"] = _row(terms)
        arrays |= {f"grad_{name}.{k}": torch_layout(x) for k, x in gradients.items()}
        arrays |= {f"stats1.{k}": x for k, x in after.items()}
    arrays = _published_names(arrays)
    return {name: arrays[_plain_name(name)] for name in case.outputs if _plain_name(name) in arrays}


def segfix_losses(case: Case) -> dict[str, np.ndarray]:
    """SegFix's terms for the maps that the case gives, of the ground truth it gives; and their gradients."""
    truth = GroundTruth(case.io["depth"], case.io["dir_deg"])
    label = jnp.asarray(training_label(truth, case.io["seg_label"] < 0, directions=8)[None], jnp.int32)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(output):
        terms = segfix_loss(output, label, align_corners=True)
        return terms["total"], terms

    (total, terms), gradients = loss(SegFixOutput(case.image("pred_mask"), case.image("pred_dir")))
    return {
        "loss": total,
        "loss_mask": terms["boundary"],
        "loss_dir": terms["direction"],
        "grad_mask": channels_first(gradients.boundary),
        "grad_dir": channels_first(gradients.direction),
        "mask_class_weights": rarity(boundary_and_direction(label, directions=8)[0], 2),
    }


def training(case: Case) -> dict[str, np.ndarray]:
    """The case's steps, in the precision that the rule of each array asks for."""
    single = _published_names(_train(case, jnp.float32))
    with jax.enable_x64(True):
        double = _published_names(_train(case, jnp.float64))
    arrays = {}
    for name in case.outputs:
        results = double if case.rule(name).get("precision") == "float64" else single
        value = results.get(_plain_name(name.removesuffix("_f64")))
        if value is not None:
            arrays[name] = value
    return arrays


def _train(case: Case, dtype) -> dict[str, np.ndarray]:
    """The case's steps with our loss and optimizer -> its arrays under our names, in the reference's layout."""
    spec = case.spec["optimizer"]
    numbers = case.spec["loss"]
    loss = partial(_either_loss(case, dtype), aux_weight=numbers["balance_weights"][0])
    schedule = poly_schedule(spec["lr"], spec["poly_total_iterations"], spec["poly_power"])
    optimizer = create_optimizer(schedule, momentum=spec["momentum"], weight_decay=spec["weight_decay"])
    model = load_model(case)
    graphdef, *_ = parameters.split(model)
    state = jax.tree.map(
        lambda x: jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype),
        init_state(model, optimizer),
    )
    gradients_of = partial(loss_and_gradients, graphdef, loss=loss, dropout_key=jax.random.key(0))
    gradients_of = jax.jit(gradients_of, compiler_options=_options(dtype))

    @jax.jit  # one program, not one per kind of array
    def updated(gradients, opt_state, params):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return jax.tree.map(jnp.add, params, updates), opt_state

    image, label, mining = case.image(dtype=dtype), case.label(), _mining(numbers)
    arrays, rows, rates = {}, [], []
    params, statistics, opt_state = state.params, state.statistics, state.opt_state
    for step in range(spec["steps"]):
        (terms, output, statistics), gradients = gradients_of(params, statistics, image, (label, mining))
        rows.append(_row(terms))
        rates.append(schedule(step))
        if step == 0:
            arrays |= {f"train_{k}": channels_first(x) for k, x in output_arrays(output).items()}
            arrays |= {f"grad.{k}": torch_layout(x) for k, x in gradients.items()}
            arrays |= {f"stats1.{k}": x for k, x in statistics.items()}
            arrays["losses_step1"] = rows[0]
            if mining["on"]:
                ohem = _published_ohem(mining["threshold"], mining["keep"], case.spec["batch"])
                ranked = jax.jit(partial(_ohem_arrays, ohem=ohem, align_corners=case.network["align_corners"]))
                arrays |= ranked(output, label)
        params, opt_state = updated(gradients, opt_state, params)
    arrays |= {f"param3.{k}": torch_layout(x) for k, x in params.items()}
    arrays |= {f"stats3.{k}": x for k, x in statistics.items()}
    return arrays | {"losses": np.asarray(rows), "lrs": np.asarray(rates)}


def _options(dtype) -> dict[str, int] | None:
    """Float64 convolutions take two thirds of the time to compile where LLVM optimises them less, and run as fast."""
    return {"xla_backend_optimization_level": 1} if dtype == jnp.float64 else None


def _either_loss(case: Case, dtype=jnp.float32) -> Callable:
    """OVeNet's loss with and without OHEM, of (label, mining): cases and criteria of a network share a program."""
    loss = partial(
        ovenet_loss,
        class_weights=np.asarray(case.io["class_weights"], dtype),
        align_corners=case.network["align_corners"],
        grid_align_corners=case.network["offset_head"]["grid_sample_align_corners"],
        include_ignored=True,
        confidence_weight=float(case.spec["batch"]),  # the published sum over the batch, ours a mean
    )
    # The thesis ranks probabilities as they are, OVeNet after another softmax.
    softmax = case.network["offset_head"]["logits"] or case.network["architecture"] != "thesis_offset_hrnet"

    def either(output, given, aux_weight=AUX_WEIGHT):
        label, mining = given
        ohem = _published_ohem(mining["threshold"], mining["keep"], case.spec["batch"], softmax)
        mined, plain = (loss(output, label, aux_weight=aux_weight, ohem=chosen) for chosen in (ohem, None))
        return jax.tree.map(partial(jnp.where, mining["on"]), mined, plain)

    return either


def _mining(numbers: dict) -> dict[str, float]:
    """The numbers of a case's or criterion's OHEM."""
    on = numbers["ohem_threshold"] is not None
    return {"on": on, "threshold": numbers["ohem_threshold"] or 0.0, "keep": numbers["ohem_min_kept"] or 1}


def _published_ohem(threshold: float, keep: int, group: int, softmax: bool = True) -> Ohem:
    return Ohem(threshold, keep, group, softmax, aux_over_all=True)


def _row(terms: dict[str, jax.Array]) -> np.ndarray:
    return np.asarray([terms[name] for name in TERMS])


def _published_names(arrays: dict) -> dict:
    """Arrays named <what>.<our name> under <what>.<published key, in its plain form>, too."""
    found = dict(arrays)
    for array, value in arrays.items():
        what, part, name = re.match(r"(.*?)(\.(?:backbone|head|offset_trunk|offset_head)\.|$)(.*)", array).groups()
        found |= {f"{what}.{HRNET.key(part[1:] + name, title)}": value for title in HRNET.heads if part}
    return found


def _plain_name(array: str) -> str:
    """grad.model.<published key> -> grad.<its plain form>, whatever stands before ".model."; others as they are."""
    what, _, key = array.partition(".model.")
    return f"{what}.{HRNET.plain(key)}" if key else array


def _ohem_arrays(output, label: jax.Array, *, ohem: Ohem, align_corners: bool) -> dict[str, jax.Array]:
    arrays = {}
    for name, logits in (("s_i", output.initial), ("s_s", output.seed), ("s_f", output.fused)):
        *_, probability = pixel_losses(logits.main, label, None, align_corners)
        valid = label != 255
        at_keep, bound = ohem_bound(probability, valid, ohem)
        counts = [(valid & (probability < bound)).sum(), valid.sum()]
        arrays |= {f"ohem_{name}": jnp.stack([at_keep, bound, *counts])}
        arrays |= {f"ohem_{name}_probs": jnp.stack([at_keep, bound]), f"ohem_{name}_counts": jnp.stack(counts)}
    return arrays


def loss_values(case: Case) -> dict[str, np.ndarray]:
    """A case of loss functions on given tensors; how each was computed is in its name."""
    aux, main, offset, f = (case.image(name) for name in ("aux", "main", "offset", "f"))
    label = case.label()
    all_ignored = jnp.full_like(label, 255)
    one_valid = all_ignored.at[0, 3, 4].set(2)
    batch, valid = label.shape[0], int((case.io["target"] != 255).sum())
    weights = jnp.asarray(case.io["class_weights"])

    def both(main, label=label, align=True, class_weights=weights, ohem=None):
        options = {"aux_weight": AUX_WEIGHT, "class_weights": class_weights, "align_corners": align}
        return segmentation_loss(Logits(aux, main), label, ohem=ohem, **options)

    def single(main, label=label, ohem=None):
        options = {"aux_weight": AUX_WEIGHT, "class_weights": weights, "align_corners": True}
        return segmentation_loss(Logits(None, main), label, ohem=ohem, **options)

    def confidence(f, offset=offset, label=label, align=True):
        return batch * confidence_loss(offset, f, label, grid_align_corners=align, include_ignored=True)

    named: dict[str, tuple[Callable, jax.Array]] = {
        "ce_single": (single, main),
        "ohem_single": (partial(single, ohem=_published_ohem(0.7, valid // 3, batch)), main),
        "ce_all_ignored": (partial(single, label=all_ignored), main),
        "ohem_all_ignored": (partial(single, label=all_ignored, ohem=_published_ohem(0.7, 1, batch)), main),
        "ohem_one_valid": (partial(single, label=one_valid, ohem=_published_ohem(0.7, 1, batch)), main),
        "ohem_nothing_below": (partial(single, ohem=_published_ohem(0.0, 1, batch)), main),
        "conf_all_ignored": (partial(confidence, label=all_ignored), f),
    }
    for align in (0, 1):
        named[f"conf_gs{align}"] = (partial(confidence, align=bool(align)), f)
        full = partial(confidence, offset=case.image("offset_full"), align=bool(align))
        named[f"conf_full_gs{align}"] = (full, case.image("f_full"))
    pattern = r"(ce|ohem)_ac([01])_(w|nw)(?:_t([\d.]+)_k(\d+))?$"
    for match in filter(None, (re.match(pattern, name) for name in case.outputs)):
        kind, align, weighted, threshold, keep = match.groups()
        ohem = _published_ohem(float(threshold), int(keep), batch) if kind == "ohem" else None
        class_weights = weights if weighted == "w" else None
        named[match[0]] = (partial(both, align=align == "1", class_weights=class_weights, ohem=ohem), main)

    @jax.jit  # one program, not dozens for every loss
    def values_and_gradients(arguments):
        return {name: jax.value_and_grad(named[name][0])(argument) for name, argument in arguments.items()}

    arrays = {}
    results = values_and_gradients({name: argument for name, (_, argument) in named.items()})
    for name, (value, gradient) in results.items():
        suffix = "f" if named[name][1] is f else "main"
        arrays |= {name: value, f"{name}_grad_{suffix}": channels_first(gradient)}
    return arrays
