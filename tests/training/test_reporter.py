"""What is collected between reports."""

import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.devices import parallel
from ovenet_jax.training.reporter import empty_averages


def test_training_metrics_average_over_the_steps_that_count():
    collected = empty_averages(parallel.create_mesh(), ["loss_total"])

    @jax.jit
    def add(collected, loss, counts):
        measures = {"loss_total": loss[None], "learning_rate": loss[None]}
        return collected.merge(collected.single_from_model_output(**measures, mask=counts[None]))

    for loss, counts in ((1.0, True), (np.nan, False), (4.0, True), (np.inf, False)):
        collected = add(collected, jnp.float32(loss), jnp.asarray(counts))
    assert collected.compute() == {"loss_total": 2.5, "learning_rate": 2.5}
