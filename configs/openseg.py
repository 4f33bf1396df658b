"""The OCNet series, as its two code bases publish it: openseg.pytorch, and OCNet.pytorch, the authors' first release.

Every head of HEADS goes on every backbone of BACKBONES, with offsets or without: the variants `[ovenet_]HEAD_BACKBONE`
of all data sets, like `base_oc_r101` or `ovenet_isa_w48`. Heads are configured as openseg publishes them for ResNets or
for HRNets; if it publishes no version for HRNets (fcn_no_aux, base_oc, pyramid_oc, asp_oc, isa), the ResNet version is
used.

`ocr_w48` is openseg's HRNet + OCR: BGR input, biases in the attention, a 3x3 auxiliary head, in-place ABN's LeakyReLU.
`hrnet_ocr` is that of HRNet's own code, which OVeNet is built on. OCR is OCNet's fast form under its later name: what
its authors call Fast-OC (Fast OCNet) is `ocr`, and with the atrous pyramid (Fast ASP-OCNet) `asp_ocr`.
"""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from ovenet_jax.configs import common
from ovenet_jax.configs.common import Networks
from ovenet_jax.data import imagenet
from ovenet_jax.errors import UserError, nearest

ACTIVATION = "leaky_relu"  # the activation of in-place ABN, slope 0.01; only in the heads

# The input is BGR; HRNets still use ImageNet's RGB mean and std on it, as published. OCNet's first release converts to
# RGB, but subtracts the mean of BGR.
HRNET_INPUT = {"bgr": True, "divisor": 255.0, "mean": imagenet.MEAN, "std": imagenet.STD}
RESNET_INPUT = {"bgr": True, "divisor": 1.0, "mean": (102.9801, 115.9465, 122.7717), "std": (1.0, 1.0, 1.0)}
FIRST_RELEASE_INPUT = RESNET_INPUT | {"bgr": False}


def resnet(
    blocks: tuple[int, ...], widths: tuple[int, ...] = (64, 128, 256, 512), stem: tuple[int, ...] = (64, 64, 128)
) -> ConfigDict:
    """openseg's `deepbase_resnet*_dilated8`."""
    return ConfigDict(
        {
            "name": "resnet",
            "blocks": blocks,
            "widths": widths,
            "stem": stem,
            "output_stride": 8,
            "multi_grid": (1,) * blocks[3],
            "half_dilation": True,  # in the block whose stride was removed; the first release: False
            "he_init": True,
        }
    )


def hrnet(width: int, **options) -> ConfigDict:
    """HRNet-W<width>, or with these options one of its small forms."""
    return ConfigDict({**common.hrnet(width), **options})


BACKBONES: dict[str, Callable[[], ConfigDict]] = {
    "r50": partial(resnet, (3, 4, 6, 3)),
    "r101": partial(resnet, (3, 4, 23, 3)),
    "w18": partial(hrnet, 18),
    "w18_small_v1": partial(hrnet, 16, modules=(1, 1, 1), blocks=2, layer1_blocks=1, layer1_width=32),
    "w18_small_v2": partial(hrnet, 18, modules=(1, 3, 2), blocks=2, layer1_blocks=2),
    "w32": partial(hrnet, 32),
    "w48": partial(hrnet, 48),
    "w64": partial(hrnet, 64),
    "tiny": common.tiny_hrnet,  # this one and the next are for CPUs
    "r_tiny": partial(resnet, (1, 1, 1, 1), widths=(16, 16, 32, 32), stem=(16, 16, 32)),
}


# Heads by `width`, a number of channels (512 as published) from which the others are derived.
def fcn(width: int, on_resnet: bool = True) -> ConfigDict:
    form = {"output_bias": False, "dropout": 0.1}
    if not on_resnet:
        return ConfigDict({"name": "fcn", "classifier": _classifier(0, **form)})
    return ConfigDict({"name": "fcn", "classifier": _classifier(width, **form), "aux": _classifier(width, **form)})


def fcn_no_aux(width: int) -> ConfigDict:
    return ConfigDict({"name": "fcn", "classifier": _classifier(width, dropout=0.1)})


def ocr(width: int, on_resnet: bool = True, narrow: bool = False) -> ConfigDict:
    """`narrow`: half of the channels."""
    mid = width // 2 if narrow else width
    return _head(
        "ocr",
        mid_features=mid,
        key_features=mid // 2,
        bias=True,
        dropout=0.05,
        aux=_classifier(mid if on_resnet or narrow else 0, dropout=0.05 if on_resnet else 0.0),
    )


def asp_ocr(width: int, on_resnet: bool = True) -> ConfigDict:
    return _head(
        "asp_ocr",
        mid_features=width // 2,
        key_features=width // 4,
        dilations=(12, 24, 36) if on_resnet else (24, 48, 72),
        output_bias=on_resnet,
        dropout=0.1,
        aux=_classifier(width, output_bias=on_resnet, dropout=0.1 if on_resnet else 0.0),
    )


def base_oc(width: int, half: bool = False, first_release: bool = False) -> ConfigDict:
    """`half`: attention on the 2x2 max-pooled map, in 1/16 of the memory."""
    return _head(
        "base_oc",
        mid_features=width,
        key_features=width // 2,
        value_features=width // 2,
        first_release=first_release,
        half=half,
        dropout=0.05,
        aux=_classifier(width, dropout=0.05 if first_release else 0.0),
    )


def pyramid_oc(width: int) -> ConfigDict:
    """Published only in the first release."""
    return _head(
        "pyramid_oc",
        mid_features=width,
        key_features=width // 2,
        sizes=(1, 2, 3, 6),
        dropout=0.05,
        aux=_classifier(width, dropout=0.05, activation="none"),
    )


def asp_oc(width: int, first_release: bool = False) -> ConfigDict:
    return _head(
        "asp_oc",
        mid_features=width,
        branch_features=width // 2,
        key_features=width // 4,
        value_features=width // 2 if first_release else width // 4,
        dilations=(12, 24, 36),
        first_release=first_release,
        dropout=0.1,
        aux=_classifier(width, dropout=0.1 if first_release else 0.0),
    )


def isa(width: int) -> ConfigDict:
    return _head(
        "isa",
        mid_features=width,
        key_features=width // 2,
        factors=((8, 8),),
        dropout=0.05,
        aux=_classifier(width, bias=False, dropout=0.05),
    )


def _head(name: str, **options) -> ConfigDict:
    return ConfigDict({"name": name, "activation": ACTIVATION, **options})


def _classifier(hidden_features: int, **options) -> ConfigDict:
    return common.classifier(hidden_features, 3, **{"activation": ACTIVATION, **options})


HEADS: dict[str, Callable[..., ConfigDict]] = {
    "fcn": fcn,
    "fcn_no_aux": fcn_no_aux,
    "ocr": ocr,
    "ocr_b": partial(ocr, narrow=True),
    "asp_ocr": asp_ocr,
    "base_oc": base_oc,
    "base_oc_half": partial(base_oc, half=True),
    "pyramid_oc": pyramid_oc,
    "asp_oc": asp_oc,
    "isa": isa,
    "ocnet_base_oc": partial(base_oc, first_release=True),  # queries and keys share one layer
    "ocnet_pyramid_oc": pyramid_oc,
    "ocnet_asp_oc": partial(asp_oc, first_release=True),
}
HRNET_HEADS = HEADS | {name: partial(HEADS[name], on_resnet=False) for name in ("fcn", "ocr", "ocr_b", "asp_ocr")}


def network(head: str, backbone: str) -> tuple[ConfigDict, ConfigDict]:
    """`config.model.backbone` and `config.model.head` of one of HEADS on one of BACKBONES."""
    below, width = BACKBONES[backbone](), 64 if backbone.endswith("tiny") else 512
    if below.name != "resnet":
        return below, HRNET_HEADS[head](width)
    below.half_dilation = not head.startswith("ocnet_")
    return below, HEADS[head](width)


def choose_model(config: ConfigDict, variant: str, networks: Networks, suffixes: tuple[str, ...] = ()) -> None:
    """Sets the network of `variant` and its input: one of `networks`, or [ovenet_]HEAD_BACKBONE.

    `suffixes`: optional suffixes of HEAD_BACKBONE, in this order.

    Raises:
      UserError: an unknown variant.
    """
    if variant in networks:
        common.choose_model(config, variant, networks)
        return
    name = variant
    for suffix in reversed(suffixes):
        name = name.removesuffix(suffix)
    parts = name.removeprefix("ovenet_")
    found = [(h, b) for h in HEADS for b in BACKBONES if f"{h}_{b}" == parts]
    if not found:
        known = {*networks, *(f"{prefix}{h}_{b}" for prefix in ("", "ovenet_") for h in HEADS for b in BACKBONES)}
        similar = nearest(variant, {name: name for name in known})
        optional = "".join(f"[{suffix}]" for suffix in suffixes)
        raise UserError(
            f"Config variant {variant!r} is unknown{similar}; choose one of {', '.join(networks)}; or "
            f"[ovenet_]HEAD_BACKBONE{optional} with the head {', '.join(HEADS)} and the backbone "
            f"{', '.join(BACKBONES)}."
        )
    ((head, backbone),) = found
    model = config.model
    model.backbone, model.head = network(head, backbone)
    if model.backbone.name != "resnet":
        model.input.update(HRNET_INPUT)
    else:
        model.input.update(FIRST_RELEASE_INPUT if head.startswith("ocnet_") else RESNET_INPUT)
    if name.startswith("ovenet_"):
        # As much of HRNet's last stage as OVeNet copies, or all blocks of a ResNet's last layer.
        last = model.backbone
        count = last.blocks[3] if last.name == "resnet" else min(2, last.modules[2])
        common.add_offsets(config, modules=(count,))


def set_training(config: ConfigDict) -> None:
    """openseg's training and test settings for all data sets; steps, rates and sizes depend on the data set."""
    config.augment.base_size = 0  # scales are of the image's own size
    config.augment.scale_range = (0.5, 2.0)  # random_resize.scale_range
    config.augment.aspect_range = (0.9, 1.1)  # random_resize.aspect_range
    config.augment.brightness = 10  # random_brightness.shift_value
    config.augment.brightness_share = 1.0  # random_brightness.ratio
    pad_with_mean_color(config)
    config.augment.pad_anywhere = True  # pad_mode random

    config.loss.ohem.threshold = 0.7 if config.model.backbone.name == "resnet" else 0.9  # ohem_thresh
    config.loss.ohem.keep = 100_000  # ohem_minkeep
    config.loss.ohem.aux_over_all = False

    config.eval.windows = "whole"
    config.eval.sum = "logits"


def set_cityscapes_schedule(config: ConfigDict) -> None:
    """openseg's batches and steps for Cityscapes, and for ACDC, for which it publishes none."""
    config.batch_size = 8
    config.steps = 40_000 if config.model.backbone.name == "resnet" else 80_000
    config.evaluate_every = 4000


def set_first_release_training(config: ConfigDict) -> None:
    """Settings of OCNet's first release for Cityscapes; it tests with HRNet's windows and scales, and sums logits."""
    config.augment.crop = (769, 769)  # INPUT_SIZE
    pad_with_mean_color(config)
    config.loss.ohem.threshold = 0.7  # OHEMTHRES
    config.loss.ohem.keep = 100_000  # OHEMKEEP, as its README says
    config.loss.ohem.aux_over_all = False  # CriterionOhemDSN_single
    config.eval.sum = "logits"


def pad_with_mean_color(config: ConfigDict) -> None:
    """Pads with the mean colour, which is 0 after normalisation, as openseg does."""
    mean = [round(config.model.input.divisor * value) for value in config.model.input.mean]
    config.augment.pad_color = tuple(reversed(mean) if config.model.input.bgr else mean)
