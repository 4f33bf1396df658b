"""ACDC, 19 classes of Cityscapes in fog, at night, in rain and snow, 1080x1920: the published configs with HRNet-W48.

Source: the experiment files of OVeNet and the thesis for ACDC and their counterpart of HRNet-OCR. HRNet and openseg
have none for ACDC: `hrnet` uses the same numbers, with align_corners of HRNet's Cityscapes config; openseg's networks
use openseg's Cityscapes numbers with ACDC's crop.

Target: no published mIoU of `ovenet`, `hrnet_ocr` or `hrnet` was found. OVeNet's abstract (arXiv 2303.14516) says that
it gains on ACDC, not by how much.

    python main.py --config=configs/acdc.py:ovenet --config.init.base=runs/imagenet-w48
"""

from ovenet_jax.configs import cityscapes, common, openseg, segfix

IMAGES = 1600  # train


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr`, `hrnet`, `thesis` (offsets on HRNet, without OCR) or `ovenet_frozen`, or a
    variant of segfix.py or openseg.py.

    `ovenet_frozen` trains only offset trunk and offset head, on the trained hrnet_ocr of `config.init.base`.
    """
    config = common.base_config(f"acdc-{variant}")
    networks = common.published_networks("ovenet", "hrnet_ocr", "hrnet", "ovenet_frozen", "thesis")
    openseg.choose_model(config, variant, networks | segfix.networks())
    config.model.num_classes = 19
    config.loss.class_weights = cityscapes.CLASS_WEIGHTS
    config.freeze_base = variant == "ovenet_frozen"
    if variant == "hrnet":
        config.model.align_corners = False
    elif variant == "thesis":
        common.set_thesis(config)

    config.data.name = "acdc"
    config.data.root = "data/acdc"
    config.augment.base_size = 1920  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (540, 960)  # TRAIN.IMAGE_SIZE
    # as MIC and HRDA have their predictions written for ACDC's server: `to_label_id=False` in their READMEs
    config.predict.ids = "train_ids"

    config.eval.base_size = 1920  # TEST.BASE_SIZE
    config.eval.window = (1080, 1920)  # TEST.IMAGE_SIZE
    config.eval.images_per_device = 1

    if config.model.head.name == "segfix":
        segfix.set_published(config)
    elif variant in networks:
        # ovenet: 2 on each of 5 GPUs; the others: 2 per GPU, whose number is not given, so 10 too
        config.batch_size = 10
        config.steps = 484 * (IMAGES // config.batch_size)  # TRAIN.END_EPOCH
        config.evaluate_every = 10 * (IMAGES // config.batch_size)
    else:
        openseg.set_training(config)
        openseg.set_cityscapes_schedule(config)
    return config
