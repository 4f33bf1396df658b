"""What the configs share: every key, with OVeNet's published value where one was published. No function or class has
such a value as a default of its own: what is left out there is not done.

Sources: the OVeNet, HRNet and HRNet-OCR experiment files; the names in brackets are their keys.
"""

from ml_collections import ConfigDict, config_dict

from ovenet_jax.data import imagenet
from ovenet_jax.errors import UserError


def base_config(name: str) -> ConfigDict:
    """All keys but the data set's own: backbone and head, number of classes, its name and root, sizes and steps."""
    config = ConfigDict()
    config.name = name  # of the default workdir, runs/<name>
    config.seed = 0  # of initial values, dropout, order of the data and augmentation

    config.mesh = (0, 1)  # devices that share a batch (0: all), and devices that share the rows of each image
    config.precision = "float32"  # of the network in training; "bfloat16" is faster and takes half the memory
    config.deterministic = False  # the same bits every time on GPUs as well, where that costs time
    config.rematerialise = False  # computes parts of the network twice, to keep less in memory
    config.accumulate = 1  # micro-batches that a batch is split into, to keep less in memory
    config.ema = 0.0  # decay of moving averages of the network, which are then evaluated; 0: none

    config.init = ConfigDict()  # where a new run takes its initial values from; "": the model's own
    config.init.base = ""  # workdir of an import or a run (MODEL.PRETRAINED)
    config.init.trunk = ""  # another one, for offset trunk and offset head; "": from `base`
    config.freeze_base = False  # trains offset trunk and head alone (MODEL.FREEZED_PAR)

    config.model = ConfigDict()
    config.model.align_corners = True  # MODEL.ALIGN_CORNERS, of every resize in the network
    config.model.norm_momentum = 0.1  # of BatchNorm's running statistics, in PyTorch's sense
    config.model.input = ConfigDict()  # what the network is fed: (pixel / divisor - mean) / std per channel
    config.model.input.bgr = False  # channels, mean and std in the order blue, green, red; False: red first
    config.model.input.divisor = 255.0
    config.model.input.mean = imagenet.MEAN
    config.model.input.std = imagenet.STD

    config.loss = ConfigDict()
    config.loss.aux_weight = 0.4  # LOSS.BALANCE_WEIGHTS[0]; the main map's is 1
    config.loss.class_weights = ()  # none
    config.loss.ohem = ConfigDict()  # of the main map
    config.loss.ohem.on = False  # LOSS.USE_OHEM
    config.loss.ohem.threshold = 0.9  # LOSS.OHEMTHRES
    config.loss.ohem.keep = 131072  # LOSS.OHEMKEEP
    config.loss.ohem.group = 2  # images that are ranked together; published: those of one GPU
    config.loss.ohem.softmax_again = True  # also of scores that are probabilities (model.offset.logits False)
    config.loss.ohem.aux_over_all = True  # divides the auxiliary term by all pixels; False: by the valid ones' weights

    config.optimizer = ConfigDict()
    config.optimizer.rate = 0.01  # TRAIN.LR
    config.optimizer.power = 0.9  # of the poly schedule, a literal in the training loop
    config.optimizer.momentum = 0.9  # TRAIN.MOMENTUM
    config.optimizer.weight_decay = 5e-4  # TRAIN.WD, of every parameter
    config.optimizer.head_rate_multiplier = 1.0  # TRAIN.NONBACKBONE_MULT
    config.optimizer.warmup_steps = 0  # in which the backbone's rate grows to its full value; 0: none

    config.data = ConfigDict()
    config.data.lists = ""  # a folder of list files, which choose and order the samples; "": none
    config.data.prepared = "data/prepared"  # folder for the records of all data sets
    config.data.storage = "compressed"  # of records: the bytes of the files; or "decoded", their pixels
    config.data.train_split = "train"
    config.data.eval_split = "val"
    config.data.test_split = "test"
    config.data.workers = 8  # processes that read and augment; 0: threads

    config.augment = ConfigDict()
    config.augment.scale_factor = 16  # TRAIN.SCALE_FACTOR: scales 0.5, 0.6 ... 0.5 + 16 / 10
    config.augment.scale_range = ()  # or scales of (least, most), any number between
    config.augment.aspect_range = ()  # also stretches by (least, most) width for height; (): not
    config.augment.brightness = 0  # at most that much is added to all channels; 0 in the published base configs
    config.augment.brightness_share = 0.5  # of the samples that are given another brightness
    config.augment.pad_color = (0, 0, 0)  # RGB, where the scaled image is smaller than the crop
    config.augment.pad_anywhere = False  # on all sides at random; False: at the bottom and right
    config.augment.short_side = 0  # images are first resized to it; 0: not
    config.augment.resize = ()  # or, once mirrored, to these (H, W), whatever their shape: LIP's; (): not
    config.augment.rare_class_crops = 0.0  # share of the crops that lie around a rare class, see augment.py

    config.eval = ConfigDict()
    config.eval.checkpoint = "best"  # of the run's: "best" or "latest"
    config.eval.precision = "float32"  # or "bfloat16", whatever the network was trained in
    config.eval.short_side = 0  # validation images are first resized to it and padded to multiples of 8; 0: not
    config.eval.scales = (1.0,)  # TEST.SCALE_LIST; published multi-scale: 0.5 0.75 1 1.25 1.5 1.75
    config.eval.flip = False  # TEST.FLIP_TEST
    config.eval.windows = (
        "cityscapes"  # "cityscapes", "generic", "whole" or "overlapping": how images are cut, see protocol.py
    )
    config.eval.side = "long"  # or "short": which side of an image is base_size at scale 1
    config.eval.sum = "exp"  # what passes add up: "exp" of the logits, or the "logits"
    config.eval.bucket = 1  # the other sides are rounded to multiples of it, so that few shapes compile; 1: exact
    config.eval.keep_shape = True  # of images that are resized; LIP: False, they become squares
    config.eval.parts_align_corners = config_dict.placeholder(bool)  # of S_i and S_s; none: as the network
    config.eval.segfix = ""  # workdir of a SegFix or OVeNet that --mode=evaluate refines class maps with
    config.eval.panels = 8  # pictures of evenly spread images
    config.eval.worst = 8  # and of those with the lowest mIoU, in the final report

    config.predict = ConfigDict()
    config.predict.ids = "label_ids"  # what label maps hold: the data set's own "label_ids", or "train_ids"
    config.predict.offsets = False  # also writes OVeNet's offsets and confidence, for segfix.refine
    config.predict.form = "png"  # of offset files; or "mat" as published with SegFix, without confidence

    config.non_finite = ConfigDict()  # of a step whose loss, or parameters after it, are not finite
    config.non_finite.policy = "stop"  # ends the run; "skip" leaves the step's update out
    config.non_finite.limit = 20  # so many steps of a run may be skipped

    config.report_every = 50  # steps
    config.checkpoint_every = 1000  # steps
    return config


def hrnet(width: int) -> ConfigDict:
    """HRNetV2-W<width> as published (MODEL.EXTRA.STAGE1..4)."""
    return ConfigDict(
        {
            "name": "hrnet",
            "width": width,
            "modules": (1, 4, 3),
            "blocks": 4,
            "layer1_blocks": 4,
            "layer1_width": 64,
            "stem_width": 64,
            "he_init": False,  # published: N(0, 0.001^2), then overwritten by ImageNet weights
        }
    )


def tiny_hrnet() -> ConfigDict:
    """A backbone that a laptop trains in minutes."""
    tiny = {
        "modules": (1, 1, 1),
        "blocks": 2,
        "layer1_blocks": 2,
        "layer1_width": 16,
        "stem_width": 32,
        "he_init": True,
    }
    return ConfigDict({**hrnet(12), **tiny})


def classifier(hidden_features: int = 0, kernel_size: int = 1, **options) -> ConfigDict:
    """(convolution, BatchNorm, activation, 1x1 convolution) of auxiliary and plain heads; 0: as many as its input."""
    published = {
        "hidden_features": hidden_features,
        "kernel_size": kernel_size,
        "bias": True,
        "output_bias": True,
        "dropout": 0.0,
        "activation": "relu",
        "in_head": True,  # PyTorch's default initial kernels; False: the backbone's
    }
    return ConfigDict({**published, **options})


def ocr(mid_features: int = 512) -> ConfigDict:
    """MODEL.OCR.MID_CHANNELS, KEY_CHANNELS; dropout is a literal in the published network."""
    return ConfigDict(
        {
            "name": "ocr",
            "mid_features": mid_features,
            "key_features": mid_features // 2,
            "bias": False,
            "dropout": 0.05,
            "activation": "relu",
            "aux": classifier(),
        }
    )


def fcn() -> ConfigDict:
    """The plain head of HRNet."""
    return ConfigDict({"name": "fcn", "classifier": classifier(in_head=False)})


def add_offsets(config: ConfigDict, branch: int = 4, modules: tuple[int, ...] = (2,)) -> None:
    """OVeNet on top of a baseline (MODEL.EXTRA.OFFSET_BRANCH, STAGE4_2 ...)."""
    config.model.offset = ConfigDict()
    config.model.offset.branch = branch
    config.model.offset.modules = modules
    config.model.offset.threshold = 0.2  # EXTRA.OFFSET_THRESHOLD, in half image sides
    config.model.offset.refinement = 0  # EXTRA.ITERATIVE_REFINEMENT
    config.model.offset.logits = True  # EXTRA.LOGITS
    config.model.offset.grid_align_corners = True  # what PyTorch 1.1 did; False as newer versions
    config.model.offset.default_init = True  # PyTorch's, as the published name aux_head_offset implies
    config.loss.confidence_weight = 2.0  # published: a sum over the 2 images of a GPU; here a mean
    config.loss.include_ignored = True  # published: ignored pixels supervise F as class 0


Networks = dict[str, tuple[ConfigDict, ConfigDict, bool]]  # by variant: backbone, head, whether with offsets


def published_networks(*variants: str) -> Networks:
    """Selects published networks with HRNet-W48 by variant."""
    w48 = hrnet(48)
    networks = {
        "ovenet": (w48, ocr(), True),
        "ovenet_frozen": (w48, ocr(), True),
        "hrnet_ocr": (w48, ocr(), False),
        "hrnet": (w48, fcn(), False),
        "thesis": (w48, fcn(), True),
    }
    return {variant: networks[variant] for variant in variants}


def small_networks() -> Networks:
    """OVeNet and its baselines with HRNet-W18, and with `_tiny` small enough for a CPU."""
    w18, tiny = hrnet(18), tiny_hrnet()
    return {
        "ovenet": (w18, ocr(), True),
        "hrnet_ocr": (w18, ocr(), False),
        "hrnet": (w18, fcn(), False),
        "ovenet_tiny": (tiny, ocr(64), True),
        "hrnet_ocr_tiny": (tiny, ocr(64), False),
        "hrnet_tiny": (tiny, fcn(), False),
    }


def choose_model(config: ConfigDict, variant: str, variants: Networks) -> None:
    """Sets backbone and head, and offsets where the third entry is True, of one of `variants`."""
    if variant not in variants:
        raise UserError(f"Config variant {variant!r} is unknown; choose one of {', '.join(variants)}.")
    config.model.backbone, config.model.head, offsets = variants[variant]
    if offsets:
        add_offsets(config)


def set_thesis(config: ConfigDict) -> None:
    """Settings of the thesis network that differ from OVeNet's on every data set, except the head."""
    config.model.align_corners = False
    config.model.norm_momentum = 0.01  # BN_MOMENTUM, a literal in the published network
    config.model.offset.threshold = 0.5  # EXTRA.OFFSET_THRESHOLD
    config.model.offset.default_init = False  # only modules named cls, aux or ocr keep it; this is `offset_layer`
    config.loss.ohem.on = True  # LOSS.USE_OHEM
    config.loss.ohem.softmax_again = False  # of probabilities: model.offset.logits False
