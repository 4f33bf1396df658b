"""The OCNet series of configs/openseg.py: every head trains on both kinds of backbone, every row is as published."""

import json
import re

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from numpy.testing import assert_allclose

from configs import ade20k, cityscapes, coco_stuff, demo, lip, openseg, pascal_context
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation.protocol import Protocol, passes
from ovenet_jax.models import parameters
from ovenet_jax.models.contracts import Features
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.zoo import create_model
from ovenet_jax.supervision.task import task_of
from ovenet_jax.training.optimizer import poly_schedule
from tests import traced
from tests.config_files import FILES
from tests.steps import first_step

SMALL = {  # of the kind of backbone: what makes it compile in seconds
    "hrnet": {"width": 4, "blocks": 1, "layer1_blocks": 1, "layer1_width": 4, "stem_width": 8},
    "resnet": {"widths": (4, 4, 8, 8), "stem": (4, 4, 8)},
}


def small(variant: str) -> ConfigDict:
    """A variant of the demo at a fraction of its width."""
    config = demo.get_config(variant)
    config.batch_size = 2
    config.model.backbone.update(SMALL[config.model.backbone.name])
    for key in ("mid_features", "key_features", "value_features", "branch_features"):
        if key in config.model.head:
            config.model.head[key] //= 8
    return config


def take_a_step(variant: str) -> None:
    """On maps of 10x14 pixels (HRNet: 18x26), which the heads' blocks do not divide; every array takes part in it."""
    function, before, *batch = first_step(small(variant), (72, 104))
    after, measures = jax.jit(function)(before, *batch)
    assert np.isfinite(measures["loss_total"])
    still = [name for name, x in before.params.items() if np.array_equal(x, after.params[name])]
    assert not [name for name in still if not hidden(name)]


def hidden(name: str) -> bool:
    """BatchNorm takes a bias away again, and what OCNet's attention finds is at first multiplied by 0."""
    attention = r"attentions?\.(\d\.)?((query|key|value)\..*|output\.bias)"
    return bool(re.fullmatch(rf".*conv\.bias|(head\.)?({attention}|context_.*)", name))


def test_a_network_with_offsets_and_a_head_of_openseg_takes_a_step():
    """With the plain head: tests/training/test_step.py."""
    take_a_step("ovenet_isa_r_tiny")


@pytest.mark.parametrize("kind", ["ocr", "asp_ocr", "base_oc", "base_oc_half", "pyramid_oc", "asp_oc", "ocnet_base_oc"])
def test_every_array_of_the_other_kinds_of_head_has_a_gradient(kind):
    """Of their own loss on such maps; heads left out are others with another width or option."""
    config = small(f"{kind}_r_tiny")
    if "sizes" in config.model.head:
        config.model.head.sizes = (1, 3)  # each block is attended by operations of its own
    model = create_model(config.model)
    model.train()
    graphdef, params, statistics = parameters.split(model.head)
    rng = np.random.default_rng(0)
    widths = model.backbone.aux_width, model.backbone.width
    features = Features(*(rng.normal(size=(2, 10, 14, width)).astype(np.float32) for width in widths))
    label = rng.integers(0, 8, (2, 72, 104), np.uint8)

    def total(params, features):
        logits = parameters.merge(graphdef, params, statistics)(features, nnx.Rngs(dropout=0))
        return task_of(config).create_loss()(logits, label)["total"]

    of_params, of_features = jax.jit(jax.grad(total, argnums=(0, 1)))(params, features)
    assert all(np.isfinite(x).all() for x in of_params.values())
    assert not [name for name, x in of_params.items() if not x.any() and not hidden(name)]
    assert all(x.any() for x in of_features)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["tiny", "r_tiny"])
@pytest.mark.parametrize("head", openseg.HEADS)
@pytest.mark.parametrize("prefix", ["", "ovenet_"])
def test_every_head_takes_a_step_on_every_backbone(prefix, head, backbone):
    """pytest -m slow tests/test_openseg.py"""
    take_a_step(f"{prefix}{head}_{backbone}")


@pytest.mark.parametrize("head", openseg.HEADS)
def test_the_loss_of_every_head_traces_on_hrnet_with_offsets(head):
    """Shapes only, which is what a backbone changes for a head; derivatives have those of what they are derived by."""
    assert traced.loss(small(f"ovenet_{head}_tiny"), (72, 104))["total"].shape == ()


@pytest.mark.usefixtures("undrawn")
def test_a_step_of_full_size_with_offsets_and_its_own_loss_traces():
    config = cityscapes.get_config("ovenet_base_oc_r101_ohem")
    assert (config.batch_size, config.loss.ohem.on, len(config.loss.class_weights)) == (8, True, 19)
    _, measures = jax.eval_shape(*first_step(config, config.augment.crop))
    assert measures["loss_total"].shape == ()


@pytest.mark.parametrize(
    ("backbone", "modules"), [("w48", 2), ("w18_small_v2", 2), ("w18_small_v1", 1), ("tiny", 1), ("r101", 3)]
)
def test_the_offset_trunk_copies_no_more_than_the_last_stage_has(backbone, modules):
    assert demo.get_config(f"ovenet_isa_{backbone}").model.offset.modules == (modules,)


def test_fcn_has_either_an_auxiliary_head_or_a_bias():
    with_aux, alone = (create_model(small(f"{head}_r_tiny").model).head for head in ("fcn", "fcn_no_aux"))
    assert with_aux.aux is not None
    assert with_aux.classifier.output.bias is None
    assert alone.aux is None
    assert alone.classifier.output.bias is not None


@pytest.mark.parametrize("head", openseg.HEADS)
def test_a_config_as_it_is_saved_makes_the_same_network(head):
    model = small(f"ovenet_{head}_r_tiny").model
    saved = ConfigDict(json.loads(json.dumps(model.to_dict())))
    ours, theirs = (parameters.split(create_model(m))[1] for m in (model, saved))
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in theirs.items()}


ROWS = {  # crop, steps, batch, rate, weight decay, OHEM, warm-up, rate of the heads, scales
    (cityscapes, "base_oc_r101"): ((512, 1024), 40_000, 8, 0.01, 5e-4, None, 0, 1, (0.5, 2.0)),
    (cityscapes, "base_oc_half_r101"): ((512, 1024), 40_000, 8, 0.01, 5e-4, None, 0, 1, (0.5, 2.0)),
    (cityscapes, "isa_r101"): ((512, 1024), 40_000, 8, 0.01, 5e-4, None, 0, 1, (0.5, 2.0)),
    (cityscapes, "ocr_r101"): ((512, 1024), 40_000, 8, 0.01, 5e-4, None, 0, 1, (0.5, 2.0)),
    (cityscapes, "asp_ocr_r101"): ((512, 1024), 40_000, 8, 0.01, 5e-4, None, 0, 1, (0.5, 2.0)),
    (cityscapes, "ocr_r101_ohem"): ((512, 1024), 40_000, 8, 0.01, 5e-4, 0.7, 0, 1, (0.5, 2.0)),
    (cityscapes, "ocr_w48"): ((512, 1024), 80_000, 8, 0.01, 5e-4, None, 0, 1, (0.5, 2.0)),
    (pascal_context, "ocr_w48"): ((520, 520), 60_000, 16, 0.001, 1e-4, None, 1000, 10, (0.5, 2.0)),
    (pascal_context, "ocr_w48_60"): ((520, 520), 60_000, 16, 0.001, 1e-4, None, 1000, 10, (0.5, 2.0)),
    (lip, "ocr_w48"): ((473, 473), 100_000, 32, 0.007, 5e-4, None, 1000, 1, (0.5, 1.5)),
    (coco_stuff, "ocr_w48"): ((520, 520), 60_000, 16, 0.001, 1e-4, 0.9, 1000, 10, (0.5, 2.0)),
    (ade20k, "ocr_w48"): ((520, 520), 150_000, 16, 0.02, 1e-4, 0.9, 1000, 1, (0.5, 2.0)),
    (cityscapes, "ocnet_base_oc_r101"): ((769, 769), 40_000, 8, 0.01, 5e-4, None, 0, 1, ()),
    (cityscapes, "ocnet_asp_oc_r101_ohem"): ((769, 769), 40_000, 8, 0.01, 5e-4, 0.7, 0, 1, ()),
    (cityscapes, "ocnet_base_oc_r101_stage2"): ((769, 769), 100_000, 8, 1e-4, 5e-4, 0.7, 0, 1, ()),
    (cityscapes, "ocnet_asp_oc_r101_stage2"): ((769, 769), 100_000, 8, 1e-4, 5e-4, 0.7, 0, 1, ()),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0].__name__}:{row[1]}")
def test_a_row_trains_and_is_tested_as_published(row):
    file, variant = row
    crop, steps, batch, rate, decay, threshold, warmup, heads, scales = ROWS[row]
    config = file.get_config(variant)
    assert (config.augment.crop, config.steps, config.batch_size) == (crop, steps, batch)
    assert (config.optimizer.rate, config.optimizer.weight_decay) == (rate, decay)
    assert (config.optimizer.warmup_steps, config.optimizer.head_rate_multiplier) == (warmup, heads)
    assert config.loss.ohem.on == (threshold is not None)
    assert threshold in (None, config.loss.ohem.threshold)
    assert (config.loss.ohem.keep, config.loss.ohem.aux_over_all) == (100_000, False)
    assert (config.loss.aux_weight, config.augment.scale_range) == (0.4, scales)
    assert bool(config.loss.class_weights) == (file is cityscapes)
    assert (config.eval.sum, config.model.align_corners) == ("logits", True)
    assert config.data.train_split == ("train+val" if "stage2" in variant else "train")
    with_offsets = file.get_config(f"ovenet_{variant}").to_dict()
    assert with_offsets["model"].pop("offset")["default_init"]
    assert with_offsets | {"name": config.name} == config.to_dict()


def test_the_second_stage_keeps_its_rate():
    settings = cityscapes.get_config("ocnet_asp_oc_r101_stage2").optimizer
    schedule = poly_schedule(settings.rate, 100_000, settings.power)
    assert_allclose([schedule(step) for step in (0, 50_000, 99_999)], 1e-4, rtol=1e-6)


@pytest.mark.parametrize(
    ("variant", "color"),
    [("ocr_r101", (123, 116, 103)), ("ocr_w48", (104, 116, 124)), ("ocnet_base_oc_r101", (103, 116, 123))],
)
def test_padding_is_about_0_in_the_network(variant, color):
    config = cityscapes.get_config(variant)
    assert config.augment.pad_color == color
    normalisation = Normalisation.from_config(config.model.input)
    padding = np.asarray(color, np.uint8).reshape(1, 1, 1, 3)
    half_a_level = 0.51 / (normalisation.divisor * min(normalisation.std))
    assert_allclose(normalisation(padding), 0, atol=half_a_level)


def test_images_of_all_sizes_are_tested_whole_by_their_short_side():
    protocol = Protocol.from_config(ade20k.get_config("ocr_w48").eval)._replace(scales=(0.5, 1.0, 2.0), bucket=1)
    assert [p.size for p in passes((512, 683), protocol, True)] == [(260, 347), (520, 694), (1040, 1387)]
    assert all(p.whole for p in passes((512, 683), protocol, True))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__)
@pytest.mark.parametrize("variant", ["base_oc_tiny", "ovenet_isa_r_tiny", "ovenet_pyramid_oc_w18_small_v1"])
def test_every_data_set_takes_every_head_and_backbone(file, variant):
    config = file.get_config(variant)
    assert config.name.endswith(variant)
    assert ("offset" in config.model) == variant.startswith("ovenet_")
    assert config.model.input.bgr


@pytest.mark.parametrize("variant", ["ocr_w49", "ocnet_isa_r101", "tiny", "ocr"])
def test_an_unknown_head_or_backbone_is_answered_with_the_known_ones(variant):
    sentence = (
        rf"Config variant '{variant}' is unknown .did you mean .*; choose one of ovenet, .*; or "
        r"\[ovenet_\]HEAD_BACKBONE\[_ohem\].*"
        "with the head fcn, fcn_no_aux, ocr, .* and the backbone r50, r101, .*, r_tiny."
    )
    with pytest.raises(UserError, match=sentence):
        cityscapes.get_config(variant)


def test_a_network_fed_blue_first_is_that_fed_red_first_with_its_first_kernel_turned_round():
    config = demo.get_config("fcn_r_tiny")
    config.model.backbone.update(SMALL["resnet"])
    blue_first, red_first = create_model(config.model), create_model(config.model)
    kernel = red_first.backbone.conv1.conv.kernel
    kernel.set_value(np.asarray(kernel.get_value())[:, :, ::-1])
    settings = config.model.input
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    run = nnx.jit(lambda model, image: model(image).main)
    ours = run(blue_first, Normalisation.from_config(settings)(image))
    settings.update({"bgr": False, "mean": settings.mean[::-1], "std": settings.std[::-1]})
    assert_allclose(ours, run(red_first, Normalisation.from_config(settings)(image)), rtol=1e-4, atol=1e-5)
