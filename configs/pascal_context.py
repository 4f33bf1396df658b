"""PASCAL-Context, 59 or 60 classes, images of all sizes: the published configs of HRNet and HRNet + OCR with HRNet-W48.

Source: the experiment files of HRNet and HRNet-OCR for PASCAL-Context. OVeNet has none: it takes their numbers, and the
offsets of its Cityscapes config.
"""

from configs import common, segfix

IMAGES = 4998  # train


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr`, `hrnet` or SegFix, each also with `_60`: all but the 59 is a class too."""
    config = common.base_config(f"pascal_context-{variant}")
    networks = common.published_networks("ovenet", "hrnet_ocr", "hrnet") | segfix.networks()
    common.choose_model(
        config, variant, networks | {f"{name}_60": network for name, network in networks.items()}
    )
    name, classes = ("pascal_context_60", 60) if variant.endswith("_60") else ("pascal_context", 59)
    config.model.num_classes = classes
    config.model.align_corners = config.model.head.name == "ocr"

    config.data = {
        "name": name,
        "root": "data/VOCdevkit/VOC2010",
        "lists": "",
        "prepared": "data/prepared",
        "storage": "compressed",
        "train_split": "train",
        "eval_split": "val",
        "test_split": "val",
        "workers": 8,
    }
    config.augment.short_side = 520
    config.augment.base_size = 520  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (520, 520)  # TRAIN.IMAGE_SIZE

    config.batch_size = 16  # as the files are named
    config.steps = 200 * (IMAGES // config.batch_size)  # TRAIN.END_EPOCH
    config.optimizer.rate = 0.001
    config.optimizer.weight_decay = 1e-4

    config.eval.short_side = 520  # TEST.BASE_SIZE, which is the longer side of a pass at scale 1 as well
    config.eval.base_size = 520
    config.eval.window = (520, 520)  # TEST.IMAGE_SIZE
    config.eval.windows = "generic"
    config.eval.bucket = 32
    config.eval.images_per_device = 1
    config.evaluate_every = 10 * (IMAGES // config.batch_size)
    if config.model.head.name == "segfix":
        segfix.set_task(config)
        segfix.set_training(config)
    return config
