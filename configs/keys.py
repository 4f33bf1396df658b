"""Every key of a config: default, valid values, meaning and source.

Defaults are OVeNet's published values where one was published; sources are keys of the experiment files of OVeNet,
HRNet and HRNet-OCR. Only configs have them: default arguments in the code switch options off.
docs/config.md is made from this table, `described.check` checks configs by it, and --mode=config prints it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ovenet_jax.data import imagenet
from ovenet_jax.segfix.directions import COUNTS

Flat = Mapping[str, Any]  # the values of a config by their dotted keys

SMALLEST, LARGEST = 4, 32768  # sides of tested images and windows: HRNet's stride; more than memory holds


# ---- valid values ----


class Values(NamedTuple):
    """`wanted` completes "it must be". kind: if None is valid, the type of the other values."""

    wanted: str
    include: Callable[[Any], bool]
    kind: type | None = None


def whole(least: int) -> Values:
    return Values(f"a whole number of at least {least}", lambda x: type(x) is int and x >= least)


def number(wanted: str, fits: Callable[[float], bool]) -> Values:
    return Values(f"a number {wanted}", lambda x: type(x) in (int, float) and math.isfinite(x) and fits(x))


def one_of(*choices: str | int) -> Values:
    return Values(f"one of {', '.join(map(repr, choices))}", lambda x: x in choices and type(x) in map(type, choices))


def each(of: Values, names: str = "", *, optional: bool = False) -> Values:
    """A tuple with one value for each of the comma-separated `names` ("": one or more). optional: () is valid, too."""
    count = len(names.split(", ")) if names else None
    wanted = f"({names}), each {of.wanted}" if names else f"one or more, each {of.wanted}"

    def fits(x: Any) -> bool:
        if not isinstance(x, tuple | list) or (not x and not optional):
            return False
        return not x or (count in (None, len(x)) and all(map(of.include, x)))

    return Values(f"{wanted}{', or () for none' if optional else ''}", fits)


TEXT = Values("text", lambda x: isinstance(x, str))
NAMES = each(TEXT, optional=True)
FLAG = Values("True or False", lambda x: isinstance(x, bool))
ANY, POSITIVE = number("of any size", math.isfinite), number("above 0", lambda x: x > 0)
AT_LEAST_0 = number("of at least 0", lambda x: x >= 0)
SHARE = number("from 0 to 1", lambda x: 0 <= x <= 1)
BELOW_1 = number("from 0 to below 1", lambda x: 0 <= x < 1)
MESH = Values(
    "(data, rows), like (0, 1): whole numbers of at least 0 and 1",
    lambda x: each(whole(0), "data, rows").include(x) and x[1] > 0,
)
SIZE = each(whole(1), "height, width")
BRANCHES = each(each(whole(1)), optional=True)
STAGES = each(each(whole(1)), "stage 2, 3, 4", optional=True)
ACTIVATION = one_of("relu", "leaky_relu", "none")
PRECISIONS = ("float32", "bfloat16")
PRECISION = one_of(*PRECISIONS)
RANGE = Values(
    "(least, most), both numbers above 0, or () for none",
    lambda x: x in ((), []) or (each(POSITIVE, "least, most").include(x) and x[0] <= x[1]),
)


def or_none(values: Values, kind: type) -> Values:
    return Values(f"{values.wanted}, or None", lambda x: x is None or values.include(x), kind)


# ---- when a key has an effect ----


class When(NamedTuple):
    """`where` completes "it has an effect"."""

    where: str
    holds: Callable[[Flat], bool]


ALWAYS = When("", lambda _: True)
SEGFIX = When("in a SegFix", lambda v: v.get("model.head.name") == "segfix")
CLASSES = When("in networks that learn classes, not in a SegFix", lambda v: not SEGFIX.holds(v))
OFFSETS = When("in networks with offsets", lambda v: "model.offset.branch" in v)
HRNET = When("with a backbone 'hrnet' or 'hrnet2x'", lambda v: str(v.get("model.backbone.name")).startswith("hrnet"))
HRNET_OFFSETS = When("in networks with offsets on HRNet", lambda v: OFFSETS.holds(v) and HRNET.holds(v))
AUX = When("with a head that has an auxiliary classifier", lambda v: "model.head.aux.kernel_size" in v)
NO_OHEM = When(
    "in networks that learn classes, without loss.ohem.on", lambda v: CLASSES.holds(v) and not v.get("loss.ohem.on")
)
WEIGHTED = When(
    "in networks that learn classes, not in a SegFix, unless loss.rmi is the only loss",
    lambda v: CLASSES.holds(v) and (AUX.holds(v) or not (NO_OHEM.holds(v) and v.get("loss.rmi"))),
)
NO_WEIGHTS = When(
    "in networks that learn classes, without loss.class_weights, unless loss.rmi is the only loss",
    lambda v: WEIGHTED.holds(v) and not v.get("loss.class_weights"),
)
OHEM = When("with loss.ohem.on", lambda v: CLASSES.holds(v) and bool(v.get("loss.ohem.on")))
OHEM_AUX = When("with loss.ohem.on and an auxiliary classifier", lambda v: OHEM.holds(v) and AUX.holds(v))
OHEM_PROBABILITIES = When(
    "with loss.ohem.on, in networks with offsets and model.offset.logits=False",
    lambda v: OHEM.holds(v) and OFFSETS.holds(v) and not v.get("model.offset.logits"),
)
FILES = When("with a data set other than toy_streets", lambda v: v.get("data.name") != "toy_streets")
NO_RANGE = When("without augment.scale_range", lambda v: not v.get("augment.scale_range"))
BRIGHTNESS = When("with augment.brightness", lambda v: bool(v.get("augment.brightness")))
NAMED = When("where classes.yaml names channels", lambda v: bool(v.get("model.input.channels")))
SGD = When("with optimizer.name='sgd'", lambda v: v.get("optimizer.name", "sgd") == "sgd")
SKIP = When("with non_finite.policy='skip'", lambda v: v.get("non_finite.policy") == "skip")
ONE_SIDE = When(
    "with eval.keep_shape, or without eval.base_size",
    lambda v: v.get("eval.keep_shape", True) or not v.get("eval.base_size"),
)


# ---- the keys ----

# Markers in place of a default. OWN: every config sets the key. PART: the part of the network that has the key sets it.
OWN, PART = object(), object()


class Key(NamedTuple):
    """The description of a key. source: where the default and the values in published configs come from."""

    default: Any
    values: Values
    meaning: str
    source: str = ""
    when: When = ALWAYS


KEYS = {
    "name": Key(OWN, TEXT, "file and variant; the default workdir is `runs/<name>`"),
    "seed": Key(0, whole(0), "seed of initial values, dropout, order of the data and augmentation"),
    "batch_size": Key(OWN, whole(1), "images per step, over all devices", "TRAIN.BATCH_SIZE_PER_GPU, of all GPUs"),
    "steps": Key(OWN, whole(1), "number of training steps", "TRAIN.END_EPOCH, in epochs"),
    "mesh": Key((0, 1), MESH, "number of devices that share a batch (0: all), and that share the rows of each image"),
    "precision": Key("float32", PRECISION, "type of the network in training; bfloat16: faster, half the memory"),
    "deterministic": Key(False, FLAG, "bit-identical results on GPUs too; slower"),
    "rematerialise": Key(False, FLAG, "recomputes activations in the backward pass to save memory (jax.checkpoint)"),
    "accumulate": Key(1, whole(1), "gradient accumulation: micro-batches per step, to save memory", when=CLASSES),
    "ema": Key(0.0, BELOW_1, "decay of an exponential moving average of the network, which is then evaluated; 0: none"),
    "freeze_base": Key(False, FLAG, "trains only offset trunk and offset head", "MODEL.FREEZED_PAR", OFFSETS),
    "report_every": Key(50, whole(1), "steps between lines of metrics"),
    "evaluate_every": Key(OWN, whole(1), "steps between evaluations"),
    "checkpoint_every": Key(1000, whole(1), "steps between checkpoints"),
    "keep_checkpoints": Key(2, whole(1), "latest checkpoints that are kept; the best one is kept, too"),
    "patience": Key(0, whole(0), "steps without a better validation mIoU after which training ends; 0: never"),
    # Initial values of a new run.
    "init.base": Key(
        "", TEXT, "workdir of an import or run with initial weights, or hub:OWNER/NAME; '': random", "MODEL.PRETRAINED"
    ),
    "init.trunk": Key("", TEXT, "workdir of the weights of offset trunk and offset head; '': init.base", when=OFFSETS),
    # The network.
    "model.num_classes": Key(
        OWN, or_none(whole(1), int), "number of classes, for SegFix 1 + directions; None: the data set's"
    ),
    "model.align_corners": Key(True, FLAG, "align_corners of every resize in the network", "MODEL.ALIGN_CORNERS"),
    "model.norm_momentum": Key(0.1, SHARE, "momentum of BatchNorm's statistics, in PyTorch's sense", "BN_MOMENTUM"),
    # Its input: (pixel / divisor - mean) / std per channel.
    "model.input.channels": Key(
        (), NAMES, "the names of classes.yaml; mean and std are then measured; (): RGB or BGR", when=NAMED
    ),
    "model.input.bgr": Key(False, FLAG, "input channels, mean and std are in the order blue, green, red; False: RGB"),
    "model.input.divisor": Key(255.0, POSITIVE, "the input is (pixel / divisor - mean) / std"),
    "model.input.mean": Key(imagenet.MEAN, each(ANY), "channel means, after the division"),
    "model.input.std": Key(imagenet.STD, each(POSITIVE), "channel stds, after the division"),
    "model.backbone.name": Key(OWN, TEXT, "backbone: one of BACKBONES in ovenet_jax/models/zoo.py"),
    "model.backbone.he_init": Key(PART, FLAG, "initial kernels N(0, 2 / fan_in); False: N(0, 0.001^2)"),
    "model.backbone.width": Key(PART, whole(1), "channels of HRNet's first branch, doubled per branch", "MODEL.EXTRA"),
    "model.backbone.modules": Key(PART, each(whole(1), "stage 2, 3, 4"), "number of exchange modules", "NUM_MODULES"),
    "model.backbone.blocks": Key(
        PART,
        Values(
            "a whole number of at least 1; for a ResNet (layer 1, 2, 3, 4), each such a number",
            lambda x: whole(1).include(x) or each(whole(1), "layer 1, 2, 3, 4").include(x),
        ),
        "residual blocks per branch of HRNet, or per layer of a ResNet",
        "NUM_BLOCKS",
    ),
    "model.backbone.layer1_blocks": Key(PART, whole(1), "number of blocks of HRNet's first stage", "STAGE1.NUM_BLOCKS"),
    "model.backbone.layer1_width": Key(
        PART, whole(1), "inner channels of the bottlenecks in HRNet's first stage", "STAGE1.NUM_CHANNELS"
    ),
    "model.backbone.stem_width": Key(PART, whole(1), "channels of HRNet's first two convolutions"),
    "model.backbone.stage_blocks": Key(
        (), STAGES, "residual blocks per branch, by stage; (): blocks", "STAGE2.NUM_BLOCKS to STAGE4", HRNET
    ),
    "model.backbone.stage_widths": Key(
        (), STAGES, "channels per branch, by stage; (): from width", "STAGE2.NUM_CHANNELS to STAGE4", HRNET
    ),
    "model.backbone.widths": Key(PART, each(whole(1), "layer 1, 2, 3, 4"), "inner channels of a ResNet's bottlenecks"),
    "model.backbone.stem": Key(PART, each(whole(1)), "channels of a ResNet's convolutions before layer 1"),
    "model.backbone.output_stride": Key(PART, one_of(8, 16), "stride of a ResNet's last layers, kept by dilation"),
    "model.backbone.multi_grid": Key(PART, each(whole(1)), "factors of the dilation of each block of layer 4"),
    "model.backbone.half_dilation": Key(PART, FLAG, "half dilation in the block whose stride was removed (openseg)"),
    "model.head.name": Key(OWN, TEXT, "head: one of HEADS in ovenet_jax/models/zoo.py, or 'segfix'"),
    "model.head.activation": Key(PART, ACTIVATION, "activation; 'leaky_relu' has the slope 0.01, as in-place ABN"),
    "model.head.dropout": Key(PART, BELOW_1, "dropout rate of channels before the last convolution"),
    "model.head.bias": Key(PART, FLAG, "biases in the convolutions of attention and fusion"),
    "model.head.output_bias": Key(PART, FLAG, "a bias in the last convolution"),
    "model.head.hidden_features": Key(PART, whole(0), "channels of the hidden layer; 0: the number of input channels"),
    "model.head.mid_features": Key(PART, whole(1), "channels of the head", "MODEL.OCR.MID_CHANNELS"),
    "model.head.key_features": Key(PART, whole(1), "channels of queries and keys", "MODEL.OCR.KEY_CHANNELS"),
    "model.head.value_features": Key(PART, whole(1), "channels of values"),
    "model.head.branch_features": Key(PART, whole(1), "channels of each branch of the atrous pyramid"),
    "model.head.dilations": Key(PART, each(whole(1), "first, second, third"), "dilations in the atrous pyramid"),
    "model.head.sizes": Key(PART, each(whole(1)), "n x n blocks of the map, a number n for each attention"),
    "model.head.factors": Key(PART, each(SIZE), "block size of each attention, in pixels of the map"),
    "model.head.half": Key(PART, FLAG, "attention on the 2x2 max-pooled map, in 1/16 of the memory"),
    "model.head.first_release": Key(PART, FLAG, "OCNet's first release: queries and keys share one layer"),
    **{
        f"model.head.{part}.{key}": described
        for part in ("aux", "classifier")
        for key, described in {
            "hidden_features": Key(PART, whole(0), "channels of its hidden layer; 0: the number of input channels"),
            "kernel_size": Key(PART, whole(1), "size of its first kernel, in pixels of the map"),
            "bias": Key(PART, FLAG, "a bias in its first convolution"),
            "output_bias": Key(PART, FLAG, "a bias in its last convolution"),
            "dropout": Key(PART, BELOW_1, "dropout rate of channels before its last convolution"),
            "activation": Key(PART, ACTIVATION, "as model.head.activation"),
            "in_head": Key(PART, FLAG, "PyTorch's default initial kernels; False: the backbone's"),
        }.items()
    },
    # OVeNet on top of a baseline.
    "model.offset.branch": Key(PART, one_of(2, 3, 4), "first stage of the offset trunk", "EXTRA.OFFSET_BRANCH"),
    "model.offset.modules": Key(PART, each(whole(1)), "modules (ResNet: blocks) of its stages", "STAGE4_2.NUM_MODULES"),
    "model.offset.blocks": Key(
        (), BRANCHES, "residual blocks per branch, by stage; (): the backbone's", "STAGE4_2.NUM_BLOCKS", HRNET_OFFSETS
    ),
    "model.offset.widths": Key(
        (), BRANCHES, "channels per branch, by stage; (): the backbone's", "STAGE4_2.NUM_CHANNELS", HRNET_OFFSETS
    ),
    "model.offset.threshold": Key(
        0.2, POSITIVE, "largest offset in x and y, in half image sides", "EXTRA.OFFSET_THRESHOLD", OFFSETS
    ),
    "model.offset.refinement": Key(
        0, whole(0), "iterative refinement: steps of offset += offset at the seed", "ITERATIVE_REFINEMENT", OFFSETS
    ),
    "model.offset.logits": Key(True, FLAG, "fuses logits; False: probabilities", "EXTRA.LOGITS", OFFSETS),
    "model.offset.grid_align_corners": Key(True, FLAG, "samples as PyTorch 1.1; False: as newer ones", when=OFFSETS),
    "model.offset.default_init": Key(
        True, FLAG, "PyTorch's initial kernels in its head; False: backbone's", "its name, aux_head_offset", OFFSETS
    ),
    "loss.aux_weight": Key(0.4, AT_LEAST_0, "weight of the auxiliary loss (main: 1)", "LOSS.BALANCE_WEIGHTS[0]", AUX),
    "loss.class_weights": Key((), each(AT_LEAST_0, optional=True), "weight of each class", when=WEIGHTED),
    "loss.enet_weights": Key(
        False, FLAG, "class weights 1 / ln(1.02 + share of the pixels of data.train_split)", "ENet", NO_WEIGHTS
    ),
    "loss.rmi": Key(False, FLAG, "region mutual information in the main loss", "fs_aux_rmi_loss", NO_OHEM),
    "loss.ohem.on": Key(False, FLAG, "online hard example mining in the main loss", "LOSS.USE_OHEM", CLASSES),
    "loss.ohem.threshold": Key(0.9, SHARE, "pixels of lower true-class probability are hard", "LOSS.OHEMTHRES", OHEM),
    "loss.ohem.keep": Key(131072, whole(0), "minimum number of hard pixels", "LOSS.OHEMKEEP", OHEM),
    "loss.ohem.group": Key(2, whole(1), "number of images ranked together", "those of one GPU", OHEM),
    "loss.ohem.softmax_again": Key(True, FLAG, "applies softmax even to probabilities", when=OHEM_PROBABILITIES),
    "loss.ohem.aux_over_all": Key(
        True, FLAG, "auxiliary loss divided by all pixels; False: by the weights of the valid ones", when=OHEM_AUX
    ),
    "loss.confidence_weight": Key(
        2.0, AT_LEAST_0, "weight of the confidence loss, a batch mean", "a sum over the 2 images of a GPU", OFFSETS
    ),
    "loss.include_ignored": Key(True, FLAG, "ignored pixels supervise confidence as class 0 (published)", when=OFFSETS),
    "optimizer.name": Key(
        "sgd", one_of("sgd", "adamw"), "SGD with momentum, or AdamW, whose first beta is the momentum"
    ),
    "optimizer.clip_norm": Key(0.0, AT_LEAST_0, "gradients are scaled down to this global norm; 0: never"),
    "optimizer.rate": Key(0.01, AT_LEAST_0, "learning rate of the first step", "TRAIN.LR"),
    "optimizer.power": Key(0.9, AT_LEAST_0, "power of the poly schedule", "a literal in the training loop"),
    "optimizer.momentum": Key(0.9, AT_LEAST_0, "momentum of SGD, first beta of AdamW", "TRAIN.MOMENTUM"),
    "optimizer.nesterov": Key(False, FLAG, "Nesterov's momentum", "TRAIN.NESTEROV", SGD),
    "optimizer.weight_decay": Key(5e-4, AT_LEAST_0, "weight decay of every parameter", "TRAIN.WD"),
    "optimizer.head_rate_multiplier": Key(1.0, AT_LEAST_0, "factor of heads' learning rate", "TRAIN.NONBACKBONE_MULT"),
    "optimizer.warmup_steps": Key(0, whole(0), "warm-up steps of the learning rate outside the heads; 0: none"),
    "data.name": Key(OWN, TEXT, "data set: one of ovenet_jax/data/pipeline.py"),
    "data.root": Key(OWN, TEXT, "folder of the data set's files", "DATASET.ROOT", FILES),
    "data.lists": Key("", TEXT, "a folder of list files, which choose and order the samples; '': none", when=FILES),
    "data.prepared": Key("data/prepared", TEXT, "folder for the records of all data sets"),
    "data.storage": Key("compressed", one_of("compressed", "decoded"), "records hold file bytes, or decoded pixels"),
    "data.train_split": Key("train", TEXT, "split to train on; several like 'train+val'", "DATASET.TRAIN_SET"),
    "data.eval_split": Key("val", TEXT, "split of evaluations", "DATASET.TEST_SET"),
    "data.test_split": Key("test", TEXT, "split of --mode=predict without --source"),
    "data.regions": Key(OWN, one_of("classes", "instances"), "regions whose boundaries SegFix learns", when=SEGFIX),
    "data.metric": Key(
        "euclidean", one_of("euclidean", "taxicab"), "metric of distances to boundaries", "DTOffsetConfig", SEGFIX
    ),
    "data.filter_size": Key(
        5, one_of(3, 5, 7), "size of the filters that take directions from distances", "Sobel, ksize", SEGFIX
    ),
    "data.near": Key(5, whole(0), "largest distance in pixels that is near a boundary", "dt_max_distance", SEGFIX),
    "data.workers": Key(
        -1, whole(-1), "processes that read and augment; 0: threads, -1: one per core, 16 at most", "WORKERS"
    ),
    "augment.base_size": Key(OWN, whole(0), "longer side at scale 1; 0: the image's own size", "TRAIN.BASE_SIZE"),
    "augment.crop": Key(OWN, SIZE, "size of crops", "TRAIN.IMAGE_SIZE"),
    "augment.scale_factor": Key(16, whole(0), "n: scales 0.5, 0.6 ... 0.5 + n / 10", "TRAIN.SCALE_FACTOR", NO_RANGE),
    "augment.scale_range": Key(
        (), RANGE, "uniform random scale, instead of augment.scale_factor", "random_resize.scale_range"
    ),
    "augment.aspect_range": Key((), RANGE, "uniform random factor of width / height", "random_resize.aspect_range"),
    "augment.brightness": Key(0, whole(0), "largest random shift of brightness", "random_brightness.shift_value"),
    "augment.brightness_share": Key(0.5, SHARE, "probability of such a shift", "random_brightness.ratio", BRIGHTNESS),
    "augment.photometric_distortion": Key(False, FLAG, "random brightness, contrast, saturation, hue (mmsegmentation)"),
    "augment.flip": Key(True, FLAG, "mirrors half of the samples", "TRAIN.FLIP"),
    "augment.pad_color": Key((0, 0, 0), each(whole(0), "red, green, blue"), "colour around images smaller than crops"),
    "augment.pad_anywhere": Key(False, FLAG, "random padding on all sides; False: at the bottom and right", "pad_mode"),
    "augment.short_side": Key(0, whole(0), "resizes the shorter side to it first; 0: no"),
    "augment.resize": Key((), each(whole(1), "height, width", optional=True), "resizes to it after mirroring (LIP)"),
    "augment.rare_class_crops": Key(0.0, SHARE, "probability of crops around a class, rare classes more often"),
    "eval.checkpoint": Key("best", one_of("best", "latest"), "which checkpoint of the run"),
    "eval.precision": Key("float32", PRECISION, "type of the network in evaluations, whatever the type in training"),
    "eval.short_side": Key(0, whole(0), "first resizes images' shorter side to it, pads to multiples of 8; 0: no"),
    "eval.base_size": Key(OWN, whole(0), "side of an image at scale 1; 0: the image's own size", "TEST.BASE_SIZE"),
    "eval.scales": Key((1.0,), each(POSITIVE), "multi-scale as published: 0.5 0.75 1 1.25 1.5 1.75", "TEST.SCALE_LIST"),
    "eval.flip": Key(False, FLAG, "adds mirrored passes", "TEST.FLIP_TEST"),
    "eval.windows": Key(
        "cityscapes",
        one_of("cityscapes", "generic", "whole", "overlapping"),
        "how images are cut into windows, see ovenet_jax/evaluation/protocol.py",
    ),
    "eval.window": Key(OWN, each(whole(SMALLEST), "height, width"), "size of windows and exports", "TEST.IMAGE_SIZE"),
    "eval.side": Key("long", one_of("long", "short"), "the side that eval.base_size refers to", when=ONE_SIDE),
    "eval.sum": Key("exp", one_of("exp", "logits"), "passes are summed as exp(logits) ('exp') or as logits ('logits')"),
    "eval.bucket": Key(1, whole(1), "rounds sides other than eval.side to a multiple, to compile fewer shapes; 1: off"),
    "eval.keep_shape": Key(True, FLAG, "keeps the aspect ratio of resized images; False: resizes to squares (LIP)"),
    "eval.parts_align_corners": Key(
        None, or_none(FLAG, bool), "for resizing S_i, S_s; None: the model's", when=OFFSETS
    ),
    "eval.images_per_device": Key(OWN, whole(1), "images per device in a pass; more are faster for small images"),
    "eval.segfix": Key("", TEXT, "workdir of a network that refines class maps in --mode=evaluate", when=CLASSES),
    "eval.panels": Key(8, whole(0), "number of images with panels, evenly spaced in the split"),
    "eval.worst": Key(8, whole(0), "number of panels of the images with the lowest mIoU, in the final report"),
    "predict.ids": Key("label_ids", one_of("label_ids", "train_ids"), "ids in predicted label maps", when=CLASSES),
    "predict.offsets": Key(False, FLAG, "also writes offsets and confidence, for segfix.refine", when=OFFSETS),
    "predict.form": Key("png", one_of("png", "mat"), "format of offset files; 'mat' as SegFix publishes", when=SEGFIX),
    "non_finite.policy": Key("stop", one_of("stop", "skip"), "stop or skip updates at non-finite loss or parameters"),
    "non_finite.limit": Key(20, whole(0), "maximum number of skipped steps per run", when=SKIP),
}

# Prefixes of keys that may differ when a run is resumed: they do not change what it computes.
FREE = (
    *("mesh", "deterministic", "rematerialise", "report_every", "evaluate_every", "checkpoint_every"),
    *("keep_checkpoints", "patience"),
    *("data.root", "data.lists", "data.prepared", "data.workers", "data.storage", "data.test_split"),
    *("non_finite.", "eval.", "predict."),
)


def faults_between(values: Flat) -> Iterator[str]:
    """One sentence for each pair of keys whose values do not fit together."""
    if values.get("augment.short_side") and values.get("augment.resize"):
        yield "config.augment has both short_side and resize; only one of them can come first."
    batch_size, group = values.get("batch_size", 0), values.get("loss.ohem.group", 1)
    if batch_size % group:
        yield (
            f"OHEM ranks pixels in groups of config.loss.ohem.group={group} images, which config.batch_size="
            f"{batch_size} must be a multiple of."
        )
    channels = values.get("model.input.channels", ())
    for key in ("model.input.mean", "model.input.std"):
        if len(values.get(key, ())) not in (0, count := len(channels) or 3):
            yield f"config.{key} has {len(values[key])} numbers; it must have one for each of {count} channels."
    base_size = values.get("eval.base_size", 0)
    for scale in values.get("eval.scales", ()):
        if base_size and not SMALLEST <= base_size * scale <= LARGEST:
            yield (
                f"config.eval.scales: {scale} times base_size {base_size} makes images of {base_size * scale:g} "
                f"pixels; {SMALLEST} to {LARGEST} can be tested."
            )
    if SEGFIX.holds(values) and values.get("eval.sum", "logits") != "logits":
        yield f"config.eval.sum is {values['eval.sum']!r}; for SegFix it must be 'logits', because scores are added."
    classes, numbers = values.get("model.num_classes"), [1 + count for count in COUNTS]
    if SEGFIX.holds(values) and classes not in numbers:
        wanted = f"1 + its number of directions: {', '.join(map(str, numbers))}"
        yield f"config.model.num_classes is {classes}; for SegFix it must be {wanted}."
    yield from _faults_of_stages(values)


def _faults_of_stages(values: Flat) -> Iterator[str]:
    """The same for stages (ResNet: layers) of backbone and offset trunk."""
    first = values.get("model.offset.branch", 4)
    for key in ("modules", "blocks", "widths"):
        of_stages = values.get(f"model.offset.{key}")
        if of_stages and len(of_stages) != 5 - first:
            wanted = f"it must have one entry for each stage from branch={first} to 4"
            yield f"config.model.offset.{key} is {of_stages}; {wanted}."
    if HRNET.holds(values):
        more = values["model.backbone.name"] == "hrnet2x"
        for key, start in (("backbone.stage_", 2), ("offset.", first)):
            for what in ("blocks", "widths"):
                for stage, branches in enumerate(values.get(f"model.{key}{what}", ()), start):
                    if len(branches) != stage + more:
                        yield f"config.model.{key}{what}: stage {stage} has {stage + more} branches, got {branches}."
    elif isinstance(blocks := values.get("model.backbone.blocks"), tuple | list):
        if len(factors := values.get("model.backbone.multi_grid", ())) not in (0, blocks[3]):
            wanted = f"one factor for each of the {blocks[3]} blocks of layer 4"
            yield f"config.model.backbone.multi_grid is {factors}; it must have {wanted}."
        for copied, count in zip(values.get("model.offset.modules", ()), blocks[first - 1 :], strict=False):
            if copied > count:
                fault = f"a layer of {count} blocks cannot give a copy of {copied}"
                yield f"config.model.offset.modules: {fault}; choose 1 to {count}."
