"""SegFix around its network: ground truth, directions and offsets, refinement of label maps and masks."""

import re

import jax.numpy as jnp
import numpy as np

from ovenet_jax.data.labels import CITYSCAPES, IGNORE
from ovenet_jax.models.layers import resize_bilinear
from ovenet_jax.models.segfix import offset_classes
from ovenet_jax.segfix import ground_truth
from ovenet_jax.segfix.directions import direction_classes, offset_table, stored_angle
from ovenet_jax.segfix.ground_truth import GroundTruth
from ovenet_jax.segfix.label_maps import Meaning
from ovenet_jax.segfix.labels import boundary_and_direction, evaluation_classes, offset_of_class, training_label
from ovenet_jax.segfix.shift import refined_mask, refined_numbers, shift_by
from tests.golden_case import Case

INSIDE, IGNORED = 8, -1  # in the reference's maps of direction classes


def class_ground_truth(case: Case) -> dict[str, np.ndarray]:
    """Each step from the arrays that the case names for it."""
    io = case.io
    label = CITYSCAPES.train_ids()[io["label"]]
    arrays = {"seg_label": _ignored_below_zero(label)} | _from_angles(case)
    truth = ground_truth.of_classes(label, *_how(case))
    large = np.bincount(label.ravel(), minlength=256) >= case.spec["config"]["min_region_pixels"]
    regions = np.where(large[label] & (label != IGNORE), label.astype(np.int32), ground_truth.NO_REGION)
    _, arrays["dir_response"] = ground_truth.distance_and_gradient(regions, *_how(case))
    arrays |= {"depth": truth.distance, "dir_deg": truth.direction}
    for name in case.outputs:
        if match := re.fullmatch(r"(align|offset|vector|table|ramp)_(\d+)(_index)?", name):
            arrays[name] = _of_count(case, match[1], int(match[2]), is_index=match[3] is not None)
    return arrays


def instance_ground_truth(case: Case) -> dict[str, np.ndarray]:
    ids, class_ids = case.io["instance_label"], case.spec["config"]["kept_class_ids"]
    of_class = np.where(ids < 256, ids, ids // 1000)
    truth = ground_truth.of_instances(ids, class_ids, *_how(case))
    regions = np.where((ids >= 256) | np.isin(ids, class_ids), ids, IGNORE)
    arrays = {"seg_label": _ignored_below_zero(CITYSCAPES.train_ids()[of_class])} | _from_angles(case)
    _, arrays["dir_response"] = ground_truth.distance_and_gradient(regions, *_how(case))
    return arrays | {
        "depth": truth.distance,
        "dir_deg": truth.direction,
        "offset_8": _of_count(case, "offset", 8, is_index=False),
    }


def _how(case: Case) -> tuple[str, int]:
    """Metric and size of the direction filters."""
    config = case.spec["config"]
    return {"euc": "euclidean", "taxicab": "taxicab"}[config["metric"]], config.get("ksize", 5)


def _from_angles(case: Case) -> dict[str, np.ndarray]:
    """What both kinds of ground truth say of distances and angles, for 8 directions."""
    io = case.io
    ignored, truth = io["seg_label"] < 0, GroundTruth(io["depth"], io["dir_deg"])
    label = training_label(truth, ignored, 8)
    near, direction = map(_ignored_below_zero, boundary_and_direction(label, 8))
    snapped = np.radians(direction_classes(io["angle"]) * 45 - 180)
    return {
        "sobel": ground_truth.gradient_kernels(_how(case)[1]),
        "angle": stored_angle(io["dir_deg"]),
        "mask_label": near,
        "dir_label": np.where(near == 0, INSIDE, direction),
        "energy_label": np.where(ignored, IGNORED, truth.distance > 4),  # one step of 5 pixels
        "unit_vector": np.stack([np.sin(snapped), np.cos(snapped)], axis=-1),
    }


def _of_count(case: Case, what: str, count: int, is_index: bool) -> np.ndarray:
    io, step = case.io, 360 / count
    if what == "table":
        return offset_table(count)
    if what == "ramp":
        return direction_classes(io["ramp"], count)
    if what == "vector":
        return offset_table(count)[io[f"align_{count}_index"]].transpose(2, 0, 1)[None]
    if what == "offset":
        truth, nowhere = GroundTruth(io["depth"], io["dir_deg"]), np.zeros(io["depth"].shape, bool)
        label = training_label(truth, nowhere, count)
        return offset_of_class(count)[evaluation_classes(count).train_ids()[label]]
    classes = direction_classes(io["angle"], count)
    return classes if is_index else classes * step - 180 + (step / 2 if count == 4 else 0)


def predicted_offsets(case: Case) -> dict[str, np.ndarray]:
    """The offsets that maps of mask and direction mean, at the size of the label."""
    size = case.io["label"].shape
    mask, direction = (
        resize_bilinear(case.image(name), size, align_corners=True) for name in ("pred_mask", "pred_dir")
    )
    scores = jnp.concatenate([0.5 - mask[..., 1:], direction], axis=-1)
    return {"pred_offset": offset_of_class(8)[offset_classes(scores)]}


def refinement(case: Case) -> dict[str, np.ndarray]:
    """Labels and masks after each shift; how each was computed is in its name."""
    meaning = Meaning(CITYSCAPES)
    label, offset = meaning.to_numbers()[case.io["label"]], np.moveaxis(case.io["offset"], 0, -1)
    by_float = shift_by(np.moveaxis(case.io["offset_float"], 0, -1))
    decoded = np.full(256, IGNORE, np.uint8)
    decoded[: len(CITYSCAPES.ids)] = CITYSCAPES.label_ids()[: len(CITYSCAPES.ids)]
    arrays = {"encoded": label, "shift_float_ac1": refined_numbers(label, by_float)}
    for name in case.outputs:
        if match := re.fullmatch(r"(inst_)?shift_s(\d)_ac(\d)", name):
            shift = shift_by(offset, int(match[2]), align_corners=match[3] == "1")
            if match[1]:
                masks = case.io[f"inst_masks_ac{match[3]}"]
                arrays[name] = np.stack([refined_mask(mask > 0, shift) for mask in masks])
            else:
                arrays[name] = refined_numbers(label, shift)
                arrays[f"{name}_decoded"] = decoded[arrays[name]]
    return arrays


def _ignored_below_zero(label: np.ndarray) -> np.ndarray:
    return np.where(label == IGNORE, IGNORED, label.astype(np.int16))
