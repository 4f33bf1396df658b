"""What every evaluation measures."""

from contextlib import nullcontext
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import camvid
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation.evaluator import Batch, Scores
from ovenet_jax.evaluation.inference import Segmentation
from ovenet_jax.evaluation.inspection import inspect
from ovenet_jax.evaluation.results import Evaluation
from ovenet_jax.supervision.task import task_of


@pytest.mark.parametrize("logits", [None, False])
def test_the_loss_is_the_weighted_mean_over_the_labelled_pixels_of_all_images(logits):
    """Whether scores are logits or, where no pass covers the whole image, probabilities."""
    config = camvid.get_config("fcn_r_tiny")
    config.model.num_classes, config.loss.class_weights = 2, (1.0, 3.0)
    scores = Scores(config, task_of(config))

    def evaluated(probability, label) -> Evaluation:
        shares = jnp.asarray(probability)[None, None]
        label = jnp.asarray(label, jnp.uint8)[None, None]
        maps = {"main": shares if logits is False else jnp.log(shares) + 5}
        batch = Batch([], Segmentation({}, "main", maps, None, None, logits), {"main": label}, label, label, [])
        sample = {"index": 0, "name": "", "group": ""}
        return scores.found([sample], jax.device_get(scores.measure(batch)))

    first = evaluated([[0.5, 0.5], [0.2, 0.8], [0.0, 1.0]], [0, 1, IGNORE])
    second = evaluated([[0.1, 0.9], [0.4, 0.6]], [0, 0])
    expected = -(np.log(0.5) + 3 * np.log(0.8) + np.log(0.1) + np.log(0.4)) / (1 + 3 + 1 + 1)
    assert first.plus(second).losses == {"main": pytest.approx(expected)}
    assert evaluated([[0.5, 0.5]], [IGNORE]).losses == {}


def test_too_little_memory_for_the_images_of_a_report_is_told_with_what_helps():
    def batches(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 5 GB")

    evaluator = SimpleNamespace(config=camvid.get_config("hrnet"), samples=nullcontext, batches=batches)
    with pytest.raises(UserError, match="too little memory .* lower config.eval.images_per_device"):
        inspect(evaluator, {}, {}, [0])
