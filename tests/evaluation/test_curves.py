"""Where a network is right, by distance to a boundary and by probability."""

import jax.numpy as jnp
import numpy as np

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation.curves import DISTANCES, by_distance, by_probability, distance_bins
from ovenet_jax.evaluation.results import Evaluation


def test_distance_is_to_the_nearest_pixel_that_touches_another_class():
    label = np.repeat([[0] * 6 + [1] * 6], 3, axis=0).astype(np.uint8)
    distances = [5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5]
    bins = [sum(distance >= end for end in DISTANCES) for distance in distances]
    assert distance_bins(label).tolist() == [bins] * 3
    assert bins[:6] == [3, 3, 2, 2, 1, 0]


def test_without_a_boundary_all_is_far():
    assert (distance_bins(np.zeros((4, 5), np.uint8)) == len(DISTANCES)).all()


def test_ignored_pixels_have_no_boundary():
    label = np.zeros((4, 8), np.uint8)
    label[:, 4:] = IGNORE
    assert (distance_bins(label) == len(DISTANCES)).all()


def test_counts_by_distance():
    label = jnp.array([[0, 0, 1, IGNORE]], jnp.uint8)
    class_map = jnp.array([[0, 1, 1, 1]], jnp.uint8)
    bins = jnp.array([[1, 0, 0, 0]], jnp.uint8)
    counts = by_distance(class_map, label, bins)
    assert counts[:2].tolist() == [[2, 0, 1], [1, 0, 1]]
    assert counts[2:].sum() == 0


def test_counts_by_probability():
    probability = jnp.array([0.02, 0.04, 1.0, 0.97, 0.5])
    right = jnp.array([False, True, True, True, True])
    counts = np.asarray(by_probability(probability, right, jnp.array([True, True, True, True, False])))
    np.testing.assert_allclose(counts[0], [2, 0.06, 1], rtol=1e-6)
    np.testing.assert_allclose(counts[-1], [2, 1.97, 2], rtol=1e-6)
    assert counts[1:-1].sum() == 0


def test_sums():
    a, b = np.ones((2, 3)), np.full((2, 3), 2.0)
    total = Evaluation(sums={"x": a}).plus(Evaluation(sums={"x": b, "y": b})).sums
    np.testing.assert_array_equal(total["x"], np.full((2, 3), 3.0))
    np.testing.assert_array_equal(total["y"], b)
