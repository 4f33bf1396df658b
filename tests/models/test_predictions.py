"""What scores say: the most probable classes of a pixel."""

import jax.numpy as jnp
import numpy as np

from ovenet_jax.models.predictions import ranking
from ovenet_jax.models.segfix import offset_classes, offset_probabilities
from ovenet_jax.supervision.measures import most_probable


def test_the_most_probable_classes_come_first():
    shares = jnp.array([[[0.1, 0.4, 0.2, 0.3]]])
    found = ranking(shares, most_probable(shares), 3)
    assert found.classes.tolist() == [[[1, 3, 2]]]
    np.testing.assert_allclose(found.probabilities, [[[0.4, 0.3, 0.2]]], rtol=1e-6)


def test_of_two_classes_there_is_no_third():
    shares = jnp.array([[[0.25, 0.75]]])
    found = ranking(shares, most_probable(shares), 3)
    assert found.classes.tolist() == [[[1, 0]]]
    assert found.probabilities.tolist() == [[[0.75, 0.25]]]


def test_segfix_decides_on_boundaries_before_directions():
    """Interior has 0.3, a boundary 0.7, of which no direction has as much as 0.3."""
    scores = jnp.array([[0.3 - 0.7, 1.0, 1.0, 1.1]])
    found = ranking(offset_probabilities(scores), offset_classes(scores), 4)
    assert found.classes[0, 0] == offset_classes(scores)[0] == 3
    assert found.classes[0, 1] == 0
    np.testing.assert_allclose(found.probabilities[0, 1], 0.3, rtol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(), 1, rtol=1e-6)
