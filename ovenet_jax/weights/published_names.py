"""The names that PyTorch code bases give the arrays of their networks: one table of few rules for each.

The code base of a state dict is recognised from its keys; every key either belongs to one of our arrays
(`CodeBase.key`) or is ignored for a reason. Some networks of a code base wrap a layer in one more sequence than others;
keys are compared in their plain form, without it (`CodeBase.plain`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ovenet_jax.data import imagenet
from ovenet_jax.weights import published_heads
from ovenet_jax.weights.published_heads import OPTIONAL, Parts

Rules = tuple[tuple[str, str], ...]

# Prefixes that training scripts, DataParallel, Lightning, torch.compile and averaging of weights add.
PREFIX = r"^((module|model|_orig_mod|net|network|ema)\.)*"
ENCODER = r"^encoder\.(model\.)?"  # of segmentation_models.pytorch, the latter around timm's networks

# Keys (without these) that no network here needs, and what they are.
IGNORED = (
    (r"^(incre_modules|downsamp_modules|final_layer|fc)\.", "ImageNet classification head"),
    (r"^classifier\.(weight|bias)$", "ImageNet classification head"),
    (r"(^|\.)num_batches_tracked$", "BatchNorm's step counters"),
    (r"^n_averaged$", "counter of averaged networks"),
    (r"^coords$", "stored pixel grid"),
    (r"^loss\.criterion\.weight$", "class weights of the loss"),
    (r"^(decoder|segmentation_head|classification_head)\.", "decoder of segmentation_models.pytorch"),
)

# Keys of the backbone and the offset trunk, in any code base.
BACKBONE = r"(backbone|((conv|bn|transition|stage)\d|layer[1-4])(_2)?)\."

PLAIN: Rules = (
    (PREFIX, ""),
    (ENCODER, ""),
    (r"^offset_layer\.", "aux_head_offset."),  # in the thesis
    # A new branch is nn.Sequential(nn.Sequential(...)).
    (r"(transition\d(?:_2)?\.\d)\.0\.(?=\d\.)", r"\1."),
    # Heads with plain BatchNorm hold it in a sequence with its activation: conv 0, BN 1.0.
    (r"^(?!backbone\.|stage|transition)(.*\.\d)\.0\.(?=[a-z_]+$)", r"\1."),
    # Classifiers may have dropout before the last convolution.
    (r"^(\w*(?:head|dsn|last_layer)\w*)\.3\.(?=weight|bias)", r"\1.2."),
)

# From our names to keys: each rule is applied once, in this order.
TRUNKS: Rules = ((r"^offset_trunk\.(\w+)\.", r"\1_2."), (r"^backbone\.trunk\.", "backbone."))
BLOCKS: Rules = (
    (r"\b(conv\d)\.conv\.", r"\1."),
    (r"\bconv(\d)\.norm\.", r"bn\1."),
    (r"\.conv\.", ".0."),
    (r"\.norm\.", ".1."),
)
HEADS: Rules = (
    (r"_range\.", "_range_sa."),
    # Numbering continues across (conv, BN, act) sequences: conv 0, BN 1, conv 2, BN 3.
    (r"(\.f_\w+)\.1\.conv\.", r"\1.2."),
    (r"(\.f_\w+)\.1\.norm\.", r"\1.3."),
    (r"(\.f_\w+)\.0\.(?=conv|norm)", r"\1."),
    (r"\.hidden\.", "."),
    (r"\.output\.", ".2."),
    (r"\.conv\.", ".0."),
    (r"\.norm\.", ".1."),
)
MMSEG_HEADS: Rules = (
    (r"\.hidden\.", ".convs.0."),
    (r"\.output\.(?=kernel|bias)", ".conv_seg."),
    (r"\.norm\.", ".bn."),
    (r"\.output\.0\.", ".out_project."),
    (r"\.value\.0\.", ".value_project."),
    (r"\.(query|key)\.", r".\1_project."),
)
LEAVES: Rules = ((r"\b(kernel|scale)$", "weight"), (r"\b(mean|var)$", r"running_\1"))
OFFSETS = {"offset_head.classifier": "aux_head_offset"}


def _word_by_word(before: str, ours: str, theirs: str) -> Rules:
    return tuple((rf"{before}{x}\.", f"{y}.") for x, y in zip(ours.split(), theirs.split(), strict=True))


OBJECT_ATTENTION = _word_by_word(r"(?<=\.)", "query key value output", "f_pixel f_object f_down f_up")
SELF_ATTENTION = _word_by_word(r"(?<=\.)", "query key value output", "f_query f_key f_value W")
# timm's stem of several convolutions is one sequence up to its last BatchNorm.
STEM = _word_by_word("^", "conv1 bn1 conv2 bn2 conv3 bn3", "conv1.0 conv1.1 conv1.3 conv1.4 conv1.6 bn1")

# What networks are fed, by the keys of config.model.
IMAGENET_RGB: dict[str, Any] = {
    "input.bgr": False, "input.divisor": 255.0, "input.mean": imagenet.MEAN, "input.std": imagenet.STD,
}  # fmt: skip
CAFFE_RGB = IMAGENET_RGB | {"input.divisor": 1.0, "input.mean": (102.9801, 115.9465, 122.7717), "input.std": (1.0,) * 3}
IMAGENET_BGR, CAFFE_BGR = IMAGENET_RGB | {"input.bgr": True}, CAFFE_RGB | {"input.bgr": True}


def renamed(name: str, rules: Rules) -> str:
    """`name` with each rule applied, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


class CodeBase(NamedTuple):
    """A published code base: its title, its names, the input of its networks, its form of BatchNorm.

    tells: patterns, each of which begins one of its keys. heads: by title, see published_heads.py. fed: what its
    networks are fed, by the keys of config.model, and how they resize; empty for a backbone alone. backbone: rules for
    keys that begin with "backbone.". parts: rules for what is inside of the parts of heads. one_module: queries and
    keys share a module, stored under both names. in_place_abn: some of its networks have in-place ABN where others have
    BatchNorm. absent: a pattern of our arrays that it does without, as if they were 0.
    """

    title: str
    tells: tuple[str, ...]
    heads: Mapping[str, Parts]
    fed: dict[str, Any]
    backbone: Rules = ((r"^backbone\.", ""),)
    parts: Rules = ()
    one_module: bool = False
    in_place_abn: bool = True
    absent: str = r"(?!)"

    def key(self, name: str, title: str) -> str | None:
        """The key of our array, in its plain form; None where it is of a part that the head of this title lacks."""
        if name.startswith(("backbone.", "offset_trunk.")):
            return renamed(name, TRUNKS + BLOCKS + LEAVES + self.backbone)
        parts = self.heads.get(title, {}) | OFFSETS
        part = next((part for part in parts if name.startswith(f"{part}.")), None)
        if part is None:
            return None
        rules = self.parts or HEADS
        if part.startswith("head.attention") and not self.parts:
            rules = (OBJECT_ATTENTION if "OCR" in title else SELF_ATTENTION) + rules
        return parts[part] + renamed(name.removeprefix(part), rules + LEAVES)

    def plain(self, key: str) -> str:
        """A state-dict key in the form in which keys are compared."""
        key = renamed(key, PLAIN)
        return key.replace(".f_query.", ".f_key.") if self.one_module else key

    def title_of(self, keys: Iterable[str]) -> str:
        """The title of the head that state-dict keys are of; "" where none is of a head."""
        keys = [key for key in map(self.plain, keys) if not re.match(BACKBONE, key) and why_ignored(key) is None]
        keys = [key for key in keys if not _part_of(key, OFFSETS.values())]
        known = {theirs for parts in self.heads.values() for theirs in parts.values()}
        of_heads = [key for key in keys if _part_of(key, known)]
        for title, parts in self.heads.items():
            found = {_part_of(key, parts.values()) for key in of_heads}
            if {theirs for ours, theirs in parts.items() if ours not in OPTIONAL} <= found <= set(parts.values()):
                return title
        first = sorted({key.partition(".")[0] for key in keys})
        return f"unknown parts ({', '.join(first[:8])}{', ...' * (len(first) > 8)})" if first else ""


def _part_of(key: str, parts: Iterable[str]) -> str:
    return max((part for part in parts if key.startswith(f"{part}.")), key=len, default="")


OPENSEG_RESNET = CodeBase(
    "openseg (ResNet)",
    (r"backbone\.layer2\.",),
    published_heads.OPENSEG,
    CAFFE_BGR,
    backbone=((r"^backbone\.(?=(conv|bn)\d)", "backbone.resinit."),),
)
OPENSEG_HRNET = CodeBase(
    "openseg (HRNet)", (r"backbone\.",), published_heads.OPENSEG_ON_HRNET, IMAGENET_BGR, backbone=()
)
OCNET = CodeBase(
    "OCNet's first release", (r"layer2\.", r"(cls|dsn)\."), published_heads.OCNET, CAFFE_RGB, one_module=True
)
HRNET = CodeBase("HRNet, HRNet + OCR or OVeNet", (), published_heads.HRNET, IMAGENET_RGB, in_place_abn=False)
MMSEG = CodeBase(
    "mmsegmentation (HRNet)",
    (r"decode_head\.", r"backbone\.stage2\."),
    published_heads.MMSEG,
    IMAGENET_RGB | {"align_corners": False},
    backbone=(),
    parts=MMSEG_HEADS,
    in_place_abn=False,
    absent=r"^head\.(pixels|(aux|classifier)\.hidden)\.conv\.bias$",  # of convolutions before BatchNorm
)
IMAGENET_RESNET = CodeBase("ResNet on ImageNet", (r"layer2\.",), {}, {}, in_place_abn=False)
TIMM_DEEP_STEM = IMAGENET_RESNET._replace(
    title="timm's ResNet with a deep stem", tells=(r"conv1\.0\.", r"layer2\."), backbone=IMAGENET_RESNET.backbone + STEM
)
SMP = "segmentation_models.pytorch"
CODE_BASES = (
    MMSEG,
    OPENSEG_RESNET,
    OPENSEG_HRNET,
    OCNET,
    HRNET._replace(title=f"{SMP} (HRNet)", tells=(r"encoder\.(model\.)?stage2\.",), heads={}, fed={}),
    IMAGENET_RESNET._replace(title=f"{SMP} (ResNet)", tells=(r"encoder\.(model\.)?layer2\.",)),
    TIMM_DEEP_STEM,
    IMAGENET_RESNET,
    HRNET,
)


def recognise(keys: Iterable[str]) -> CodeBase:
    """The code base whose names these state-dict keys are."""
    keys = {re.sub(PREFIX, "", key) for key in keys}
    return next(
        base for base in CODE_BASES if all(any(re.match(pattern, key) for key in keys) for pattern in base.tells)
    )


def why_ignored(key: str) -> str | None:
    """What an ignored state-dict key is; None where its array belongs to the network."""
    key = renamed(key, PLAIN[:2])
    return next((reason for pattern, reason in IGNORED if re.search(pattern, key)), None)


def describe(names: Iterable[str], head: str) -> str:
    """What network has arrays of these names, ours or state-dict keys, and this head: "ResNet (3, 4, 23, 3), Base-OC,
    offsets"."""
    names = [renamed(name, PLAIN[:2]) for name in names]
    module = r"(?:backbone\.)?(?:trunk\.)?(stage\d|layer[1-4])\.(\d+)\."
    modules = {match.groups() for name in names if (match := re.match(module, name))}
    kind = "HRNet" if any(stage.startswith("stage") for stage, _ in modules) else "ResNet"
    modules = {(stage, _) for stage, _ in modules if kind == "ResNet" or stage.startswith("stage")}
    counts = tuple(Counter(stage for stage, _ in sorted(modules)).values())
    offsets = "offsets" if any(re.match(r"offset_head|offset_layer|aux_head_offset", name) for name in names) else ""
    backbone = f"{kind} {counts}" if counts else "no backbone known here"
    return ", ".join(filter(None, (backbone, head, offsets)))
