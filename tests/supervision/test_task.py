"""What a network learns is one object: its classes are those of the network's answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from configs import camvid
from ovenet_jax.models.predictions import TITLES, in_order
from ovenet_jax.models.zoo import create_model
from ovenet_jax.supervision.task import task_of
from tests.camvid_tree import write_tree


@pytest.mark.parametrize(
    ("variant", "answer", "parts"),
    [("hrnet_tiny", "main", set()), ("ovenet_tiny", "fused", {"initial", "seed"}), ("segfix_tiny", "offset", set())],
)
def test_an_output_names_its_answer_whose_scores_are_of_the_classes_that_are_learned(variant, answer, parts):
    config = camvid.get_config(variant)
    task, image = task_of(config), jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32)
    model = create_model(config.model)
    names: list[str] = []

    def predictions_of(image):
        predictions = model(image).predictions
        names.extend(predictions)
        return predictions

    predictions = jax.eval_shape(predictions_of, image)
    assert names[-1] == answer
    assert predictions.keys() == {answer, *parts}
    for scores in predictions.values():
        assert scores.shape == (2, 8, 12, len(task.classes.names))
        class_map = jax.eval_shape(task.class_map, scores)
        assert (class_map.shape, class_map.dtype) == ((2, 8, 12), np.uint8)
    assert task.gives_offsets == (variant != "hrnet_tiny")


def test_predictions_have_one_order_though_jit_sorts_them():
    sorted_by_name = jax.jit(lambda: {"seed": 1, "initial": 0, "fused": 2})()
    assert list(sorted_by_name) == ["fused", "initial", "seed"]
    assert list(in_order(sorted_by_name)) == [name for name in TITLES if name in sorted_by_name]
    with pytest.raises(ValueError, match="'other'"):
        in_order({"other": 3})


def test_class_weights_are_those_of_the_config_or_of_the_pixels_of_the_training_split(tmp_path):
    config = camvid.get_config("hrnet_tiny")
    config.data.update(write_tree(tmp_path))
    config.loss.class_weights = (1.0,) * 11
    assert task_of(config).class_weights == (1.0,) * 11
    config.loss.class_weights, config.loss.enet_weights = (), True
    task = task_of(config)
    pixels = task.prepare()["splits"]["train"]["pixels"]
    assert len(set(pixels)) > 1
    assert_allclose(task.class_weights, 1 / np.log(1.02 + np.array(pixels) / sum(pixels)))
    task.create_loss()
