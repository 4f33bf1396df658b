"""Cityscapes, 19 classes, 1024x2048: the published configs of OVeNet, HRNet + OCR, HRNet and the thesis with HRNet-W48.

Source: the experiment files `seg_offset_hrnet_ocr_w48_train_512x1024_sgd_lr1e-2_wd5e-4_bs_12_epoch484` of OVeNet
and their counterparts of HRNet-OCR, HRNet and the thesis.
"""

from configs import common, segfix

CLASS_WEIGHTS = (  # of the published criterion, in the order of the train ids
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr`, `hrnet`, `thesis` (offsets on HRNet, without OCR), or SegFix.

    SegFix (segfix.py) also with `_instance`: it learns the boundaries of instances.
    """
    config = common.base_config(f"cityscapes-{variant}")
    networks = common.published_networks("ovenet", "hrnet_ocr", "hrnet", "thesis")
    networks |= segfix.networks("_instance")
    common.choose_model(config, variant, networks)
    config.model.num_classes = 19
    config.loss.class_weights = CLASS_WEIGHTS

    split, images = "train+val", 2975 + 500  # as published for the two networks with OCR
    if config.model.head.name in ("fcn", "segfix"):
        split, images = "train", 2975
    if variant == "hrnet":
        config.model.align_corners = False
    elif variant == "thesis":
        common.set_thesis(config)
    config.data = {
        "name": "cityscapes",
        "root": "data/cityscapes",
        "lists": "",
        "storage": "compressed",
        "prepared": "data/prepared",
        "train_split": split,
        "eval_split": "val",
        "test_split": "test",
        "workers": 8,
    }
    config.augment.base_size = 2048  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (512, 1024)  # TRAIN.IMAGE_SIZE

    # ovenet: 2 on each of 5 GPUs (its file's name says 12); thesis: 2 on each GPU, however many, so the same
    config.batch_size = 10 if "offset" in config.model else 12
    config.steps = 484 * (images // config.batch_size)  # TRAIN.END_EPOCH

    config.eval.base_size = 2048  # TEST.BASE_SIZE
    config.eval.window = (1024, 2048)  # TEST.IMAGE_SIZE
    config.eval.images_per_device = 1
    config.evaluate_every = 10 * (images // config.batch_size)
    if config.model.head.name == "segfix":
        segfix.set_task(config, regions="instances" if variant.endswith("_instance") else "classes")
        segfix.set_training(config)
    return config
