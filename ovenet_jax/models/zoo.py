"""The only place that knows models by name: config.model -> a model with its initial values."""

from typing import TYPE_CHECKING

from flax import nnx

from ovenet_jax.errors import UserError
from ovenet_jax.models.fcn import FCN
from ovenet_jax.models.hrnet import HRNet, Stage
from ovenet_jax.models.layers import BatchNorm, InitialValues
from ovenet_jax.models.ocr import OCR
from ovenet_jax.models.ovenet import OVeNet
from ovenet_jax.models.segmentor import Segmentor

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def create_model(model: "ConfigDict", seed: int = 0) -> nnx.Module:
    """`config.model` -> OVeNet where it has an `offset` part, else the baseline of its backbone and head.

    In evaluation mode; `model.train()` turns on batch statistics and dropout.

    Raises:
      UserError: an unknown backbone or head, or an offset branch that does not fit.
    """
    init = InitialValues(seed, he=model.backbone.he_init)
    backbone = _create_backbone(model, init)
    head = _create_head(model, sum(backbone.stages[-1].widths), init)
    network = (
        Segmentor(backbone, head) if "offset" not in model else _create_ovenet(model, backbone, head, init)
    )
    network.set_attributes(BatchNorm, momentum=model.norm_momentum)
    network.eval()
    return network


def _create_ovenet(model: "ConfigDict", backbone: HRNet, head: nnx.Module, init: InitialValues) -> OVeNet:
    try:
        return OVeNet(
            backbone,
            head,
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


def _create_backbone(model: "ConfigDict", init: InitialValues) -> HRNet:
    backbone = model.backbone
    if backbone.name != "hrnet":
        raise UserError(f"config.model.backbone.name is {backbone.name!r}; known: 'hrnet'.")
    widths = tuple(backbone.width * 2**branch for branch in range(4))
    if len(backbone.modules) != 3:
        raise UserError(
            f"config.model.backbone.modules needs one number for each of stages 2, 3, 4; got {backbone.modules}."
        )
    return HRNet(
        stages=[
            Stage(modules, backbone.blocks, widths[:number])
            for number, modules in zip((2, 3, 4), backbone.modules, strict=True)
        ],
        layer1_blocks=backbone.layer1_blocks,
        layer1_width=backbone.layer1_width,
        stem_width=backbone.stem_width,
        align_corners=model.align_corners,
        init=init,
    )


def _create_head(model: "ConfigDict", in_features: int, init: InitialValues) -> nnx.Module:
    head = model.head
    if head.name == "fcn":
        return FCN(in_features, model.num_classes, init=init)
    if head.name == "ocr":
        return OCR(
            in_features,
            model.num_classes,
            mid_features=head.mid_features,
            key_features=head.key_features,
            dropout=head.dropout,
            init=init,
        )
    raise UserError(f"config.model.head.name is {head.name!r}; known: 'fcn', 'ocr'.")
