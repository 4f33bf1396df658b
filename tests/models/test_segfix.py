"""SegFix as a network: what its scores mean, its loss and its measures. test_goldens.py has the published numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from configs import camvid
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.errors import UserError
from ovenet_jax.models.segfix import SegFixOutput, offset_classes
from ovenet_jax.models.zoo import create_model
from ovenet_jax.segfix.labels import evaluation_classes, training_classes
from ovenet_jax.supervision.losses import segfix_loss
from ovenet_jax.supervision.measures import confusion_matrix, offset_measures, offset_scores
from ovenet_jax.supervision.task import task_of

RNG = np.random.default_rng(0)
OUTPUT = SegFixOutput(
    jnp.asarray(RNG.normal(size=(2, 6, 8, 2)), jnp.float32), jnp.asarray(RNG.normal(size=(2, 6, 8, 8)), jnp.float32)
)
LABEL = np.where(RNG.random((2, 6, 8)) < 0.1, IGNORE, RNG.integers(0, 16, (2, 6, 8))).astype(np.uint8)


def test_a_pixel_has_an_offset_where_a_boundary_is_more_probable_than_not():
    found = offset_classes(OUTPUT.predictions["offset"])
    near = np.asarray(OUTPUT.boundary[..., 1] > OUTPUT.boundary[..., 0])
    assert 0.2 < near.mean() < 0.8
    assert_array_equal(found, np.where(near, 1 + np.argmax(OUTPUT.direction, -1), 0))


def test_scores_of_offsets_by_hand():
    matrix = np.zeros((9, 9), np.int64)
    matrix[0, 0], matrix[0, 2], matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[2, 2] = 50, 4, 6, 8, 2, 10
    precision, recall = 20 / 24, 20 / 26  # near a boundary: 24 predicted, 26 true, 20 both
    scores = offset_scores(matrix)
    assert scores["boundary_f"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores["direction_accuracy"] == pytest.approx(18 / 20)
    assert offset_scores(np.zeros((9, 9))) == {"boundary_f": None, "direction_accuracy": None}  # nothing is labelled


def test_a_step_measures_what_an_evaluation_of_its_batch_would():
    measures = offset_measures(OUTPUT, jnp.asarray(LABEL), align_corners=True)
    tested = evaluation_classes(8).train_ids()[LABEL]
    found = offset_classes(OUTPUT.predictions["offset"])
    matrix = confusion_matrix(tested, found, 9)
    assert measures.keys() == {"boundary_f", "direction_accuracy"}
    for name, value in offset_scores(matrix).items():
        assert 0 < value < 1
        assert_allclose(measures[name], value, rtol=1e-6)


def test_rare_classes_weigh_more_and_directions_count_where_a_boundary_is_predicted():
    log = np.log
    boundary = np.array([[0, 0, 0, 1, 1, IGNORE]])[None]
    direction = np.array([[3, 5, 5, 5, 3, 5]])[None]
    is_near = np.array([0.2, 0.9, 0.4, 0.7, 0.6, 0.9])  # predicted
    right_way = np.array([0.5, 0.25, 0.5, 0.5, 0.8, 0.5])  # of the true direction; the others share the rest
    scores = np.full((6, 8), (1 - right_way[:, None]) / 7)
    scores[np.arange(6), direction[0, 0]] = right_way
    output = SegFixOutput(
        jnp.asarray(log(np.stack([1 - is_near, is_near], -1)))[None, None], jnp.asarray(log(scores))[None, None]
    )
    label = np.where(boundary == IGNORE, IGNORE, direction + 8 * boundary)
    terms = jax.jit(partial(segfix_loss, align_corners=True))(output, label)

    weights = np.array([0.4, 0.4, 0.4, 0.6, 0.6])  # 3 and 2 of 5
    of_boundary = -log(np.where(boundary[0, 0] == 1, is_near, 1 - is_near))[:5]
    assert_allclose(terms["boundary"], (weights * of_boundary).sum() / weights.sum(), rtol=1e-5)
    weights = np.array([1 / 3, 1 / 3, 2 / 3])  # of pixels 1, 3 and 4: directions 5, 5 and 3
    of_direction = -log(right_way[[1, 3, 4]])
    assert_allclose(terms["direction"], (weights * of_direction).sum() / weights.sum(), rtol=1e-5)
    assert_allclose(terms["total"], terms["boundary"] + terms["direction"], rtol=1e-6)


@pytest.mark.parametrize("directions", [4, 16])
def test_another_number_of_directions_is_another_number_of_classes(directions):
    config = camvid.get_config("segfix_tiny")
    config.model.num_classes = 1 + directions
    output = jax.eval_shape(create_model(config.model), jnp.zeros((1, 32, 32, 3)))
    assert output.direction.shape == (1, 8, 8, directions)
    assert len(training_classes(directions).names) == 2 * directions


def test_what_a_segfix_cannot_have_is_named():
    config = camvid.get_config("segfix_tiny")
    config.model.num_classes = 11
    for use in (lambda: create_model(config.model), lambda: task_of(config).classes):
        with pytest.raises(UserError, match="num_classes is 11; for SegFix .* number of directions: 5, 9, 17, 33"):
            use()
