"""State-dict keys of the published PyTorch code bases -> names of our arrays: one table of few rules for each.

Nothing is guessed: which code base has written a state dict is told by its keys, and every key either has a name here
or is ignored for a reason.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from ovenet_jax.data import imagenet

Rules = tuple[tuple[str, str], ...]

# Before the names of the network: of DataParallel, of the training script's wrapper.
PREFIX = r"^(module\.)?(model\.)?"

# Keys (without PREFIX) that carry nothing a network here needs, and what they are.
IGNORED = (
    (r"^(incre_modules|downsamp_modules|final_layer|fc)\.", "ImageNet classification head"),
    (r"^classifier\.(weight|bias)$", "ImageNet classification head"),
    (r"(^|\.)num_batches_tracked$", "BatchNorm's step counters"),
    (r"^coords$", "stored pixel grid"),
    (r"^loss\.criterion\.weight$", "class weights of the loss"),
)

# The tables: each rule is applied once, in this order; then come the parts of the heads.
OFFSETS: Rules = (
    (r"^(transition|stage|layer)(\d)_2\.", r"offset_trunk.\1\2."),  # `_2` marks the offset trunk
    (r"^(aux_head_offset|offset_layer)\.", "offset_head.classifier."),
)
HRNET_BACKBONE: Rules = (
    *OFFSETS,
    (r"^(?:backbone\.)?(transition|stage)(\d)\.", r"backbone.trunk.\1\2."),
    (r"^(?:backbone\.)?(conv1|bn1|conv2|bn2|layer1)\.", r"backbone.\1."),
    # A new branch is a sequence of one step, itself a sequence.
    (r"(transition\d\.\d)\.0\.(?=\d\.)", r"\1."),
)
RESNET_BACKBONE: Rules = (
    *OFFSETS,
    (r"^(?:backbone\.)?(?:resinit\.)?((?:conv|bn)\d)\.", r"backbone.\1."),
    (r"^(?:backbone\.)?(layer[1-4])\.", r"backbone.trunk.\1."),
)

Parts = dict[str, str]  # of a head: our name of each -> the published one


def _head(names: str, pyramid: str = "", **others: str) -> Parts:
    """names: of classifier, auxiliary head, first convolution, attention and fusion, as many as there are; pyramid: of
    what holds the branches of an atrous pyramid, conv2 to conv5."""
    usual = dict(zip(("classifier", "aux", "pixels", "attention", "fusion"), names.split(), strict=False))
    branches = {f"head.pyramid.branches.{i}": f"{pyramid}.conv{i + 2}" for i in range(4 if pyramid else 0)}
    return {f"head.{part}": name for part, name in (usual | others).items()} | branches


# The heads of each code base by their title in published_heads.py.
# fmt: off
HRNET_HEADS = {
    "a plain head": _head("last_layer"),
    "OCR in HRNet's own form": _head("cls_head aux_head conv3x3_ocr ocr_distri_head.object_context_block "
                                     "ocr_distri_head.conv_bn_dropout"),
}
OPENSEG_HEADS = {
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
OPENSEG_HRNET_HEADS = OPENSEG_HEADS | {
    "OCR in openseg's form": HRNET_HEADS["OCR in HRNet's own form"] | {"head.pixels": "conv3x3"},
    "ASP-OCR": OPENSEG_HEADS["ASP-OCR"] | _head("cls_head aux_head"),
}
OCNET_HEADS = {
    "Base-OC of the first release": _head("cls dsn context context.2.stages.0 context.2.conv_bn_dropout"),
    "ASP-OC of the first release": OPENSEG_HEADS["ASP-OC"] | _head(
        "", context_conv="context.2.context.2.conv_bn_dropout.0", context_norm="context.2.context.2.conv_bn_dropout.1"),
    "Pyramid-OC": _head("cls dsn layer5", attentions="context.stages", fusion="context.conv_bn_dropout",
                        widening="context.up_dr"),
}
# fmt: on
ONE_MODULE: Rules = ((r"\.f_query\.", ".f_key."),)  # in OCNet's first release, stored under both names

# A BatchNorm with its activation is a sequence of its own in the plain form of heads: conv 0, BN 1.0.
PLAIN_NORM: Rules = ((r"^(?!backbone\.|stage|transition)(.*\.\d)\.0\.(?=[a-z_]+$)", r"\1."),)
COMMON: Rules = (
    # Sequences of (conv, BN, act) are numbered on: conv 0, BN 1, conv 2, BN 3.
    (r"\.(f_\w+)\.0\.", r".\1.0.conv."),
    (r"\.(f_\w+)\.1\.", r".\1.0.norm."),
    (r"\.(f_\w+)\.2\.", r".\1.1.conv."),
    (r"\.(f_\w+)\.3\.", r".\1.1.norm."),
    (r"\b(long|short)_range_sa\.", r"\1_range."),
    (r"\.f_(pixel|query)\.", ".query."),
    (r"\.f_(object|key)\.", ".key."),
    (r"\.f_(down|value)\.", ".value."),
    (r"\.(f_up|W)\.", ".output."),
    (r"^(\w*head\.(?:aux|classifier)|(?:boundary|direction)_head)\.[23]\.", r"\1.output."),
    (r"^(\w*head\.(?:aux|classifier)|(?:boundary|direction)_head)\.(?=[01]\.)", r"\1.hidden."),
    (r"\.(conv\d)\.(?=weight)", r".\1.conv."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.0\.(?=(weight|bias)$)", ".conv."),
    (r"\.1\.(?=(weight|bias|running_mean|running_var)$)", ".norm."),
    # Leaves.
    (r"norm\.weight$", "norm.scale"),
    (r"\.weight$", ".kernel"),
    (r"\.running_mean$", ".mean"),
    (r"\.running_var$", ".var"),
)

# What networks are fed, as config.model.input says it.
IMAGENET_RGB = {"bgr": False, "divisor": 255.0, "mean": imagenet.MEAN, "std": imagenet.STD}
CAFFE_RGB = {"bgr": False, "divisor": 1.0, "mean": (102.9801, 115.9465, 122.7717), "std": (1.0, 1.0, 1.0)}
IMAGENET_BGR, CAFFE_BGR = IMAGENET_RGB | {"bgr": True}, CAFFE_RGB | {"bgr": True}


def renamed(name: str, rules: Rules) -> str:
    """`name` with each rule applied, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


class CodeBase(NamedTuple):
    """What has written a state dict: its title, its names, what its networks are fed, its form of BatchNorm.

    `input` has the keys of config.model.input, and is None for a backbone alone. `in_place_abn`: some of its networks
    have in-place ABN where others have BatchNorm.
    """

    title: str
    rules: Rules
    heads: dict[str, Parts]
    input: dict[str, Any] | None
    in_place_abn: bool = True

    def rename(self, key: str) -> str:
        """A state-dict key -> the name of our array."""
        key = renamed(key, ((PREFIX, ""), *PLAIN_NORM, *self.rules))
        names = {theirs: ours for parts in self.heads.values() for ours, theirs in parts.items()}
        part = max((theirs for theirs in names if key.startswith(f"{theirs}.")), key=len, default="")
        return renamed(names.get(part, "") + key.removeprefix(part), COMMON)


HRNET = CodeBase("HRNet, HRNet + OCR or OVeNet", HRNET_BACKBONE, HRNET_HEADS, IMAGENET_RGB, in_place_abn=False)
OPENSEG_HRNET = CodeBase("openseg (HRNet)", HRNET_BACKBONE, OPENSEG_HRNET_HEADS, IMAGENET_BGR)
OPENSEG_RESNET = CodeBase("openseg (ResNet)", RESNET_BACKBONE, OPENSEG_HEADS, CAFFE_BGR)
OCNET = CodeBase("OCNet's first release", RESNET_BACKBONE + ONE_MODULE, OCNET_HEADS, CAFFE_RGB)
IMAGENET_RESNET = CodeBase("ResNet on ImageNet", RESNET_BACKBONE, {}, None, in_place_abn=False)


def recognise(keys: Iterable[str]) -> CodeBase:
    """The code base whose names these state-dict keys are."""
    keys = {re.sub(PREFIX, "", key) for key in keys}
    if _some(r"backbone\.", keys):
        return OPENSEG_RESNET if _some(r"backbone\.layer2\.", keys) else OPENSEG_HRNET
    if _some(r"layer2\.", keys):
        return OCNET if _some(r"(cls|dsn)\.", keys) else IMAGENET_RESNET
    return HRNET


def _some(pattern: str, names: Iterable[str]) -> bool:
    return any(re.match(pattern, name) for name in names)


def why_ignored(key: str) -> str | None:
    """What an ignored state-dict key is; None where its array belongs to the network."""
    key = re.sub(PREFIX, "", key)
    return next((reason for pattern, reason in IGNORED if re.search(pattern, key)), None)


def describe(names: Iterable[str], head: str) -> str:
    """What network has arrays of these names, and this head: "ResNet (3, 4, 23, 3), Base-OC, offsets"."""
    all_names = " ".join(names)
    modules = set(re.findall(r"(?<!\S)backbone\.trunk\.((?:stage|layer)\d)\.(\d+)", all_names))
    counts = tuple(Counter(stage for stage, _ in sorted(modules)).values())
    kind = "ResNet" if any(stage.startswith("layer") for stage, _ in modules) else "HRNet"
    offsets = "offsets" if " offset_head." in f" {all_names}" else ""
    backbone = f"{kind} {counts}" if counts else "no backbone known here"
    return ", ".join(filter(None, (backbone, head, offsets)))
