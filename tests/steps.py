"""Training steps of configs, and what they take."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from ovenet_jax.models import parameters
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run.state import init_state
from ovenet_jax.supervision.task import task_of
from ovenet_jax.training.optimizer import create_optimizer
from ovenet_jax.training.step import train_step


def step_of(config: ConfigDict, model: nnx.Module, optimizer: optax.GradientTransformation, **options: Any) -> Callable:
    """(state, image, label) -> (state, measures). options: others of train_step."""
    return partial(
        train_step,
        graphdef=parameters.split(model)[0],
        optimizer=optimizer,
        loss=task_of(config).create_loss(),
        measure=task_of(config).measure,
        normalisation=Normalisation.from_config(config.model.input),
        seed=0,
        **options,
    )


def first_step(config: ConfigDict, size: tuple[int, int]) -> tuple:
    """The step of a config's network, and its arguments: the first state, and random crops of `size` with classes 0 to
    7."""
    model = create_model(config.model)
    optimizer = create_optimizer(lambda _: 0.01, momentum=0.9, weight_decay=0.0)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (config.batch_size, *size, 3), np.uint8)
    label = rng.integers(0, 8, (config.batch_size, *size), np.uint8)
    return step_of(config, model, optimizer), init_state(model, optimizer), image, label
