"""The only place that knows models by name: config.model -> a model with its initial values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
from flax import nnx

from ovenet_jax.errors import UserError
from ovenet_jax.models.fcn import FCN, PixelClassifier
from ovenet_jax.models.hrnet import HRNet, Stage
from ovenet_jax.models.isa import ISA
from ovenet_jax.models.layers import BatchNorm, InitialValues
from ovenet_jax.models.ocnet import ASPOC, BaseOC, PyramidOC
from ovenet_jax.models.ocr import ASPOCR, OCR
from ovenet_jax.models.ovenet import OVeNet
from ovenet_jax.models.resnet import ResNet, dilated_layers
from ovenet_jax.models.segfix import SegFix
from ovenet_jax.models.segmentor import Segmentor
from ovenet_jax.segfix.directions import COUNTS

if TYPE_CHECKING:
    from ml_collections import ConfigDict

HEADS = {  # whose options are the rest of config.model.head
    "ocr": OCR,
    "asp_ocr": ASPOCR,
    "base_oc": BaseOC,
    "pyramid_oc": PyramidOC,
    "asp_oc": ASPOC,
    "isa": ISA,
}
ACTIVATIONS = {"relu": jax.nn.relu, "leaky_relu": jax.nn.leaky_relu, "none": None}  # leaky: 0.01


def create_model(model: "ConfigDict", seed: int = 0) -> nnx.Module:
    """`config.model` -> OVeNet where it has an `offset` part, or SegFix, else the baseline of its backbone and head.

    In evaluation mode; `model.train()` turns on batch statistics and dropout.

    Raises:
      UserError: an unknown backbone or head, an offset branch that does not fit, or SegFix with other classes than its
        own.
    """
    init = InitialValues(seed, he=model.backbone.he_init)
    backbone = _create_backbone(model, init)
    if model.head.name == "segfix":
        network = _create_segfix(model, backbone, init)
    elif "offset" in model:
        network = _create_ovenet(model, backbone, _create_head(model, backbone, init), init)
    else:
        head = _create_head(model, backbone, init)
        network = Segmentor(backbone, head, align_corners=model.align_corners)
    network.set_attributes(BatchNorm, momentum=model.norm_momentum)
    network.eval()
    return network


def directions_of(model: "ConfigDict") -> int:
    """How many directions the SegFix `config.model` tells apart: its classes are no offset, and one in each direction.

    Raises:
      UserError: other classes than a SegFix can have.
    """
    directions = model.num_classes - 1
    if directions not in COUNTS:
        raise UserError(
            f"config.model.num_classes is {model.num_classes}; of a SegFix it is 1 more than its directions, which are "
            f"{', '.join(map(str, COUNTS))}."
        )
    return directions


def _create_segfix(model: "ConfigDict", backbone: nnx.Module, init: InitialValues) -> SegFix:
    return SegFix(
        backbone,
        hidden_features=model.head.hidden_features,
        num_directions=directions_of(model),
        align_corners=model.align_corners,
        init=init,
    )


def _create_ovenet(
    model: "ConfigDict", backbone: nnx.Module, head: nnx.Module, init: InitialValues
) -> OVeNet:
    try:
        return OVeNet(
            backbone,
            head,
            align_corners=model.align_corners,
            offset_branch=model.offset.branch,
            offset_modules=tuple(model.offset.modules),
            threshold=model.offset.threshold,
            refinement=model.offset.refinement,
            grid_align_corners=model.offset.grid_align_corners,
            logits=model.offset.logits,
            default_init=model.offset.default_init,
            init=init,
        )
    except ValueError as error:
        raise UserError(f"config.model.offset: {error}.") from error


def _create_backbone(model: "ConfigDict", init: InitialValues) -> nnx.Module:
    backbone = model.backbone
    if backbone.name == "hrnet":
        return _create_hrnet(model, init)
    if backbone.name == "hrnet2x":
        return _create_hrnet2x(model, init)
    if backbone.name == "resnet":
        return _create_resnet(model, init)
    raise UserError(f"config.model.backbone.name is {backbone.name!r}; known: 'hrnet', 'hrnet2x', 'resnet'.")


def _create_hrnet(model: "ConfigDict", init: InitialValues) -> HRNet:
    backbone = model.backbone
    return HRNet(
        stages=_basic_stages(backbone, branches=(2, 3, 4)),
        layer1_blocks=backbone.layer1_blocks,
        layer1_width=backbone.layer1_width,
        stem_width=backbone.stem_width,
        align_corners=model.align_corners,
        init=init,
    )


def _create_hrnet2x(model: "ConfigDict", init: InitialValues) -> HRNet:
    """The double-resolution form, whose stage 1 takes the place of `layer1`."""
    backbone = model.backbone
    first = Stage(
        1,
        backbone.layer1_blocks,
        (4 * backbone.layer1_width, 8 * backbone.layer1_width),
        bottlenecks=True,
    )
    return HRNet(
        stages=[first, *_basic_stages(backbone, branches=(3, 4, 5))],
        stem_width=backbone.stem_width,
        align_corners=model.align_corners,
        init=init,
    )


def _basic_stages(backbone: "ConfigDict", branches: tuple[int, int, int]) -> list[Stage]:
    """Stages 2, 3 and 4, with these numbers of branches; each is twice as wide as the one before."""
    if len(backbone.modules) != 3:
        raise UserError(
            f"config.model.backbone.modules needs one number for each of stages 2, 3, 4; got {backbone.modules}."
        )
    widths = tuple(backbone.width * 2**branch for branch in range(5))
    return [
        Stage(modules, backbone.blocks, widths[:number])
        for number, modules in zip(branches, backbone.modules, strict=True)
    ]


def _create_resnet(model: "ConfigDict", init: InitialValues) -> ResNet:
    backbone = model.backbone
    try:
        layers = dilated_layers(
            tuple(backbone.blocks),
            tuple(backbone.widths),
            output_stride=backbone.output_stride,
            multi_grid=tuple(backbone.multi_grid),
            half_dilation=backbone.half_dilation,
        )
    except ValueError as error:
        raise UserError(f"config.model.backbone: {error}.") from error
    return ResNet(layers, stem=tuple(backbone.stem), init=init)


def _create_head(model: "ConfigDict", backbone: nnx.Module, init: InitialValues) -> nnx.Module:
    head = model.head
    if head.name != "fcn" and head.name not in HEADS:
        known = ", ".join(map(repr, ("fcn", *HEADS, "segfix")))
        raise UserError(f"config.model.head.name is {head.name!r}; known: {known}.")
    aux = _create_classifier(backbone.aux_width, model.num_classes, head.aux, init) if "aux" in head else None
    if head.name == "fcn":
        return FCN(_create_classifier(backbone.width, model.num_classes, head.classifier, init), aux)
    if head.name == "isa":
        _check_factors(head.factors)
    if head.name == "pyramid_oc" and min(head.sizes, default=0) < 1:
        raise UserError(
            f"config.model.head.sizes is {head.sizes}; each is a number of blocks along both sides of the map, at "
            f"least 1, for example (1, 2, 3, 6)."
        )
    options = {key: head[key] for key in head if key not in ("name", "aux", "activation")}
    if head.name in ("base_oc", "asp_oc"):
        options["align_corners"] = model.align_corners
    return HEADS[head.name](
        backbone.width,
        model.num_classes,
        aux=aux,
        activation=ACTIVATIONS[head.activation],
        init=init,
        **options,
    )


def _check_factors(factors: Sequence) -> None:
    blocks = [
        block for block in factors if isinstance(block, tuple | list) and len(block) == 2 and min(block) >= 1
    ]
    if not factors or len(blocks) < len(factors):
        raise UserError(
            f"config.model.head.factors is {factors}; each is a block's (height, width) in pixels of the map, at "
            f"least 1, for example ((8, 8),)."
        )


def _create_classifier(
    in_features: int, num_classes: int, classifier: "ConfigDict", init: InitialValues
) -> PixelClassifier:
    options = {key: classifier[key] for key in classifier if key != "activation"}
    return PixelClassifier(
        in_features, num_classes, activation=ACTIVATIONS[classifier.activation], init=init, **options
    )
