"""The published heads: how the config tells which one a network has, and how each code base names their parts."""

from collections.abc import Mapping
from typing import Any

# By their titles, the entries of config.model.head that tell a head from others.
TITLES: dict[str, Mapping[str, Any]] = {
    "a plain head": {"name": "fcn"},
    "OCR in HRNet's own form": {"name": "ocr", "bias": False},
    "OCR in openseg's form": {"name": "ocr", "bias": True},
    "ASP-OCR": {"name": "asp_ocr"},
    "Base-OC": {"name": "base_oc", "first_release": False},
    "Base-OC of the first release": {"name": "base_oc", "first_release": True},
    "Pyramid-OC": {"name": "pyramid_oc"},
    "ASP-OC": {"name": "asp_oc", "first_release": False},
    "ASP-OC of the first release": {"name": "asp_oc", "first_release": True},
    "ISA": {"name": "isa"},
    "boundaries and directions": {"name": "segfix"},
}
OPTIONAL = {"head.aux", "head.widening"}  # parts that some networks with such a head do without

Parts = dict[str, str]  # of a head: our name of each -> the published one


def title_of_config(head: Mapping[str, Any]) -> str:
    """The title of the head that `config.model.head` describes. An unknown head has a title of its own, which no file
    has."""
    for title, entries in TITLES.items():
        if all(head.get(key) == value for key, value in entries.items()):
            return title
    return f"the head {head['name']!r}"


def _head(names: str, pyramid: str = "", **others: str) -> Parts:
    """names: published names of classifier, auxiliary head, first convolution, attention and fusion, in this order;
    pyramid: name of the module with the branches of an atrous pyramid, conv2 to conv5."""
    usual = dict(zip(("classifier", "aux", "pixels", "attention", "fusion"), names.split(), strict=False))
    branches = {f"head.pyramid.branches.{i}": f"{pyramid}.conv{i + 2}" for i in range(4 if pyramid else 0)}
    return {f"head.{part}": name for part, name in (usual | others).items()} | branches


# fmt: off
HRNET = {
    "a plain head": _head("last_layer"),
    "OCR in HRNet's own form": _head("cls_head aux_head conv3x3_ocr ocr_distri_head.object_context_block "
                                     "ocr_distri_head.conv_bn_dropout"),
}
OPENSEG = {
    "a plain head": _head("cls_head dsn_head"),
    "OCR in openseg's form": _head("head dsn_head conv_3x3 spatial_ocr_head.object_context_block "
                                   "spatial_ocr_head.conv_bn_dropout"),
    "ASP-OCR": _head("head dsn_head asp_ocr_head.context asp_ocr_head.context.2.object_context_block "
                     "asp_ocr_head.conv_bn_dropout", pyramid="asp_ocr_head"),
    "Base-OC": _head("cls dsn oc_module_pre oc_module.stages.0 oc_module.conv_bn_dropout"),
    "ASP-OC": _head("cls dsn context context.2.context.2.stages.0 context.2.conv_bn_dropout", pyramid="context.2",
                    context_pixels="context.2.context", context_norm="context.2.context.2.conv_bn_dropout.0"),
    "ISA": _head("cls_head dsn_head isa_head", attentions="isa_head.2.stages", fusion="isa_head.2.conv_bn",
                 widening="isa_head.2.up_conv"),
    "boundaries and directions": {"boundary_head": "mask_head", "direction_head": "dir_head"},
}
OPENSEG_ON_HRNET = OPENSEG | {
    "OCR in openseg's form": HRNET["OCR in HRNet's own form"] | {"head.pixels": "conv3x3"},
    "ASP-OCR": OPENSEG["ASP-OCR"] | _head("cls_head aux_head"),
}
OCNET = {
    "Base-OC of the first release": _head("cls dsn context context.2.stages.0 context.2.conv_bn_dropout"),
    "ASP-OC of the first release": OPENSEG["ASP-OC"] | _head(
        "", context_conv="context.2.context.2.conv_bn_dropout.0", context_norm="context.2.context.2.conv_bn_dropout.1"),
    "Pyramid-OC": _head("cls dsn layer5", attentions="context.stages", fusion="context.conv_bn_dropout",
                        widening="context.up_dr"),
}
MMSEG = {
    "a plain head": {"head.classifier.hidden": "decode_head.convs.0", "head.classifier.output": "decode_head.conv_seg"},
    "OCR in HRNet's own form": _head("decode_head.1.conv_seg decode_head.0 decode_head.1.bottleneck "
                                     "decode_head.1.object_context_block",
                                     fusion="decode_head.1.object_context_block.bottleneck"),
}
# fmt: on
