"""Cityscapes, 19 classes, 1024x2048: the published configs of OVeNet, HRNet + OCR and HRNet with HRNet-W48.

Source: the experiment files `seg_offset_hrnet_ocr_w48_train_512x1024_sgd_lr1e-2_wd5e-4_bs_12_epoch484` of OVeNet
and their counterparts of HRNet-OCR and HRNet.
"""

from configs import common

CLASS_WEIGHTS = (  # of the published criterion, in the order of the train ids
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr` or `hrnet`."""
    config = common.base_config(f"cityscapes-{variant}")
    backbone = common.hrnet(48)
    common.choose_model(
        config,
        variant,
        {
            "ovenet": (backbone, common.ocr(), True),
            "hrnet_ocr": (backbone, common.ocr(), False),
            "hrnet": (backbone, common.fcn(), False),
        },
    )
    config.model.num_classes = 19
    config.loss.class_weights = CLASS_WEIGHTS

    images = 2975 + 500  # train and val, as published for the two networks with OCR
    if variant == "hrnet":
        config.model.align_corners = False
        images = 2975
    config.data = {
        "name": "cityscapes",
        "root": "data/cityscapes",
        "prepared": "data/prepared",
        "train_split": "train" if variant == "hrnet" else "train+val",
        "eval_split": "val",
        "workers": 8,
    }
    config.augment.base_size = 2048  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (512, 1024)  # TRAIN.IMAGE_SIZE

    config.batch_size = (
        10 if variant == "ovenet" else 12
    )  # ovenet: 2 on each of 5 GPUs; its file's name says 12
    config.steps = 484 * (images // config.batch_size)  # TRAIN.END_EPOCH

    config.eval = {"size": (1024, 2048), "batch_size": config.batch_size, "panels": 8}
    config.evaluate_every = 10 * (images // config.batch_size)
    return config
