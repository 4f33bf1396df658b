"""SegFix: boundaries and directions instead of classes, with a variant for every data set; as openseg publishes it for
Cityscapes, `configs/cityscapes/H_SEGFIX.json` and the scripts of `scripts/cityscapes/segfix`.
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Networks

DIRECTIONS = 8  # dt_num_classes
INPUT = {"bgr": True, "divisor": 255.0, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def networks(*suffixes: str) -> Networks:
    """HRNet-W48 and the double-resolution HRNet; each also with these suffixes."""
    published = {"segfix_w48": common.hrnet(48), "segfix_hx20": hrnet2x(20)}
    return {
        f"{name}{suffix}": (backbone, head(), False)
        for name, backbone in published.items()
        for suffix in ("", *suffixes)
    }


def small_networks() -> Networks:
    """With HRNet-W18; and with `_tiny` what a CPU trains."""
    return {
        "segfix": (common.hrnet(18), head(), False),
        "segfix_tiny": (common.tiny_hrnet(), head(64), False),
    }


def hrnet2x(width: int) -> ConfigDict:
    """The double-resolution HRNet of SegFix, whose stage 1 has two branches of bottlenecks."""
    return ConfigDict({**common.hrnet(width), "name": "hrnet2x", "layer1_width": 32})


def head(hidden_features: int = 256) -> ConfigDict:
    return ConfigDict({"name": "segfix", "hidden_features": hidden_features})


def set_task(config: ConfigDict, regions: str = "classes") -> None:
    """What a SegFix learns, is fed and is tested on, on every data set."""
    config.model.num_classes = 1 + DIRECTIONS  # of offsets: none, and one in each direction
    config.model.align_corners = True
    config.model.input = ConfigDict(INPUT)
    config.loss.class_weights = ()
    config.loss.ohem.on = False
    config.data.regions = regions  # whose boundaries: those of "classes" or of "instances"

    config.augment.base_size = 0  # images are not scaled
    config.augment.scale_range = (1.0, 1.0)
    config.augment.short_side = 0
    config.augment.resize = ()
    config.augment.brightness = 10  # random_brightness.shift_value
    config.augment.brightness_share = 1.0  # random_brightness.ratio
    config.augment.pad_anywhere = True  # pad_mode random
    config.augment.pad_color = (104, 116, 124)  # RGB; the mean, which is 0 after normalisation

    config.eval.base_size = 0
    config.eval.short_side = 0
    config.eval.keep_shape = True
    config.eval.windows = "overlapping"  # test.sscrop
    config.eval.window = config.augment.crop


def set_training(config: ConfigDict) -> None:
    """How it is trained where nothing else is said."""
    config.augment.crop = (512, 512)  # random_crop.crop_size
    config.eval.window = (512, 512)
    config.batch_size = 16
    config.steps = 80_000
    config.optimizer.rate = 0.04
    config.optimizer.weight_decay = 5e-4
    config.evaluate_every = 8000
