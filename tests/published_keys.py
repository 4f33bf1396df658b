"""State dicts in published form, made from our own arrays: the inverse of `weights.published_names`; and loaded."""

import re
from collections.abc import Mapping

import numpy as np
from flax import nnx

from ovenet_jax.models import parameters
from ovenet_jax.weights.torch_weights import fill

LEAVES = (
    (r"\.kernel$", ".weight"),
    (r"\bnorm\.scale$", "norm.weight"),
    (r"\.mean$", ".running_mean"),
    (r"\.var$", ".running_var"),
    (r"\b(conv\d)\.conv\.", r"\1."),
    (r"\bconv(\d)\.norm\.", r"bn\1."),
)
SEQUENCES = (
    (r"\.hidden\.", "."),
    (r"\.output\.(?=weight|bias)", ".3."),
    (r"\.conv\.(?=weight|bias)", ".0."),
    (r"\.norm\.", ".1."),
)
HRNET = (
    *LEAVES,
    (r"^offset_trunk\.(\w+?)\.", r"\1_2."),
    (r"^backbone\.(trunk\.)?", ""),
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
    *SEQUENCES,
)
IMAGENET_RESNET = (*LEAVES, (r"^backbone\.(trunk\.)?", ""), *SEQUENCES)
OPENSEG_BASE_OC = (  # with in-place ABN, which has no step counters
    *LEAVES,
    (r"^backbone\.(?=conv|bn)", "backbone.resinit."),
    (r"^backbone\.trunk\.", "backbone."),
    (r"^head\.pixels\.", "oc_module_pre."),
    (r"^head\.attention\.(key|query)\.0\.conv\.", r"oc_module.stages.0.f_\1.0."),
    (r"^head\.attention\.(key|query)\.0\.norm\.", r"oc_module.stages.0.f_\1.1."),
    (r"^head\.attention\.(key|query)\.1\.conv\.", r"oc_module.stages.0.f_\1.2."),
    (r"^head\.attention\.(key|query)\.1\.norm\.", r"oc_module.stages.0.f_\1.3."),
    (r"^head\.attention\.value\.", "oc_module.stages.0.f_value."),
    (r"^head\.attention\.output\.", "oc_module.stages.0.W."),
    (r"^head\.fusion\.", "oc_module.conv_bn_dropout."),
    (r"^head\.classifier\.", "cls."),
    (r"^head\.aux\.output\.", "dsn.2."),
    (r"^head\.aux\.", "dsn."),
    *SEQUENCES,
)
OPENSEG_SEGFIX = (  # with in-place ABN
    *LEAVES,
    (r"^backbone\.trunk\.", "backbone."),
    (r"^(backbone\.transition(\d)\.\2)\.", r"\1.0."),  # a new branch
    (r"^boundary_head\.", "mask_head."),
    (r"^direction_head\.", "dir_head."),
    (r"head\.output\.", "head.2."),
    *SEQUENCES,
)
OPENSEG_BASE_OC_PLAIN = (*OPENSEG_BASE_OC, (r"^(?!backbone)(.*\.[13])\.(?=\w+$)", r"\1.0."))


def published_key(name: str, rules=HRNET) -> str:
    """Our name of an array -> its state-dict key in the code base of these rules."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def published(arrays: Mapping[str, np.ndarray], prefix: str = "", rules=HRNET) -> dict[str, np.ndarray]:
    """Our arrays, with BatchNorm's step counters where there are some, as a state dict in PyTorch's layout."""
    state_dict = {}
    for name, value in arrays.items():
        key = prefix + published_key(name, rules)
        value = np.asarray(value)
        state_dict[key] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        if key.endswith("running_var") and rules not in (OPENSEG_BASE_OC, OPENSEG_SEGFIX):
            state_dict[key.replace("running_var", "num_batches_tracked")] = np.asarray(7)
    return state_dict


def load_state_dict(model: nnx.Module, state_dict: Mapping[str, np.ndarray], source: str) -> nnx.Module:
    """`model` with every parameter and statistic taken from a published `state_dict` (read from `source`)."""
    graphdef, params, statistics = parameters.split(model)
    arrays = fill(params | statistics, state_dict, source)
    return parameters.merge(
        graphdef, {name: arrays[name] for name in params}, {name: arrays[name] for name in statistics}
    )
