"""The only place that knows models by name: config.model -> a model with its initial values."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from ovenet_jax import described, errors
from ovenet_jax.models import contracts, ocnet
from ovenet_jax.models.fcn import FCN, PixelClassifier
from ovenet_jax.models.hrnet import Branches, HRNet, Stage
from ovenet_jax.models.isa import ISA
from ovenet_jax.models.layers import BatchNorm, InitialValues, relu
from ovenet_jax.models.ocr import OCR
from ovenet_jax.models.ovenet import OVeNet, Segmentor
from ovenet_jax.models.resnet import ResNet, dilated_layers
from ovenet_jax.models.segfix import SegFix

HEADS: dict[str, type] = {
    "fcn": FCN,
    "ocr": OCR,
    "asp_ocr": OCR,
    "base_oc": ocnet.BaseOC,
    "pyramid_oc": ocnet.PyramidOC,
    "asp_oc": ocnet.ASPOC,
    "isa": ISA,
}
FIXED: dict[str, dict[str, Any]] = {  # fixed arguments of heads that share a class
    "ocr": {"dilations": (), "output_bias": True},
    "asp_ocr": {"bias": True},
}
ACTIVATIONS = {"relu": relu, "leaky_relu": jax.nn.leaky_relu, "none": nnx.identity}  # leaky: 0.01


def create_model(model: ConfigDict, seed: int = 0) -> nnx.Module:
    """`config.model` -> OVeNet where it has an `offset` part, or SegFix, else the baseline of its backbone and head.

    In evaluation mode; `model.train()` turns on batch statistics and dropout.

    Raises UserError: no number of classes, an unknown backbone or head, missing or unused keys, or an invalid value.
    """
    described.check(model, "model.")
    if model.num_classes is None:
        raise errors.UserError("config.model.num_classes is None; set it to the number of classes of the data.")
    init = InitialValues(seed, he=model.backbone.he_init)
    backbone = _create_backbone(model, init)
    given: dict[str, Any] = {"backbone": backbone, "init": init}
    network: nnx.Module
    if is_segfix(model):
        given["directions"] = directions_of(model)
        network = SegFix(**_options("head", model.head, SegFix.__init__, **given))
    elif has_offsets(model):
        given["head"] = _create_head(model, backbone, init)
        network = OVeNet(**_options("offset", model.offset, OVeNet.__init__, **given))
    else:
        network = Segmentor(backbone, _create_head(model, backbone, init))
    network.set_attributes(BatchNorm, momentum=model.norm_momentum)
    network.eval()
    return network


def is_segfix(model: ConfigDict) -> bool:
    """Whether `config.model` is a SegFix."""
    return model.head.name == "segfix"


def has_offsets(model: ConfigDict) -> bool:
    """Whether `config.model` is an OVeNet."""
    return "offset" in model


def directions_of(model: ConfigDict) -> int:
    """The number of directions of the SegFix `config.model`: class 0 is no offset."""
    return model.num_classes - 1


def _create_backbone(model: ConfigDict, init: InitialValues) -> contracts.Backbone:
    create = _named("backbone.name", model.backbone.name, BACKBONES)
    given = {"name": model.backbone.name, "align_corners": model.align_corners, "init": init}
    given |= {"channels": len(model.input.mean) if "input" in model else 3}
    return create(**_options("backbone", model.backbone, create, **given))


def _create_hrnet(
    *,
    name: str,
    width: int,
    modules: Sequence[int],
    blocks: int,
    layer1_blocks: int,
    layer1_width: int,
    stem_width: int,
    align_corners: bool,
    channels: int,
    init: InitialValues,
    stage_blocks: Branches = (),
    stage_widths: Branches = (),
) -> HRNet:
    """In the double-resolution form, "hrnet2x", stage 1 replaces `layer1`, and each stage has one branch more."""
    twice = name == "hrnet2x"
    widths = tuple(width * 2**branch for branch in range(5))  # each branch is twice as wide as the one before
    branches = (3, 4, 5) if twice else (2, 3, 4)
    stage_blocks = stage_blocks or [(blocks,) * number for number in branches]
    stage_widths = stage_widths or [widths[:number] for number in branches]
    stages = list(map(Stage, modules, stage_blocks, stage_widths))
    first = Stage(1, 2 * (layer1_blocks,), (4 * layer1_width, 8 * layer1_width), bottlenecks=True)
    return HRNet(
        stages=[first, *stages] if twice else stages,
        layer1=None if twice else (layer1_blocks, layer1_width),
        stem_width=stem_width,
        align_corners=align_corners,
        channels=channels,
        init=init,
    )


def _create_resnet(
    *,
    blocks: Sequence[int],
    widths: Sequence[int],
    stem: Sequence[int],
    output_stride: int,
    multi_grid: Sequence[int],
    half_dilation: bool,
    channels: int,
    init: InitialValues,
) -> ResNet:
    dilated: dict[str, Any] = {"output_stride": output_stride, "multi_grid": multi_grid, "half_dilation": half_dilation}
    return ResNet(dilated_layers(blocks, widths, **dilated), stem=stem, channels=channels, init=init)


BACKBONES: dict[str, Callable[..., contracts.Backbone]] = {
    "hrnet": _create_hrnet,
    "hrnet2x": _create_hrnet,
    "resnet": _create_resnet,
}


def _create_head(model: ConfigDict, backbone: contracts.Backbone, init: InitialValues) -> contracts.Head:
    kind = _named("head.name", model.head.name, HEADS)
    given = {"num_classes": model.num_classes, "align_corners": model.align_corners, "init": init}
    given |= FIXED.get(model.head.name, {})
    options = _options("head", model.head, kind.__init__, in_features=backbone.width, **given)
    for key, features in (("aux", backbone.aux_width), ("classifier", backbone.width)):
        if key in options:
            given = {"in_features": features, "out_features": model.num_classes, "init": init}
            classifier = _options(f"head.{key}", options[key], PixelClassifier.__init__, **given)
            options[key] = PixelClassifier(**classifier)
    return kind(**options)


def _options(key: str, settings: ConfigDict, create: Callable, **fixed: Any) -> dict[str, Any]:
    """The keyword arguments of `create`: those of `fixed` that it accepts, and the entries of config.model.<key>, with
    lists (of a config read from JSON) as tuples. Raises UserError: missing or unused entries."""
    accepted = {name: x for name, x in signature(create).parameters.items() if name != "self"}
    needed = {name for name, x in accepted.items() if x.default is x.empty} - fixed.keys()
    present = set(settings) - {"name", "he_init"}  # these two are read elsewhere
    missing, unused = sorted(needed - present), sorted(present - (accepted.keys() - fixed.keys()))
    faults = [f"lacks {', '.join(missing)}"] if missing else []
    faults += [f"does not use {', '.join(unused)}"] if unused else []
    if faults:
        name = f" (name {settings.name!r})" if "name" in settings else ""
        helps = "choose a whole network by the config's variant instead, --config=configs/FILE.py:HEAD_BACKBONE"
        raise errors.UserError(f"config.model.{key}{name} {' and '.join(faults)}; {helps}.")
    options = {name: described.with_tuples(settings[name]) for name in settings if name in accepted}
    if "activation" in options:
        options["activation"] = ACTIVATIONS[settings.activation]
    return options | {name: value for name, value in fixed.items() if name in accepted}


def _named(key: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise errors.UserError(f"config.model.{key} is {name!r}; known: {', '.join(map(repr, known))}.")
    return known[name]
