"""Cityscapes, 19 classes, 1024x2048: the published configs of OVeNet, HRNet + OCR, HRNet and the thesis with HRNet-W48,
and of the OCNet series.

Source: the experiment files `seg_offset_hrnet_ocr_w48_train_512x1024_sgd_lr1e-2_wd5e-4_bs_12_epoch484` of OVeNet
and their counterparts of HRNet-OCR, HRNet and the thesis; openseg's `configs/cityscapes`; OCNet's run scripts.

Target on val, mIoU [%] at one scale (with scales and flip); more in docs/model_zoo.md:

- `hrnet`: 80.9 (HRNet's README), 80.65 (81.92; mmsegmentation), 80.70 (81.56; PaddleSeg)
- `hrnet_ocr`: 81.6 (HRNet's README), 81.35 (82.70; mmsegmentation), 82.15 (82.85; PaddleSeg)
- `ovenet`: not found

    python main.py --config=configs/cityscapes.py:hrnet_ocr --config.init.base=runs/imagenet-w48 \\
        --config.data.train_split=train --config.steps=119548
"""

from ovenet_jax.configs import common, openseg, segfix

CLASS_WEIGHTS = (  # of the published criterion, in the order of the train ids
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr`, `hrnet` or `thesis` (offsets on HRNet, without OCR), or a variant of segfix.py
    or openseg.py.

    Variants of segfix.py accept the suffix `_instance`, for boundaries of instances. Variants of openseg.py accept
    `_ohem`, and `_stage2`: OCNet's second training stage for the test server, from the network of `config.init.base`.
    """
    config = common.base_config(f"cityscapes-{variant}")
    networks = common.published_networks("ovenet", "hrnet_ocr", "hrnet", "thesis")
    networks |= segfix.networks("_instance")
    openseg.choose_model(config, variant, networks, suffixes=("_ohem", "_stage2"))
    config.model.num_classes = 19
    config.loss.class_weights = CLASS_WEIGHTS

    split, images = "train+val", 2975 + 500  # as published for the two networks with OCR
    if config.model.head.name in ("fcn", "segfix"):
        split, images = "train", 2975
    if variant == "hrnet":
        config.model.align_corners = False
    elif variant == "thesis":
        common.set_thesis(config)
    config.data.name = "cityscapes"
    config.data.root = "data/cityscapes"
    config.data.train_split = split
    config.augment.base_size = 2048  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (512, 1024)  # TRAIN.IMAGE_SIZE

    # ovenet: 2 on each of 5 GPUs (its file's name says 12); thesis: 2 per GPU, their number is not given, so 10 too
    config.batch_size = 10 if "offset" in config.model else 12
    config.steps = 484 * (images // config.batch_size)  # TRAIN.END_EPOCH

    config.eval.base_size = 2048  # TEST.BASE_SIZE
    config.eval.window = (1024, 2048)  # TEST.IMAGE_SIZE
    config.eval.images_per_device = 1
    config.evaluate_every = 10 * (images // config.batch_size)
    if config.model.head.name == "segfix":
        segfix.set_published(config, regions="instances" if variant.endswith("_instance") else "classes")
    elif variant not in networks:
        _set_openseg(config, variant)
    return config


def _set_openseg(config, variant: str) -> None:
    config.data.train_split = "train"
    openseg.set_cityscapes_schedule(config)
    config.loss.ohem.on = variant.endswith(("_ohem", "_stage2"))
    if variant.removeprefix("ovenet_").startswith("ocnet_"):
        openseg.set_first_release_training(config)
    else:
        openseg.set_training(config)
    if variant.endswith("_stage2"):
        config.data.train_split = "train+val"
        config.steps = 100_000
        config.optimizer.rate = 1e-4
        config.optimizer.power = 0.0  # the rate stays
