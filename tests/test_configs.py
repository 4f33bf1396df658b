import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from configs import acdc, ade20k, cityscapes, coco_stuff, demo, lip, pascal_context
from ovenet_jax.data import pipeline
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.contracts import Logits
from ovenet_jax.models.ovenet import OVeNetOutput
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run.state import init_state
from ovenet_jax.supervision.task import task_of
from ovenet_jax.training.optimizer import create_optimizer
from ovenet_jax.training.step import train_step
from tests.config_files import FILES, variants
from tests.imagenet import NORMALISATION


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__)
def test_an_unknown_variant_is_answered_with_the_known_ones(file):
    with pytest.raises(UserError, match="'deeplab' is unknown; choose one of ovenet, hrnet_ocr, hrnet"):
        file.get_config("deeplab")


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
    assert (config.model.num_classes, config.loss.class_weights) == (1 + 8, ())


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
    assert_allclose(task_of(config).create_loss()(output, label)["initial"], losses[0], rtol=1e-6)
    config.loss.ohem.softmax_again = True
    assert_allclose(task_of(config).create_loss()(output, label)["initial"], losses.mean(), rtol=1e-6)
    config.loss.ohem.softmax_again, config.model.offset.logits = False, True
    assert_allclose(task_of(config).create_loss()(output, label)["initial"], losses.mean(), rtol=1e-6)


@pytest.mark.parametrize("variant", ["ovenet", "hrnet_ocr", "thesis"])
def test_a_step_of_full_width_cityscapes_traces(variant):
    """Shapes only: compiling it takes a minute (test_full_width_cityscapes_takes_a_step)."""
    state, measures = jax.eval_shape(*full_width_step(variant))
    assert state.step.shape == ()
    assert "loss_total" in measures


@pytest.mark.slow
def test_full_width_cityscapes_takes_a_step():
    function, state, image, label = full_width_step("ovenet")
    after, measures = jax.jit(function)(state, image, label)
    assert np.isfinite(measures["loss_total"])
    assert after.step == 1


def full_width_step(variant):
    """(train_step, its arguments) of a published network on a crop of 64x128."""
    config = cityscapes.get_config(variant)
    config.batch_size = 2
    model = create_model(config.model)
    optimizer = create_optimizer(lambda _: 0.01, momentum=0.9, weight_decay=5e-4)
    graphdef, *_ = parameters.split(model)

    def step(state, image, label):
        return train_step(
            state,
            image,
            label,
            graphdef=graphdef,
            optimizer=optimizer,
            loss=task_of(config).create_loss(),
            measure=task_of(config).measure,
            normalisation=NORMALISATION,
            seed=0,
        )

    return (step, init_state(model, optimizer), np.zeros((2, 64, 128, 3), np.uint8), np.zeros((2, 64, 128), np.uint8))
