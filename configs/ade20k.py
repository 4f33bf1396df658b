"""ADE20K, 150 classes, images of all sizes: the published configs of OVeNet, HRNet + OCR and HRNet with HRNet-W48, and
of openseg's HRNet + OCR.

Source: the experiment files of OVeNet for ADE20K and their counterparts of HRNet-OCR, HRNet and openseg. Their training
first resizes the shorter side to 520 and then scales at random, which resamples images twice; ours resamples them once,
to the same size.

Target on val, mIoU [%] at one scale (with scales and flip); more in docs/model_zoo.md:

- `hrnet`: 43.1 (44.2; HRNet's README), 42.02 (43.86; mmsegmentation)
- `hrnet_ocr`: 44.5 (45.5; HRNet's README), 43.25 (44.88; mmsegmentation)
- `ovenet`: not found

    python main.py --config=configs/ade20k.py:hrnet_ocr --config.init.base=runs/imagenet-w48
"""

from ovenet_jax.configs import common, openseg, segfix

IMAGES = 20_210  # train


def get_config(variant: str = "ovenet"):
    """`ovenet` (default), `hrnet_ocr`, `hrnet` or `ovenet_frozen`, or a variant of segfix.py or openseg.py.

    `ovenet_frozen` trains only offset trunk and offset head, on the trained hrnet_ocr of `config.init.base`.
    """
    config = common.base_config(f"ade20k-{variant}")
    networks = common.published_networks("ovenet", "hrnet_ocr", "hrnet", "ovenet_frozen")
    openseg.choose_model(config, variant, networks | segfix.networks())
    config.model.num_classes = 150
    config.freeze_base = variant == "ovenet_frozen"
    config.loss.ohem.on = True  # LOSS.USE_OHEM

    config.data.name = "ade20k"
    config.data.root = "data/ADEChallengeData2016"
    config.augment.short_side = 520
    config.augment.base_size = 520  # TRAIN.BASE_SIZE, the longer side at scale 1
    config.augment.crop = (520, 520)  # TRAIN.IMAGE_SIZE
    if variant == "hrnet":
        config.augment.scale_factor = 11

    # ovenet: published with 2 on each of 4 GPUs; the file's name says 16
    config.batch_size = 8 if "offset" in config.model else 16
    config.steps = 120 * (IMAGES // config.batch_size)  # TRAIN.END_EPOCH
    config.optimizer.rate = 0.02
    config.optimizer.weight_decay = 1e-4

    config.eval.short_side = 520  # TEST.BASE_SIZE sets this and the next
    config.eval.base_size = 520
    config.eval.window = (520, 520)  # TEST.IMAGE_SIZE
    config.eval.bucket = 32
    config.eval.images_per_device = 1
    config.evaluate_every = 10 * (IMAGES // config.batch_size)
    if config.model.head.name == "segfix":
        segfix.set_published(config)
    elif variant in networks:
        config.eval.parts_align_corners = False
    else:
        openseg.set_training(config)
        config.batch_size = 16
        config.steps = 150_000
        config.evaluate_every = 10_000
        config.optimizer.warmup_steps = 1000
        config.loss.ohem.group = 4  # 16 on 4 GPUs
        config.eval.short_side = 0  # images are scored at their own size; a pass has base_size as its shorter side
        config.eval.side = "short"
    return config
