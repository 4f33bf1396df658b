"""PASCAL-Context, 59 or 60 classes, images of all sizes: the published configs of HRNet and HRNet + OCR with HRNet-W48,
and of openseg's HRNet + OCR.

Source: the experiment files of HRNet, HRNet-OCR and openseg for PASCAL-Context. OVeNet has no such file: `ovenet` uses
HRNet-OCR's numbers, with the offset settings of OVeNet's Cityscapes config.
"""

from ovenet_jax.configs import common, openseg, segfix

IMAGES = 4998  # train


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr` or `hrnet`, or a variant of segfix.py or openseg.py.

    Each also with `_60`: the background is an additional class.
    """
    config = common.base_config(f"pascal_context-{variant}")
    networks = common.published_networks("ovenet", "hrnet_ocr", "hrnet") | segfix.networks()
    networks |= {f"{name}_60": network for name, network in networks.items()}
    openseg.choose_model(config, variant, networks, suffixes=("_60",))
    name, classes = ("pascal_context_60", 60) if variant.endswith("_60") else ("pascal_context", 59)
    config.model.num_classes = classes
    config.model.align_corners = variant.removesuffix("_60") != "hrnet"

    config.data.name = name
    config.data.root = "data/VOCdevkit/VOC2010"
    config.data.test_split = "val"
    config.augment.short_side = 520
    config.augment.base_size = 520  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (520, 520)  # TRAIN.IMAGE_SIZE

    config.batch_size = 16  # from the names of the files
    config.steps = 200 * (IMAGES // config.batch_size)  # TRAIN.END_EPOCH
    config.optimizer.rate = 0.001
    config.optimizer.weight_decay = 1e-4

    config.eval.short_side = 520  # TEST.BASE_SIZE sets this and the next
    config.eval.base_size = 520
    config.eval.window = (520, 520)  # TEST.IMAGE_SIZE
    config.eval.windows = "generic"
    config.eval.bucket = 32
    config.eval.images_per_device = 1
    config.evaluate_every = 10 * (IMAGES // config.batch_size)
    if config.model.head.name == "segfix":
        segfix.set_published(config)
    elif variant not in networks:
        openseg.set_training(config)
        config.steps = 60_000
        config.evaluate_every = 5000
        config.optimizer.warmup_steps = 1000
        config.optimizer.head_rate_multiplier = 10.0  # nbb_mult
        config.eval.short_side = 0  # images are scored at their own size; a pass has base_size as its shorter side
        config.eval.side = "short"
    return config
