"""A network of ours -> the state dict of its published PyTorch form: the inverse of published_names.py.

What nobody published is named alike: an OVeNet's own parts on openseg's networks as on HRNet, `layer4_2` on a ResNet.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ovenet_jax.errors import UserError
from ovenet_jax.weights.published_heads import title_of_config
from ovenet_jax.weights.published_names import HRNET, OCNET, OPENSEG_HRNET, OPENSEG_RESNET, CodeBase, Rules, renamed
from ovenet_jax.weights.torch_weights import ABN_EPS

if TYPE_CHECKING:
    from ml_collections import ConfigDict

OBJECT_ATTENTION = {"query": "f_pixel", "key": "f_object", "value": "f_down", "output": "f_up"}  # of OCR
SELF_ATTENTION = {"query": "f_query", "key": "f_key", "value": "f_value", "output": "W"}
BELOW = ("backbone.", "offset_trunk.")
NORM = re.compile(r"norm\.\w+$")
STRUCTURE: Rules = (
    (r"\b(conv\d)\.conv\.", r"\1."),
    (r"\bconv(\d)\.norm\.", r"bn\1."),
    (r"_range\.", "_range_sa."),
    (r"(\.f_\w+)\.1\.conv\.", r"\1.2."),  # sequences are numbered on
    (r"(\.f_\w+)\.1\.norm\.", r"\1.3."),
    (r"(\.f_\w+)\.0\.(?=conv|norm)", r"\1."),
    (r"\.hidden\.", "."),
    (r"\.conv\.", ".0."),
    (r"\.norm\.", ".1."),
    (r"\b(kernel|scale)$", "weight"),
    (r"\b(mean|var)$", r"running_\1"),
)


def state_dict(model: "ConfigDict", arrays: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """All `arrays` of the network of `config.model` by name -> PyTorch's, with BatchNorm's counters of `steps`.

    OVeNet's stored pixel grid, whose size was the training crop's, is left out.

    Raises UserError: a head that no published code base has on this backbone, or a scale that in-place ABN cannot have.
    """
    published = {}
    for name, array in arrays.items():
        key, value, plain = published_key(name, model), np.asarray(array), has_plain_norm(name, model)
        if name.endswith("norm.scale") and not plain:
            value = _unfolded(value, name)
        published[key] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        if name.endswith("norm.var") and plain:
            published[key.replace("running_var", "num_batches_tracked")] = np.asarray(steps)
        if code_base_of(model) is OCNET and ".f_key." in key:  # queries and keys are one module
            published[key.replace(".f_key.", ".f_query.")] = published[key]
    return published


def published_key(name: str, model: "ConfigDict") -> str:
    """The state-dict key of our array `name`."""
    if name.startswith(BELOW):
        return renamed(name, _backbone_rules(model) + STRUCTURE)
    code_base, title = code_base_of(model), title_of_config(model.head)
    of_thesis = code_base is HRNET and title == "a plain head"
    offsets = {"offset_head.classifier": "offset_layer" if of_thesis else "aux_head_offset"}
    names = code_base.heads.get(title, {}) | offsets
    part = next((part for part in names if name.startswith(f"{part}.")), None)
    if part is None:
        raise UserError(
            f"No published network has {title} on the backbone {model.backbone.name!r}, and {name} no name there; "
            f"--form=stablehlo takes any network."
        )
    if part.startswith("head.attention"):
        words = OBJECT_ATTENTION if "OCR" in title else SELF_ATTENTION
    else:  # after the activation, which is a module of its own in HRNet's code, and dropout
        dropout = model.head.get(part.removeprefix("head."), {}).get("dropout", 0) > 0
        words = {"output": "3" if dropout or code_base is HRNET or part in offsets else "2"}
    inner = tuple((rf"\.{ours}\.", f".{theirs}.") for ours, theirs in words.items())
    key = names[part] + renamed(name.removeprefix(part), inner + STRUCTURE)
    with_activation = part in ("head.attention", "head.fusion") if code_base is HRNET else part not in offsets
    if with_activation and NORM.search(name) and has_plain_norm(name, model):
        key = re.sub(r"\.(?=\w+$)", ".0.", key)  # BatchNorm is in a sequence with its activation
    return key


def _backbone_rules(model: "ConfigDict") -> Rules:
    code_base = code_base_of(model)
    inside = "" if code_base in (HRNET, OCNET) else "backbone."
    first_branch = int(model.backbone.name == "hrnet2x")  # which one transition 0 adds
    added = "|".join(rf"{i}(?:_2)?\.{i + first_branch}" for i in range(4))
    return (
        (r"^offset_trunk\.(\w+)\.", r"\1_2."),
        (r"^backbone\.(?=conv\d)", "backbone.resinit." if code_base is OPENSEG_RESNET else "backbone."),
        (r"^backbone\.(trunk\.)?", inside),
        (rf"\b(transition(?:{added}))\.", r"\1.0."),
    )


def code_base_of(model: "ConfigDict") -> CodeBase:
    """Which code base published the network of `config.model`, or others like it."""
    title, on_resnet = title_of_config(model.head), model.backbone.name == "resnet"
    if title in OCNET.heads and on_resnet:
        return OCNET
    if title in HRNET.heads and not on_resnet and not model.input.bgr:
        return HRNET
    return OPENSEG_RESNET if on_resnet else OPENSEG_HRNET


def has_plain_norm(name: str, model: "ConfigDict") -> bool:
    """Whether the array is of a BatchNorm there, not of in-place ABN, which its activation tells."""
    code_base = code_base_of(model)
    if code_base is HRNET or name.startswith("offset_head."):
        return True
    if code_base is OCNET or (code_base is OPENSEG_HRNET and name.startswith(BELOW)):
        return False
    head = model.head if "activation" in model.head else model.head.classifier
    return head.activation != "leaky_relu"


def _unfolded(scale: np.ndarray, name: str) -> np.ndarray:
    """In-place ABN's weight, of which |weight| + ABN_EPS is exactly `scale`."""
    eps = np.float32(ABN_EPS)
    near: np.ndarray = scale - eps + np.array([[0], [-1], [1]], np.float32) * np.spacing(scale - eps)
    fits = np.abs(near) + eps == scale
    lost = scale[~fits.any(0)]
    if lost.size:
        raise UserError(
            f"{name} holds {lost[0]:.3g}, and the published network has in-place ABN there, whose scales begin at "
            f"{ABN_EPS}; --form=stablehlo takes any network."
        )
    return np.take_along_axis(near, fits.argmax(0)[None], 0)[0]
