"""Your own data set, see ovenet_jax/data/folder.py: default sizes and steps for a GPU, or with `_tiny` for a CPU.

None of the numbers is published.
"""

from ml_collections import config_dict

from ovenet_jax.configs import common, openseg, segfix


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr`, `hrnet` or `segfix` with HRNet-W18, also with `_tiny`, or one of openseg.py."""
    config = common.base_config(f"folder-{variant}")
    openseg.choose_model(config, variant, common.small_networks() | segfix.small_networks())
    config.model.num_classes = config_dict.placeholder(int)  # the number of classes in classes.yaml

    config.data.name = "folder"
    config.data.root = "data/folder"
    config.data.workers = 0
    config.augment.base_size = 512  # the longer side at scale 1
    config.augment.crop = (384, 384)
    config.augment.brightness = 10
    config.eval.base_size = 512
    config.eval.window = (512, 512)
    config.eval.bucket = 32
    config.eval.images_per_device = 1

    config.batch_size = 16
    config.steps = 20_000
    config.optimizer.rate = 0.02
    config.evaluate_every = 1000
    if variant.endswith("_tiny"):
        config.augment.crop = (192, 192)
        config.batch_size = 8
        config.steps = 2000
        config.optimizer.rate = 0.08
        config.evaluate_every = 500
        config.checkpoint_every = 100
        config.report_every = 25
    if config.model.head.name == "segfix":
        segfix.set_task(config)
    return config
