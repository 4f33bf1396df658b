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


def state_dict(model: ConfigDict, arrays: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """The PyTorch state dict of our float32 `arrays` of the network of config.model; BatchNorm's counters are `steps`.

    OVeNet's stored pixel grid, whose size was the training crop's, is left out. The last bit of in-place ABN's
    scales may change.

    Raises UserError: a head that no published code base has on this backbone, or a scale that in-place ABN cannot have.
    """
    code_base, title = code_base_of(model), published_names.title_of_config(model.head)
    published = {}
    for name, array in arrays.items():
        plain_key, value = code_base.key(name, title), np.asarray(array)
        if plain_key is None:
            fault = f"No published network has {title} on the backbone {model.backbone.name!r}, so {name} has no key"
            raise UserError(f"{fault}; --form=stablehlo exports any network.")
        batch_norm = _is_batch_norm(name, model, code_base)
        key = _wrapped(plain_key, name, model, code_base, batch_norm)
        if name.endswith("norm.scale") and not batch_norm:
            value = _unfolded(value, name)
        published[key] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value  # [h, w, in, out] -> [out, in, h, w]
        if name.endswith("norm.var") and batch_norm:
            published[key.replace("running_var", "num_batches_tracked")] = np.asarray(steps)
        if code_base.one_module and ".f_key." in key:
            published[key.replace(".f_key.", ".f_query.")] = published[key]
    return published


def code_base_of(model: ConfigDict) -> published_names.CodeBase:
    """The code base that published the network of config.model, or similar ones."""
    title = published_names.title_of_config(model.head)
    if model.backbone.name == "resnet":
        return OCNET if title in OCNET.heads else OPENSEG_RESNET
    # Both have a plain head for HRNets: there the input decides, which an import takes from the code base.
    in_openseg = title not in HRNET.heads or (title in OPENSEG_HRNET.heads and model.input.bgr)
    return OPENSEG_HRNET if in_openseg else HRNET


def _wrapped(key: str, name: str, model: ConfigDict, code_base: published_names.CodeBase, batch_norm: bool) -> str:
    """The published key of our array `name`: `key`, deeper by one level where published layers are in nn.Sequential."""
    if name.startswith(published_names.BELOW):  # nn.Sequential in nn.Sequential for a new branch
        first = int(model.backbone.name == "hrnet2x")  # transition i adds branch i, of hrnet2x branch i + 1
        added = "|".join(rf"{i}(?:_2)?\.{i + first}" for i in range(4))
        return re.sub(rf"\b(transition(?:{added}))\.", r"\1.0.", key)
    of_offsets, of_hrnet = name.startswith("offset_head."), code_base is HRNET
    if of_offsets and of_hrnet and model.head.name == "fcn":  # as in the thesis
        key = key.replace("aux_head_offset", "offset_layer")
    # Before the last convolution are the activation, a module of its own in HRNet's code, and dropout.
    classifier = model.head.get(name.removeprefix("head.").partition(".")[0])
    if ".output." in name and (of_hrnet or of_offsets or (classifier and classifier.dropout > 0)):
        key = re.sub(r"^(\w+)\.2\.(?=\w+$)", r"\1.3.", key)
    with_activation = name.startswith(("head.attention.", "head.fusion.")) if of_hrnet else not of_offsets
    if with_activation and batch_norm and re.search(r"norm\.\w+$", name):
        key = re.sub(r"\.(?=\w+$)", ".0.", key)  # BatchNorm is in a sequence with its activation
    return key


def _is_batch_norm(name: str, model: ConfigDict, code_base: published_names.CodeBase) -> bool:
    """Whether this array's norm is BatchNorm in the published code; else in-place ABN, which it uses with LeakyReLU."""
    below_openseg = code_base is OPENSEG_HRNET and name.startswith(published_names.BELOW)
    head = model.head if "activation" in model.head else model.head.classifier
    in_place = below_openseg or head.activation == "leaky_relu"
    return code_base is HRNET or name.startswith("offset_head.") or not in_place


def _unfolded(scale: np.ndarray, name: str) -> np.ndarray:
    """The weight of in-place ABN for which |weight| + ABN_EPS equals `scale`, up to the last bit where float32 has no
    such sum. Raises UserError: a scale below ABN_EPS."""
    eps = np.float32(torch_weights.ABN_EPS)
    if (lost := scale[~(scale >= eps)]).size:
        published = f"the published network has in-place ABN there, whose scales begin at {torch_weights.ABN_EPS}"
        raise UserError(f"{name} holds {lost[0]:.9g}, and {published}; --form=stablehlo exports any network.")
    near: np.ndarray = scale - eps + np.array([[0], [-1], [1]], np.float32) * np.spacing(scale - eps)
    nearest = np.abs(np.abs(near) + eps - scale).argmin(0)
    return np.take_along_axis(near, nearest[None], 0)[0]
