import json
import re
from contextlib import suppress
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from numpy.testing import assert_allclose

from configs import acdc, ade20k, camvid, cityscapes, coco_stuff, demo, lip, pascal_context
from ovenet_jax import described
from ovenet_jax.configs.keys import ALWAYS, KEYS, PART
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import TOY_STREETS
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation.inference import Inference
from ovenet_jax.models.contracts import Logits
from ovenet_jax.models.ovenet import OVeNetOutput
from ovenet_jax.models.zoo import create_model
from ovenet_jax.predict import predict
from ovenet_jax.supervision.task import task_of
from ovenet_jax.training import optimizer as optimizers
from ovenet_jax.training.step import frozen_parts
from tests import config_files, traced
from tests.config_files import FILES, variants
from tests.places import ROOT
from tests.recording import Recording
from tests.steps import first_step


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__)
def test_an_unknown_variant_is_answered_with_the_known_ones(file):
    with pytest.raises(UserError, match="'deeplab' is unknown; choose one of ovenet, hrnet_ocr, hrnet"):
        file.get_config("deeplab")


WRONG = {
    "steps": [
        (0, "config.steps is 0; it must be a whole number of at least 1."),
        (2.5, "steps is 2.5; it must be a whole"),
    ],
    "precision": [("float16", "config.precision is 'float16'; it must be one of 'float32', 'bfloat16'.")],
    "ema": [(1.0, "config.ema is 1.0; it must be a number from 0 to below 1.")],
    "mesh": [((2,), "config.mesh is (2,); it must be (data, rows), like (0, 1)"), ((0, 0), "config.mesh is (0, 0)")],
    "report_every": [(0, "config.report_every is 0")],
    "optimizer.rate": [(-0.1, "rate is -0.1; it must be a number of at least 0."), (np.inf, "rate is inf")],
    "data.storage": [("raw", "config.data.storage is 'raw'; it must be one of 'compressed', 'decoded'.")],
    "augment.crop": [((192,), "crop is (192,); it must be (height, width), each a whole number of at least 1.")],
    "augment.resize": [((473,), "config.augment.resize is (473,); it must be (height, width), each")],
    "augment.brightness": [(-3, "config.augment.brightness is -3; it must be a whole number of at least 0.")],
    "augment.brightness_share": [(-1.0, "config.augment.brightness_share is -1.0; it must be a number from 0 to 1.")],
    "augment.scale_range": [((2.0, 0.5), "scale_range is (2.0, 0.5); it must be (least, most), both numbers")],
    "augment.short_side": [(-3, "config.augment.short_side is -3")],
    "model.input.mean": [((1.0, 2.0), "it must have one for each of 3 channels.")],
    "model.input.std": [((1.0, 0.0, 1.0), "each a number above 0.")],
    "model.input.divisor": [(0.0, "config.model.input.divisor is 0.0; it must be a number above 0.")],
    "model.offset.branch": [(4.0, "config.model.offset.branch is 4.0; it must be one of 2, 3, 4.")],
    "non_finite": [("skip", "config.non_finite is 'skip'; it must hold keys, such as non_finite.policy.")],
    "non_finite.policy": [("ignore", "config.non_finite.policy is 'ignore'; it must be one of 'stop', 'skip'.")],
    "eval.precision": [("half", "config.eval.precision is 'half'")],
    "eval.scales": [
        (("one",), "config.eval.scales is ('one',); it must be one or more, each a number above 0."),
        ((0.0,), "scales is (0.0,)"),
        ((np.nan,), "scales is (nan,)"),
        ((), "scales is ()"),
        ((0.001,), "0.001 times base_size 480 makes images of 0.48 pixels; 4 to 32768 can be tested."),
        ((1e9,), "times base_size 480 makes images of 4.8e+11 pixels"),
    ],
    "eval.windows": [("sliding", "it must be one of 'cityscapes', 'generic', 'whole', 'overlapping'.")],
    "eval.window": [((2, 512), "window is (2, 512); it must be (height, width), each a whole number of at least 4.")],
    "eval.base_size": [(-1, "config.eval.base_size is -1")],
    "eval.bucket": [(0, "config.eval.bucket is 0; it must be a whole number of at least 1.")],
    "eval.parts_align_corners": [("yes", "it must be True or False, or None.")],
}


@pytest.mark.parametrize(("key", "value", "sentence"), [(key, *case) for key, cases in WRONG.items() for case in cases])
def test_a_value_that_cannot_be_is_named_with_what_was_expected(key, value, sentence):
    config = camvid.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as error:
        described.resolved(config)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("variant", "changes", "sentence"),
    [
        ("ovenet", {"augment.short_side": 9, "augment.resize": (9, 9)}, "has both short_side and resize"),
        ("hrnet", {"loss.ohem.on": True, "batch_size": 9}, "loss.ohem.group=2 images, which config.batch_size=9 must"),
        ("segfix", {"model.num_classes": 6}, "is 6; for SegFix it must be 1 + its number of directions: 5, 9"),
        ("segfix", {"model.num_classes": None}, "config.model.num_classes is None; for SegFix it must be"),
        ("segfix", {"eval.sum": "exp"}, "config.eval.sum is 'exp'; for SegFix it must be 'logits'"),
        ("hrnet", {"model.head.name": "segfix"}, "config.data.regions is missing; it must be one of 'classes'"),
    ],
)
def test_keys_that_do_not_go_together_are_named(variant, changes, sentence):
    config = camvid.get_config(variant)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=re.escape(sentence)):
        described.resolved(config)


@pytest.mark.parametrize(
    ("variant", "key", "where"),
    [
        ("hrnet", "freeze_base", "in networks with offsets"),
        ("hrnet", "loss.aux_weight", "with a head that has an auxiliary classifier"),
        ("hrnet", "loss.ohem.keep", "with loss.ohem.on"),
        ("segfix", "augment.scale_factor", "without augment.scale_range"),
        (
            "segfix",
            "loss.class_weights",
            "in networks that learn classes, not in a SegFix, unless loss.rmi is the only loss",
        ),
        (
            "hrnet",
            "loss.enet_weights",
            "in networks that learn classes, without loss.class_weights, unless loss.rmi is the only loss",
        ),
        ("segfix", "accumulate", "in networks that learn classes, not in a SegFix"),
        ("ovenet", "predict.form", "in a SegFix"),
    ],
)
def test_a_key_without_effect_is_absent_and_refused(variant, key, where):
    config = camvid.get_config(variant)
    assert key not in described.leaves(described.resolved(config).to_dict())
    with pytest.raises(UserError, match=f"config.{key} has an effect only {where}; leave it out"):
        described.resolved(config, [key])


ELSEWHERE = {  # where a file or a run is needed to read them
    "init.trunk": "tests/weights/test_starting_point.py",
    "data.lists": "tests/data/test_lists.py",
    "data.regions": "tests/segfix/test_samples.py",
    "data.metric": "tests/segfix/test_samples.py",
    "data.filter_size": "tests/segfix/test_samples.py",
    "data.near": "tests/segfix/test_labels.py",
    "predict.ids": "tests/test_predict.py",
    "predict.form": "tests/evaluation/test_refinement.py",
}


@cache
def keys_of_model(described_model: str) -> frozenset[str]:
    """Those of a model, as JSON, that are read where it is created."""
    model = ConfigDict(described.with_tuples(json.loads(described_model)))
    read: set[str] = set()
    nnx.eval_shape(lambda: create_model(Recording(model, read, "model.")))
    return frozenset(read)


def keys_of_parts(config: ConfigDict) -> set[str]:
    """Those that are read where what trains, tests and predicts is put together."""
    model = ConfigDict(config.model.to_dict())  # of the least sizes, which many variants have in common
    sizes = {"width": 4, "layer1_width": 4, "stem_width": 4, "widths": (4, 4, 4, 4), "stem": (4,), "layer1_blocks": 1}
    sizes |= {"modules": (1, 1, 1), "blocks": 1} if model.backbone.name != "resnet" else {"blocks": (1, 1, 1, 1)}
    model.backbone.update({key: size for key, size in sizes.items() if key in model.backbone})
    if "multi_grid" in model.backbone:
        model.backbone.multi_grid = (1,)
    if "offset" in model:
        model.offset.modules = (1,)
    model.num_classes = 9  # as a SegFix
    read = set(keys_of_model(json.dumps(model.to_dict())))
    recording = Recording(config, read)
    task = task_of(recording, TOY_STREETS)
    task.create_loss()
    task.predicts()
    assert task.accumulate >= 1
    frozen_parts(recording)
    optimizers.from_config(recording)
    Inference.from_config(recording, None, TOY_STREETS)
    pipeline.augmentations(recording.augment, TOY_STREETS)
    with suppress(UserError):
        pipeline.labelled_samples(recording.data)
    with suppress(UserError):
        predict(recording, ROOT / "nowhere", None)
    return read


@pytest.mark.parametrize(("file", "variant"), config_files.VARIANTS, ids=lambda x: getattr(x, "__name__", x))
def test_no_variant_has_a_key_without_effect(file, variant):
    """Keys with an effect everywhere: tests/test_train.py."""
    config = described.resolved(file.get_config(variant))
    config.model.num_classes = config.model.num_classes or 3
    depending = {key for key, known in KEYS.items() if known.when is not ALWAYS or known.default is PART}
    there = described.leaves(config.to_dict()).keys()
    assert there <= KEYS.keys()
    assert there & depending == (keys_of_parts(config) | ELSEWHERE.keys() & there) & depending


@pytest.mark.parametrize(("file", "variant"), config_files.VARIANTS, ids=lambda x: getattr(x, "__name__", x))
def test_every_variant_is_as_kept(file, variant):
    """A change is a diff to look at: python -m tests.config_files writes the files anew."""
    config = described.resolved(file.get_config(variant))
    assert config_files.kept(config).read_text() == config_files.as_text(config)


def test_the_document_describes_the_keys():
    """python -m tests.config_files writes it anew."""
    assert config_files.DOCUMENT.read_text() == config_files.document()


def test_cityscapes_trains_as_published():
    config = cityscapes.get_config()
    assert (config.augment.crop, config.augment.base_size, config.augment.scale_factor) == ((512, 1024), 2048, 16)
    assert (config.optimizer.rate, config.optimizer.weight_decay, config.batch_size) == (0.01, 5e-4, 10)
    assert config.steps == 484 * 347
    assert (config.model.offset.threshold, config.model.offset.branch, config.model.offset.modules) == (0.2, 4, (2,))
    assert len(config.loss.class_weights) == config.model.num_classes == 19


@pytest.mark.parametrize(("file", "images", "crop"), [(cityscapes, 2975, (512, 1024)), (acdc, 1600, (540, 960))])
def test_the_thesis_trains_as_published(file, images, crop):
    config = file.get_config("thesis")
    assert config.model.head.name == "fcn"
    assert (config.model.align_corners, config.model.norm_momentum) == (False, 0.01)
    assert (config.model.offset.threshold, config.model.offset.default_init) == (0.5, False)
    assert (config.loss.ohem.on, config.loss.ohem.softmax_again) == (True, False)
    assert (config.data.train_split, config.augment.crop) == ("train", crop)
    assert config.steps == 484 * (images // 10)


@pytest.mark.parametrize(("file", "classes", "crop", "rate", "decay", "batch", "steps", "ohem", "scale"), [
    (pascal_context, 59, (520, 520), 0.001, 1e-4, 16, 200 * (4998 // 16), False, 16),
    (coco_stuff, 171, (520, 520), 0.001, 1e-4, 16, 110 * (9000 // 16), True, 16),
    (lip, 20, (473, 473), 0.007, 5e-4, 40, 150 * (30_462 // 40), False, 11),
])  # fmt: skip
def test_the_other_data_sets_train_as_hrnet_published(file, classes, crop, rate, decay, batch, steps, ohem, scale):
    for variant in ("ovenet", "hrnet_ocr", "hrnet"):
        config = file.get_config(variant)
        assert config.model.num_classes == classes == len(pipeline.classes(config.data).names)
        assert (config.augment.crop, config.augment.base_size) == (crop, crop[0])
        assert (config.augment.scale_factor, config.loss.ohem.on) == (scale, ohem)
        assert (config.optimizer.rate, config.optimizer.weight_decay) == (rate, decay)
        assert (config.batch_size, config.steps) == (batch, steps)
        assert (config.eval.windows, config.eval.base_size) == ("generic", crop[0])
        assert config.model.align_corners == (variant != "hrnet" or file is coco_stuff)
        assert ("offset" in config.model) == (variant == "ovenet")


@pytest.mark.parametrize("variant", ["segfix_w48", "segfix_hx20", "segfix_w48_instance", "segfix_hx20_instance"])
def test_segfix_trains_as_published(variant):
    config = cityscapes.get_config(variant)
    assert (config.augment.crop, config.augment.base_size, config.augment.scale_range) == ((512, 512), 0, (1.0, 1.0))
    assert (config.optimizer.rate, config.optimizer.weight_decay) == (0.04, 5e-4)
    assert (config.batch_size, config.steps, config.data.train_split) == (16, 80_000, "train")
    assert (config.eval.windows, config.eval.window, config.eval.base_size) == ("overlapping", (512, 512), 0)
    assert (config.model.input.bgr, config.model.align_corners) == (True, True)
    assert config.augment.pad_color == (104, 116, 124)  # RGB; 0 after the normalisation
    assert config.data.regions == ("instances" if variant.endswith("_instance") else "classes")
    assert config.model.num_classes == 1 + 8


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__)
def test_every_data_set_has_a_segfix(file):
    config = file.get_config(next(variant for variant in variants(file) if variant.startswith("segfix")))
    assert (config.data.regions, config.eval.sum, config.eval.base_size) == ("classes", "logits", 0)
    assert config.eval.window == config.augment.crop
    assert (config.batch_size == 16) or file is demo


@pytest.mark.parametrize("variant", ["ovenet_60", "hrnet_ocr_60", "hrnet_60"])
def test_pascal_context_has_variants_of_60_classes(variant):
    config = pascal_context.get_config(variant)
    assert config.model.num_classes == 60 == len(pipeline.classes(config.data).names)


@pytest.mark.parametrize("file", [acdc, ade20k], ids=lambda file: file.__name__)
def test_the_frozen_variant_is_ovenet_with_its_base_frozen(file):
    ovenet, frozen = (file.get_config(variant).to_dict() for variant in ("ovenet", "ovenet_frozen"))
    assert (ovenet.pop("freeze_base"), frozen.pop("freeze_base")) == (False, True)
    assert frozen.pop("name") == f"{ovenet.pop('name')}_frozen"
    assert frozen == ovenet


def test_the_thesis_ranks_probabilities_by_themselves_and_logits_by_their_softmax():
    """Pixels of probability 0.2 and 0.95, OHEM below 0.9: a softmax over 19 classes would find both hard."""
    config = cityscapes.get_config("thesis")
    config.loss.class_weights = ()
    config.loss.ohem.keep = 1
    config.model.offset.logits = False
    own = jnp.asarray([0.2, 0.95]).reshape(2, 1, 1, 1)  # one pixel in each of two images
    scores = Logits(None, jnp.concatenate([own, jnp.tile((1 - own) / 18, (1, 1, 1, 18))], -1))
    output = OVeNetOutput(scores, scores, scores, jnp.zeros((2, 1, 1, 2)), jnp.full((2, 1, 1, 1), 0.5))
    label = jnp.zeros((2, 1, 1), int)

    losses = -jax.nn.log_softmax(scores.main)[:, 0, 0, 0]
    assert_allclose(jax.jit(task_of(config).create_loss())(output, label)["initial"], losses[0], rtol=1e-6)
    config.loss.ohem.softmax_again = True
    assert_allclose(jax.jit(task_of(config).create_loss())(output, label)["initial"], losses.mean(), rtol=1e-6)
    config.loss.ohem.softmax_again, config.model.offset.logits = False, True
    assert_allclose(jax.jit(task_of(config).create_loss())(output, label)["initial"], losses.mean(), rtol=1e-6)


def full_width_step():
    config = cityscapes.get_config("ovenet")
    config.batch_size = 2
    return first_step(config, (64, 128))


@pytest.mark.usefixtures("undrawn")
def test_a_step_of_full_width_cityscapes_traces():
    """Shapes only: compiling it takes a minute (test_full_width_cityscapes_takes_a_step)."""
    state, measures = jax.eval_shape(*full_width_step())
    assert state.step.shape == ()
    assert "loss_total" in measures


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("variant", ["hrnet_ocr", "thesis"])
def test_the_loss_of_other_networks_of_full_width_traces(variant):
    """In training mode. Derivatives have the shapes of what they are derived by; OVeNet's step above has them, too."""
    assert traced.loss(cityscapes.get_config(variant), (64, 128))["total"].shape == ()


@pytest.mark.slow
def test_full_width_cityscapes_takes_a_step():
    function, *arguments = full_width_step()
    after, measures = jax.jit(function)(*arguments)
    assert np.isfinite(measures["loss_total"])
    assert after.step == 1
