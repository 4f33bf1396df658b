"""LIP, 20 classes, images of all sizes: the published configs of HRNet and HRNet + OCR with HRNet-W48, and of openseg's
HRNet + OCR.

Source: the experiment files of HRNet, HRNet-OCR and openseg for LIP. OVeNet has no such file: `ovenet` uses HRNet-OCR's
numbers, with the offset settings of OVeNet's Cityscapes config. Images are resized to 473x473, whatever their shape.
"""

from ovenet_jax.configs import common, openseg, segfix

IMAGES = 30_462  # train


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr` or `hrnet`, or a variant of segfix.py or openseg.py."""
    config = common.base_config(f"lip-{variant}")
    networks = common.published_networks("ovenet", "hrnet_ocr", "hrnet")
    openseg.choose_model(config, variant, networks | segfix.networks())
    config.model.num_classes = 20
    config.model.align_corners = variant != "hrnet"

    config.data.name = "lip"
    config.data.root = "data/lip"
    config.augment.resize = (473, 473)
    config.augment.base_size = 473  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (473, 473)  # TRAIN.IMAGE_SIZE
    config.augment.scale_factor = 11

    config.batch_size = 40  # from the names of the files
    config.steps = 150 * (IMAGES // config.batch_size)  # TRAIN.END_EPOCH
    config.optimizer.rate = 0.007

    config.eval.base_size = 473  # TEST.BASE_SIZE
    config.eval.window = (473, 473)  # TEST.IMAGE_SIZE
    config.eval.keep_shape = False
    config.eval.windows = "generic"
    config.eval.bucket = 32
    config.eval.images_per_device = 1
    config.evaluate_every = 10 * (IMAGES // config.batch_size)
    if config.model.head.name == "segfix":
        segfix.set_published(config)
    elif variant not in networks:
        openseg.set_training(config)
        config.augment.scale_range = (0.5, 1.5)
        config.batch_size = 32
        config.steps = 100_000
        config.evaluate_every = 10_000
        config.optimizer.warmup_steps = 1000
        config.loss.ohem.group = 8  # 32 on 4 GPUs
        config.eval.flip = True  # the published mIoU is with flip
    return config
