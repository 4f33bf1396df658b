"""Every key of a config: its value where a config sets no other, what values it can have, what it means and its source.

The values are OVeNet's published ones where one was published; the sources are keys of the experiment files of OVeNet,
HRNet and HRNet-OCR. No function or class has such a value as a default of its own: what is left out there is not done.
docs/config.md is made of this table, `described.check` checks by it, and --mode=config prints it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ovenet_jax.data import imagenet

Flat = Mapping[str, Any]  # the values of a config by their dotted keys

SMALLEST, LARGEST = 4, 32768  # sides of tested images and windows: the stride of scores, and what no memory holds


# ---- what values a key can have ----


class Values(NamedTuple):
    """`wanted` follows "it must be". kind: the type of those that are not None, where that is one of them."""

    wanted: str
    include: Callable[[Any], bool]
    kind: type | None = None


def whole(least: int) -> Values:
    return Values(f"a whole number of at least {least}", lambda x: type(x) is int and x >= least)


def number(wanted: str, fits: Callable[[float], bool]) -> Values:
    return Values(f"a number {wanted}", lambda x: type(x) in (int, float) and math.isfinite(x) and fits(x))


def one_of(*choices: str) -> Values:
    return Values(f"one of {', '.join(map(repr, choices))}", lambda x: x in choices)


def each(of: Values, names: str = "", *, optional: bool = False) -> Values:
    """A tuple, one for each of these comma-separated `names`, "": one or more. optional: or the empty one."""
    count = len(names.split(", ")) if names else None
    wanted = f"({names}), each {of.wanted}" if names else f"one or more, each {of.wanted}"

    def fits(x: Any) -> bool:
        if not isinstance(x, tuple | list) or (not x and not optional):
            return False
        return not x or (count in (None, len(x)) and all(map(of.include, x)))

    return Values(f"{wanted}{', or () for none' if optional else ''}", fits)


TEXT = Values("text", lambda x: isinstance(x, str))
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
PRECISIONS = ("float32", "bfloat16")
PRECISION = one_of(*PRECISIONS)
RANGE = Values(
    "(least, most), both numbers above 0, or () for none",
    lambda x: x in ((), []) or (each(POSITIVE, "least, most").include(x) and x[0] <= x[1]),
)


def or_none(values: Values, kind: type) -> Values:
    return Values(f"{values.wanted}, or None", lambda x: x is None or values.include(x), kind)


# ---- where a key has an effect ----


class When(NamedTuple):
    """`where` follows "it has an effect"."""

    where: str
    holds: Callable[[Flat], bool]


ALWAYS = When("", lambda _: True)
SEGFIX = When("in a SegFix", lambda v: v.get("model.head.name") == "segfix")
CLASSES = When("where a network learns classes, so not in a SegFix", lambda v: not SEGFIX.holds(v))
OFFSETS = When("in networks with offsets", lambda v: "model.offset.branch" in v)
AUX = When("where the head has an auxiliary classifier", lambda v: "model.head.aux.kernel_size" in v)
OHEM = When("with loss.ohem.on", lambda v: CLASSES.holds(v) and bool(v.get("loss.ohem.on")))
OHEM_AUX = When("with loss.ohem.on and an auxiliary classifier", lambda v: OHEM.holds(v) and AUX.holds(v))
OHEM_PROBABILITIES = When(
    "with loss.ohem.on, in networks with offsets and without model.offset.logits",
    lambda v: OHEM.holds(v) and OFFSETS.holds(v) and not v.get("model.offset.logits"),
)
FILES = When("where the data set is made of files", lambda v: v.get("data.name") != "toy_streets")
NO_RANGE = When("without augment.scale_range", lambda v: not v.get("augment.scale_range"))
BRIGHTNESS = When("with augment.brightness", lambda v: bool(v.get("augment.brightness")))
SKIP = When("with non_finite.policy='skip'", lambda v: v.get("non_finite.policy") == "skip")
ONE_SIDE = When(
    "with eval.keep_shape, or without eval.base_size",
    lambda v: v.get("eval.keep_shape", True) or not v.get("eval.base_size"),
)


# ---- the keys ----

# In the place of a default: every config sets the key; or it comes with a part of the network, which needs it.
OWN, PART = object(), object()


class Key(NamedTuple):
    """What there is to say of a key. source: of its default, and of values that configs of published systems set."""

    default: Any
    values: Values
    meaning: str
    source: str = ""
    when: When = ALWAYS


KEYS = {
    "name": Key(OWN, TEXT, "file and variant; the default workdir is runs/<name>"),
    "seed": Key(0, whole(0), "of initial values, dropout, order of the data and augmentation"),
    "batch_size": Key(OWN, whole(1), "images of a step, over all devices", "TRAIN.BATCH_SIZE_PER_GPU, of all GPUs"),
    "steps": Key(OWN, whole(1), "of the whole training", "TRAIN.END_EPOCH, in epochs"),
    "mesh": Key((0, 1), MESH, "devices that share a batch (0: all), and devices that share the rows of each image"),
    "precision": Key("float32", PRECISION, "of the network in training; bfloat16 is faster and takes half the memory"),
    "deterministic": Key(False, FLAG, "the same bits every time on GPUs as well, where that costs time"),
    "rematerialise": Key(False, FLAG, "computes parts of the network twice, to keep less in memory"),
    "accumulate": Key(1, whole(1), "micro-batches that a batch is split into, to keep less in memory", when=CLASSES),
    "ema": Key(0.0, BELOW_1, "decay of moving averages of the network, which are then evaluated; 0: none"),
    "freeze_base": Key(False, FLAG, "trains offset trunk and head alone", "MODEL.FREEZED_PAR", OFFSETS),
    "report_every": Key(50, whole(1), "steps from one line of metrics to the next"),
    "evaluate_every": Key(OWN, whole(1), "steps from one evaluation to the next"),
    "checkpoint_every": Key(1000, whole(1), "steps from one checkpoint to the next"),
    "keep_checkpoints": Key(2, whole(1), "latest checkpoints that are kept; the best one is kept, too"),
    "patience": Key(0, whole(0), "steps without a better validation mIoU after which training ends; 0: never"),
    # Where a new run takes its initial values from.
    "init.base": Key("", TEXT, "workdir of an import or a run; '': the model's own values", "MODEL.PRETRAINED"),
    "init.trunk": Key("", TEXT, "another one, for offset trunk and offset head; '': from init.base", when=OFFSETS),
    # The network.
    "model.num_classes": Key(
        OWN, or_none(whole(1), int), "of the answer, of a SegFix 1 + its directions; None: the data's"
    ),
    "model.align_corners": Key(True, FLAG, "of every resize in the network", "MODEL.ALIGN_CORNERS"),
    "model.norm_momentum": Key(0.1, SHARE, "of BatchNorm's running statistics, in PyTorch's sense", "BN_MOMENTUM"),
    # What it is fed: (pixel / divisor - mean) / std per channel.
    "model.input.bgr": Key(False, FLAG, "channels, mean and std in the order blue, green, red; False: red first"),
    "model.input.divisor": Key(255.0, POSITIVE, "the network is fed (pixel / divisor - mean) / std"),
    "model.input.mean": Key(imagenet.MEAN, each(ANY, "first, second, third"), "of the channels, after the division"),
    "model.input.std": Key(imagenet.STD, each(POSITIVE, "first, second, third"), "of the channels, after the division"),
    "model.backbone.name": Key(OWN, TEXT, "one of BACKBONES in ovenet_jax/models/zoo.py"),
    "model.backbone.he_init": Key(PART, FLAG, "kernels start as N(0, 2 / fan_in); False: N(0, 0.001^2)"),
    "model.backbone.width": Key(PART, whole(1), "of HRNet's first branch; each other is twice as wide", "MODEL.EXTRA"),
    "model.backbone.modules": Key(PART, each(whole(1), "stage 2, 3, 4"), "exchange modules", "NUM_MODULES"),
    "model.backbone.blocks": Key(
        PART,
        Values(
            "a whole number of at least 1, or of a ResNet (layer 1, 2, 3, 4), each such a number",
            lambda x: whole(1).include(x) or each(whole(1), "layer 1, 2, 3, 4").include(x),
        ),
        "residual blocks of a branch of HRNet, of each layer of a ResNet",
        "NUM_BLOCKS",
    ),
    "model.backbone.layer1_blocks": Key(PART, whole(1), "of HRNet's first stage", "STAGE1.NUM_BLOCKS"),
    "model.backbone.layer1_width": Key(PART, whole(1), "of their bottlenecks", "STAGE1.NUM_CHANNELS"),
    "model.backbone.stem_width": Key(PART, whole(1), "of HRNet's two first convolutions"),
    "model.backbone.widths": Key(PART, each(whole(1), "layer 1, 2, 3, 4"), "of a ResNet's bottlenecks"),
    "model.backbone.stem": Key(PART, each(whole(1)), "widths of a ResNet's convolutions before layer 1"),
    "model.backbone.output_stride": Key(PART, whole(1), "8 or 16: of a ResNet's last layers, by dilation"),
    "model.backbone.multi_grid": Key(PART, each(whole(1)), "factors of the dilations of each block of layer 4"),
    "model.backbone.half_dilation": Key(PART, FLAG, "of the block that lost its stride; False: in OCNet"),
    "model.head.name": Key(OWN, TEXT, "one of HEADS in ovenet_jax/models/zoo.py, or 'segfix'"),
    "model.head.activation": Key(PART, TEXT, "'relu', 'leaky_relu' (in-place ABN's, slope 0.01) or 'none'"),
    "model.head.dropout": Key(PART, BELOW_1, "share of channels, before the last convolution"),
    "model.head.bias": Key(PART, FLAG, "of the convolutions of attention and fusion"),
    "model.head.output_bias": Key(PART, FLAG, "of the last convolution"),
    "model.head.hidden_features": Key(PART, whole(0), "channels of the hidden layer; 0: as many as come in"),
    "model.head.mid_features": Key(PART, whole(1), "channels of the head", "MODEL.OCR.MID_CHANNELS"),
    "model.head.key_features": Key(PART, whole(1), "channels of queries and keys", "MODEL.OCR.KEY_CHANNELS"),
    "model.head.value_features": Key(PART, whole(1), "channels of values"),
    "model.head.branch_features": Key(PART, whole(1), "channels of each branch of the atrous pyramid"),
    "model.head.dilations": Key(PART, each(whole(1), "first, second, third"), "of the atrous pyramid's branches"),
    "model.head.sizes": Key(PART, each(whole(1)), "of each attention: blocks along both sides of the map"),
    "model.head.factors": Key(PART, each(SIZE), "blocks of each attention, in pixels of the map"),
    "model.head.half": Key(PART, FLAG, "attends among 2x2 pixels, a sixteenth of the memory"),
    "model.head.first_release": Key(PART, FLAG, "OCNet's first release, in which queries and keys are one"),
    **{
        f"model.head.{part}.{key}": described
        for part in ("aux", "classifier")
        for key, described in {
            "hidden_features": Key(PART, whole(0), "channels of its hidden layer; 0: as many as come in"),
            "kernel_size": Key(PART, whole(1), "of its first convolution, in pixels of the map"),
            "bias": Key(PART, FLAG, "of its first convolution"),
            "output_bias": Key(PART, FLAG, "of its last convolution"),
            "dropout": Key(PART, BELOW_1, "share of channels, before the last convolution"),
            "activation": Key(PART, TEXT, "as model.head.activation"),
            "in_head": Key(PART, FLAG, "initial kernels as PyTorch's; False: as the backbone's"),
        }.items()
    },
    # OVeNet on top of a baseline.
    "model.offset.branch": Key(PART, whole(1), "stage before which the offset trunk begins", "EXTRA.OFFSET_BRANCH"),
    "model.offset.modules": Key(PART, each(whole(1)), "of its stages, from branch to 4", "STAGE4_2.NUM_MODULES"),
    "model.offset.threshold": Key(
        0.2, POSITIVE, "bound in x and y, in half image sides", "EXTRA.OFFSET_THRESHOLD", OFFSETS
    ),
    "model.offset.refinement": Key(
        0, whole(0), "times that offsets are followed again", "ITERATIVE_REFINEMENT", OFFSETS
    ),
    "model.offset.logits": Key(True, FLAG, "fuses logits; False: probabilities", "EXTRA.LOGITS", OFFSETS),
    "model.offset.grid_align_corners": Key(True, FLAG, "as PyTorch 1.1 samples; False: as newer ones", when=OFFSETS),
    "model.offset.default_init": Key(
        True, FLAG, "its head starts as PyTorch's default", "by its name, aux_head_offset", OFFSETS
    ),
    "loss.aux_weight": Key(0.4, AT_LEAST_0, "of the auxiliary map; of the main one 1", "LOSS.BALANCE_WEIGHTS[0]", AUX),
    "loss.class_weights": Key((), each(AT_LEAST_0, optional=True), "one for each class", when=CLASSES),
    "loss.ohem.on": Key(False, FLAG, "online hard example mining, of the main map", "LOSS.USE_OHEM", CLASSES),
    "loss.ohem.threshold": Key(0.9, SHARE, "pixels less probable than that are hard", "LOSS.OHEMTHRES", OHEM),
    "loss.ohem.keep": Key(131072, whole(0), "pixels that are hard at least", "LOSS.OHEMKEEP", OHEM),
    "loss.ohem.group": Key(2, whole(1), "images that are ranked together", "those of one GPU", OHEM),
    "loss.ohem.softmax_again": Key(True, FLAG, "also of scores that are probabilities", when=OHEM_PROBABILITIES),
    "loss.ohem.aux_over_all": Key(
        True, FLAG, "auxiliary mean over all pixels; False: over the valid ones' weights", when=OHEM_AUX
    ),
    "loss.confidence_weight": Key(
        2.0, AT_LEAST_0, "of a mean over the batch", "a sum over the 2 images of a GPU", OFFSETS
    ),
    "loss.include_ignored": Key(True, FLAG, "ignored pixels supervise F as class 0, as published", when=OFFSETS),
    "optimizer.name": Key(
        "sgd", one_of("sgd", "adamw"), "SGD with momentum, or AdamW, whose first beta is the momentum"
    ),
    "optimizer.clip_norm": Key(0.0, AT_LEAST_0, "largest global norm of gradients, to which they are scaled; 0: any"),
    "optimizer.rate": Key(0.01, AT_LEAST_0, "learning rate of the first step", "TRAIN.LR"),
    "optimizer.power": Key(0.9, AT_LEAST_0, "of the poly schedule", "a literal in the training loop"),
    "optimizer.momentum": Key(0.9, AT_LEAST_0, "of SGD", "TRAIN.MOMENTUM"),
    "optimizer.weight_decay": Key(5e-4, AT_LEAST_0, "of every parameter", "TRAIN.WD"),
    "optimizer.head_rate_multiplier": Key(1.0, AT_LEAST_0, "of the rate of the heads", "TRAIN.NONBACKBONE_MULT"),
    "optimizer.warmup_steps": Key(0, whole(0), "in which the rate grows, but for the heads'; 0: none"),
    "data.name": Key(OWN, TEXT, "of the data set: one of ovenet_jax/data/pipeline.py"),
    "data.root": Key(OWN, TEXT, "folder of the data set's files", "DATASET.ROOT", FILES),
    "data.lists": Key("", TEXT, "a folder of list files, which choose and order the samples; '': none", when=FILES),
    "data.prepared": Key("data/prepared", TEXT, "folder for the records of all data sets"),
    "data.storage": Key("compressed", one_of("compressed", "decoded"), "of records: files, or pixels"),
    "data.train_split": Key("train", TEXT, "also of several, like 'train+val'", "DATASET.TRAIN_SET"),
    "data.eval_split": Key("val", TEXT, "which evaluations test on", "DATASET.TEST_SET"),
    "data.test_split": Key("test", TEXT, "which --mode=predict takes without --source"),
    "data.regions": Key(OWN, one_of("classes", "instances"), "whose boundaries are learned", when=SEGFIX),
    "data.workers": Key(8, whole(0), "processes that read and augment; 0: threads", "WORKERS"),
    "augment.base_size": Key(OWN, whole(0), "longer side at scale 1; 0: the length it has", "TRAIN.BASE_SIZE"),
    "augment.crop": Key(OWN, SIZE, "of the windows that are cut out", "TRAIN.IMAGE_SIZE"),
    "augment.scale_factor": Key(16, whole(0), "n: scales 0.5, 0.6 ... 0.5 + n / 10", "TRAIN.SCALE_FACTOR", NO_RANGE),
    "augment.scale_range": Key((), RANGE, "or scales in it, any number between", "random_resize.scale_range"),
    "augment.aspect_range": Key((), RANGE, "also stretches by it, width for height", "random_resize.aspect_range"),
    "augment.brightness": Key(0, whole(0), "at most that much is added", "random_brightness.shift_value"),
    "augment.brightness_share": Key(0.5, SHARE, "of samples with another", "random_brightness.ratio", BRIGHTNESS),
    "augment.pad_color": Key((0, 0, 0), each(whole(0), "red, green, blue"), "where the image is smaller than the crop"),
    "augment.pad_anywhere": Key(False, FLAG, "on all sides at random; False: at the bottom and right", "pad_mode"),
    "augment.short_side": Key(0, whole(0), "images are first resized to it; 0: not"),
    "augment.resize": Key((), each(whole(1), "height, width", optional=True), "or, once mirrored, to this size: LIP's"),
    "augment.rare_class_crops": Key(0.0, SHARE, "of the crops lie around a pixel of a class, the rarer the likelier"),
    "eval.checkpoint": Key("best", one_of("best", "latest"), "which of the run's"),
    "eval.precision": Key("float32", PRECISION, "of the network in tests, whatever it was trained in"),
    "eval.short_side": Key(0, whole(0), "validation images are first resized to it, padded to multiples of 8; 0: not"),
    "eval.base_size": Key(OWN, whole(0), "side of an image at scale 1; 0: the length it has", "TEST.BASE_SIZE"),
    "eval.scales": Key((1.0,), each(POSITIVE), "published multi-scale: 0.5 0.75 1 1.25 1.5 1.75", "TEST.SCALE_LIST"),
    "eval.flip": Key(False, FLAG, "adds mirrored passes", "TEST.FLIP_TEST"),
    "eval.windows": Key(
        "cityscapes",
        one_of("cityscapes", "generic", "whole", "overlapping"),
        "how images are cut, see ovenet_jax/evaluation/protocol.py",
    ),
    "eval.window": Key(OWN, each(whole(SMALLEST), "height, width"), "size of windows and exports", "TEST.IMAGE_SIZE"),
    "eval.side": Key("long", one_of("long", "short"), "which one eval.base_size is of", when=ONE_SIDE),
    "eval.sum": Key("exp", one_of("exp", "logits"), "what passes add up: exp of the logits, or the logits"),
    "eval.bucket": Key(1, whole(1), "other sides are rounded to multiples of it, so that few shapes compile; 1: exact"),
    "eval.keep_shape": Key(True, FLAG, "of images that are resized; False: they become squares, as for LIP"),
    "eval.parts_align_corners": Key(None, or_none(FLAG, bool), "of S_i and S_s; None: as the network", when=OFFSETS),
    "eval.images_per_device": Key(OWN, whole(1), "that run together; more are faster on small images"),
    "eval.segfix": Key("", TEXT, "workdir of a network that --mode=evaluate refines class maps with", when=CLASSES),
    "eval.panels": Key(8, whole(0), "pictures of evenly spread images"),
    "eval.worst": Key(8, whole(0), "and of those with the lowest mIoU, in the final report"),
    "predict.ids": Key("label_ids", one_of("label_ids", "train_ids"), "what label maps hold", when=CLASSES),
    "predict.offsets": Key(False, FLAG, "also writes offsets and confidence, for segfix.refine", when=OFFSETS),
    "predict.form": Key("png", one_of("png", "mat"), "of offset files; 'mat' as published with SegFix", when=SEGFIX),
    "non_finite.policy": Key("stop", one_of("stop", "skip"), "after a step that is not finite"),
    "non_finite.limit": Key(20, whole(0), "so many steps of a run may be skipped", when=SKIP),
}


def faults_between(values: Flat) -> Iterator[str]:
    """What is wrong between keys, a sentence each."""
    if values.get("augment.short_side") and values.get("augment.resize"):
        yield "config.augment has both short_side and resize; only one of them can come first."
    batch_size, group = values.get("batch_size", 0), values.get("loss.ohem.group", 1)
    if batch_size % group:
        yield (
            f"OHEM ranks pixels in groups of config.loss.ohem.group={group} images, which config.batch_size="
            f"{batch_size} must be a multiple of."
        )
    base_size = values.get("eval.base_size", 0)
    for scale in values.get("eval.scales", ()):
        if base_size and not SMALLEST <= base_size * scale <= LARGEST:
            yield (
                f"config.eval.scales: {scale} times base_size {base_size} makes images of {base_size * scale:g} "
                f"pixels; {SMALLEST} to {LARGEST} can be tested."
            )
    if SEGFIX.holds(values) and values.get("eval.sum", "logits") != "logits":
        yield f"config.eval.sum is {values['eval.sum']!r}; of a SegFix it must be 'logits': scores add up as they are."
