"""COCO-Stuff 10k, 171 classes, images of all sizes: the published configs of HRNet and HRNet + OCR with HRNet-W48, and
of openseg's HRNet + OCR.

Source: the experiment files of HRNet, HRNet-OCR and openseg for COCO-Stuff. OVeNet has no such file: `ovenet` uses
HRNet-OCR's numbers, with the offset settings of OVeNet's Cityscapes config.
"""

from ovenet_jax.configs import common, openseg, segfix

IMAGES = 9000  # train


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr` or `hrnet`, or a variant of segfix.py or openseg.py."""
    config = common.base_config(f"coco_stuff-{variant}")
    networks = common.published_networks("ovenet", "hrnet_ocr", "hrnet")
    openseg.choose_model(config, variant, networks | segfix.networks())
    config.model.num_classes = 171
    config.loss.ohem.on = True  # LOSS.USE_OHEM

    config.data.name = "coco_stuff"
    config.data.root = "data/cocostuff-10k"
    config.data.eval_split = "test"
    config.augment.short_side = 520
    config.augment.base_size = 520  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (520, 520)  # TRAIN.IMAGE_SIZE

    config.batch_size = 16  # from the names of the files
    config.steps = 110 * (IMAGES // config.batch_size)  # TRAIN.END_EPOCH
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
        config.optimizer.head_rate_multiplier = 10.0  # nbb_mult of the script that trained the published network
        config.eval.short_side = 0  # images are scored at their own size; a pass has base_size as its shorter side
        config.eval.side = "short"
    return config
