"""The built-in toy streets and a tiny OVeNet: minutes on a laptop. `make demo` runs it."""

from ovenet_jax.configs import common, openseg, segfix

# 1 / sqrt(share of the pixels), mean 1 over them
CLASS_WEIGHTS = (1.13, 0.62, 0.81, 1.51, 1.64, 1.99, 1.43, 2.25)


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr`, `hrnet` or `segfix`, all tiny, or a variant of openseg.py."""
    config = common.base_config(f"demo-{variant}")
    backbone = common.tiny_hrnet()
    openseg.choose_model(
        config,
        variant,
        {
            "ovenet": (backbone, common.ocr(32), True),
            "hrnet_ocr": (backbone, common.ocr(32), False),
            "hrnet": (backbone, common.fcn(), False),
            "segfix": (backbone, segfix.head(32), False),
        },
    )
    config.model.num_classes = 8

    config.data.name = "toy_streets"
    config.data.test_split = "val"
    config.data.workers = 0
    config.augment.base_size = 256  # the scenes are 128x256
    config.augment.crop = (96, 160)
    config.augment.scale_factor = 10
    config.loss.class_weights = CLASS_WEIGHTS

    config.batch_size = 8
    config.steps = 500
    config.optimizer.rate = 0.1

    config.eval.base_size = 256
    config.eval.window = (128, 256)
    config.eval.images_per_device = 8
    config.evaluate_every = 250
    config.report_every = 20
    if config.model.head.name == "segfix":
        segfix.set_task(config)
    return config
