"""State dicts in published form, made from our own arrays, the inverse of `ovenet_jax.torch_weights`; and loaded."""

import re
from collections.abc import Mapping

import numpy as np
from flax import nnx

from ovenet_jax.models import parameters
from ovenet_jax.torch_weights import fill

RULES = (
    (r"\.kernel$", ".weight"),
    (r"\bnorm\.scale$", "norm.weight"),
    (r"\.mean$", ".running_mean"),
    (r"\.var$", ".running_var"),
    (r"^offset_trunk\.(\w+?)\.", r"\1_2."),
    (r"^backbone\.(trunk\.)?", ""),
    (r"\b(conv\d)\.conv\.", r"\1."),
    (r"\bconv(\d)\.norm\.", r"bn\1."),
    (r"^(transition(\d)(_2)?\.\2)\.", r"\1.0."),  # a new branch
    (r"^head\.attention\.", "ocr_distri_head.object_context_block."),
    (r"\.query\.", ".f_pixel."),
    (r"\.key\.", ".f_object."),
    (r"\.value\.", ".f_down."),
    (r"\.output\.(?=\d)", ".f_up."),
    (r"(\.f_\w+)\.0\.norm\.", r"\1.1.0."),
    (r"(\.f_\w+)\.1\.conv\.", r"\1.2."),
    (r"(\.f_\w+)\.1\.norm\.", r"\1.3.0."),
    (r"(\.f_\w+)\.0\.conv\.", r"\1.0."),
    (r"^head\.fusion\.norm\.", "ocr_distri_head.conv_bn_dropout.1.0."),
    (r"^head\.fusion\.", "ocr_distri_head.conv_bn_dropout."),
    (r"^head\.pixels\.", "conv3x3_ocr."),
    (r"^head\.aux\.", "aux_head."),
    (r"^head\.classifier\.(?=hidden|output)", "last_layer."),
    (r"^head\.classifier\.", "cls_head."),
    (r"^offset_head\.classifier\.", "aux_head_offset."),
    (r"\.hidden\.", "."),
    (r"\.output\.(?=weight|bias)", ".3."),
    (r"\.conv\.(?=weight|bias)", ".0."),
    (r"\.norm\.", ".1."),
)


def published_key(name: str) -> str:
    """Our name of an array -> its state-dict key."""
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def published(arrays: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    """Our arrays, with BatchNorm's step counters, as a state dict in PyTorch's layout."""
    state_dict = {}
    for name, value in arrays.items():
        key = prefix + published_key(name)
        value = np.asarray(value)
        state_dict[key] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        if key.endswith("running_var"):
            state_dict[key.replace("running_var", "num_batches_tracked")] = np.asarray(7)
    return state_dict


def load_state_dict(model: nnx.Module, state_dict: Mapping[str, np.ndarray], source: str) -> nnx.Module:
    """`model` with every parameter and statistic taken from a published `state_dict` (read from `source`)."""
    graphdef, params, statistics = parameters.split(model)
    arrays = fill(params | statistics, state_dict, source)
    return parameters.merge(
        graphdef, {name: arrays[name] for name in params}, {name: arrays[name] for name in statistics}
    )
