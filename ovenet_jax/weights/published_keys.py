"""Exports a network as a state dict of the published PyTorch code, by the tables of published_names.py.

Unpublished combinations follow the same scheme: OVeNet's parts on openseg's networks as on HRNet, `layer4_2` for a
ResNet's offset trunk.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ovenet_jax.errors import UserError
from ovenet_jax.weights import published_names, torch_weights

HRNET, OCNET, OPENSEG_RESNET, OPENSEG_HRNET = (
    published_names.CODE_BASES[name] for name in ("hrnet", "ocnet", "openseg_resnet", "openseg_hrnet")
)
NORM = re.compile(r"norm\.\w+$")


def state_dict(model: ConfigDict, arrays: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """The PyTorch state dict of the network of `config.model` with these `arrays`; BatchNorm's counters are `steps`.

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
        if code_base_of(model).one_module and ".f_key." in key:
            published[key.replace(".f_key.", ".f_query.")] = published[key]
    return published


def published_key(name: str, model: ConfigDict) -> str:
    """The state-dict key of our array `name`: its plain form, plus the sequences that this network wraps around it."""
    code_base, title = code_base_of(model), published_names.title_of_config(model.head)
    key = code_base.key(name, title)
    if key is None:
        fault = f"No published network has {title} on the backbone {model.backbone.name!r}, so {name} has no key"
        raise UserError(f"{fault}; --form=stablehlo exports any network.")
    if name.startswith(published_names.BELOW):  # nn.Sequential in nn.Sequential for a new branch
        first_branch = int(model.backbone.name == "hrnet2x")  # the branch that transition 0 adds
        added = "|".join(rf"{i}(?:_2)?\.{i + first_branch}" for i in range(4))
        return re.sub(rf"\b(transition(?:{added}))\.", r"\1.0.", key)
    of_offsets, of_hrnet = name.startswith("offset_head."), code_base is HRNET
    if of_offsets and of_hrnet and title == "a plain head":  # as in the thesis
        key = key.replace("aux_head_offset", "offset_layer")
    # Before the last convolution are the activation, a module of its own in HRNet's code, and dropout.
    part = name.removeprefix("head.").partition(".")[0]
    if ".output." in name and (of_hrnet or of_offsets or model.head.get(part, {}).get("dropout", 0) > 0):
        key = re.sub(r"^(\w+)\.2\.(?=\w+$)", r"\1.3.", key)
    with_activation = name.startswith(("head.attention.", "head.fusion.")) if of_hrnet else not of_offsets
    if with_activation and NORM.search(name) and has_plain_norm(name, model):
        key = re.sub(r"\.(?=\w+$)", ".0.", key)  # BatchNorm is in a sequence with its activation
    return key


def code_base_of(model: ConfigDict) -> published_names.CodeBase:
    """The code base that published the network of `config.model`, or similar ones."""
    title, on_resnet = published_names.title_of_config(model.head), model.backbone.name == "resnet"
    if title in OCNET.heads and on_resnet:
        return OCNET
    if title in HRNET.heads and not on_resnet and not model.input.bgr:
        return HRNET
    return OPENSEG_RESNET if on_resnet else OPENSEG_HRNET


def has_plain_norm(name: str, model: ConfigDict) -> bool:
    """Whether this is a plain BatchNorm in the published code, not in-place ABN: that has LeakyReLU."""
    code_base = code_base_of(model)
    if code_base is HRNET or name.startswith("offset_head."):
        return True
    if code_base is OPENSEG_HRNET and name.startswith(published_names.BELOW):
        return False
    head = model.head if "activation" in model.head else model.head.classifier
    return head.activation != "leaky_relu"


def _unfolded(scale: np.ndarray, name: str) -> np.ndarray:
    """The weight of in-place ABN with |weight| + ABN_EPS == `scale` exactly."""
    eps = np.float32(torch_weights.ABN_EPS)
    near: np.ndarray = scale - eps + np.array([[0], [-1], [1]], np.float32) * np.spacing(scale - eps)
    fits = np.abs(near) + eps == scale
    lost = scale[~fits.any(0)]
    if lost.size:
        published = f"the published network has in-place ABN there, whose scales begin at {torch_weights.ABN_EPS}"
        raise UserError(f"{name} holds {lost[0]:.3g}, and {published}; --form=stablehlo exports any network.")
    return np.take_along_axis(near, fits.argmax(0)[None], 0)[0]
