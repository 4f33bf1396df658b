"""Networks that are traced, to see shapes without compiling."""

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.supervision.task import task_of


def loss(config: ConfigDict, size: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """The terms of the loss of two images in training mode, as shapes: nothing is compiled."""
    model, terms_of = create_model(config.model), task_of(config).create_loss()
    model.train()
    image, label = np.zeros((2, *size, 3), np.float32), np.zeros((2, *size), np.uint8)
    graphdef, *arrays = parameters.split(model)

    def terms(*arrays):
        return terms_of(parameters.merge(graphdef, *arrays)(image, nnx.Rngs(dropout=0)), label)

    return jax.eval_shape(terms, *arrays)
