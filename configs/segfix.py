"""SegFix: boundaries and directions instead of classes, with a variant for every data set; as openseg publishes it for
Cityscapes, `configs/cityscapes/H_SEGFIX.json` and the scripts of `scripts/cityscapes/segfix`.
"""

from ml_collections import ConfigDict

from ovenet_jax.configs import common, openseg
from ovenet_jax.configs.common import Networks

DIRECTIONS = 8  # dt_num_classes


def networks(*suffixes: str) -> Networks:
    """HRNet-W48 and the double-resolution HRNet; each also with these suffixes."""
    published = {"segfix_w48": common.hrnet(48), "segfix_hx20": hrnet2x(20)}
    return {
        f"{name}{suffix}": (backbone, head(), False)
        for name, backbone in published.items()
        for suffix in ("", *suffixes)
    }


def small_networks() -> Networks:
    """SegFix with HRNet-W18, and with `_tiny` small enough for a CPU."""
    return {"segfix": (common.hrnet(18), head(), False), "segfix_tiny": (common.tiny_hrnet(), head(64), False)}


def hrnet2x(width: int) -> ConfigDict:
    """The double-resolution HRNet of SegFix, whose stage 1 has two branches of bottlenecks."""
    return openseg.hrnet(width, name="hrnet2x", layer1_width=32)


def head(hidden_features: int = 256) -> ConfigDict:
    return ConfigDict({"name": "segfix", "hidden_features": hidden_features, "activation": "leaky_relu"})


def set_published(config: ConfigDict, regions: str = "classes") -> None:
    """openseg's training settings for Cityscapes, used for all large data sets because no others are published."""
    config.augment.crop = (512, 512)  # random_crop.crop_size
    config.batch_size = 16
    config.steps = 80_000
    config.optimizer.rate = 0.04
    config.optimizer.weight_decay = 5e-4
    config.evaluate_every = 8000
    set_task(config, regions)


def set_task(config: ConfigDict, regions: str = "classes") -> None:
    """Labels, input and test settings of SegFix on every data set.

    regions: boundaries of "classes" or of "instances".
    """
    config.model.num_classes = 1 + DIRECTIONS  # no offset, and an offset in each direction
    config.model.align_corners = True
    config.model.input.update(openseg.HRNET_INPUT)
    config.data.regions = regions

    config.augment.base_size = 0  # images are not scaled
    config.augment.scale_range = (1.0, 1.0)
    config.augment.short_side = 0
    config.augment.resize = ()
    config.augment.brightness = 10  # random_brightness.shift_value
    config.augment.brightness_share = 1.0  # random_brightness.ratio
    openseg.pad_with_mean_color(config)
    config.augment.pad_anywhere = True  # pad_mode random

    config.eval.base_size = 0  # images are tested at their own size
    config.eval.short_side = 0
    config.eval.keep_shape = True
    config.eval.windows = "overlapping"  # test.sscrop
    config.eval.window = config.augment.crop
    config.eval.sum = "logits"
