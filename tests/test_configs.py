import jax
import numpy as np
import pytest

from configs import camvid, cityscapes, demo
from ovenet_jax.errors import UserError
from ovenet_jax.inference import Normalisation
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.optimizer import create_optimizer
from ovenet_jax.step import create_loss, init_state, train_step


@pytest.mark.parametrize("file", [demo, camvid, cityscapes], ids=lambda file: file.__name__)
def test_an_unknown_variant_is_answered_with_the_known_ones(file):
    with pytest.raises(UserError, match="'deeplab' is unknown; choose one of ovenet, hrnet_ocr, hrnet"):
        file.get_config("deeplab")


def test_cityscapes_trains_as_published():
    config = cityscapes.get_config()
    assert (config.augment.crop, config.augment.base_size, config.augment.scale_factor) == (
        (512, 1024),
        2048,
        16,
    )
    assert (config.optimizer.rate, config.optimizer.weight_decay, config.batch_size) == (0.01, 5e-4, 10)
    assert config.steps == 484 * 347
    assert (config.model.offset.threshold, config.model.offset.branch, config.model.offset.modules) == (
        0.2,
        4,
        (2,),
    )
    assert len(config.loss.class_weights) == config.model.num_classes == 19


@pytest.mark.parametrize("variant", ["ovenet", "hrnet_ocr", "hrnet"])
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
    optimizer = create_optimizer(lambda _: 0.01, weight_decay=5e-4)
    graphdef, *_ = parameters.split(model)

    def step(state, image, label):
        return train_step(
            state,
            image,
            label,
            graphdef=graphdef,
            optimizer=optimizer,
            loss=create_loss(config),
            normalisation=Normalisation(),
            align_corners=config.model.align_corners,
            seed=0,
        )

    return (
        step,
        init_state(model, optimizer),
        np.zeros((2, 64, 128, 3), np.uint8),
        np.zeros((2, 64, 128), np.uint8),
    )
