"""Intervals and tests of benchmarks.resampling: worked values, and how often intervals hold the truth."""

import numpy as np
import pytest

from benchmarks import resampling


def test_iou_of_counts_in_blocks():
    true = np.array([[6, 2], [4, 0]])
    correct, predicted = np.array([[[5, 1], [2, 0]]]), np.array([[[6, 2], [3, 1]]])
    np.testing.assert_allclose(resampling.mean_ious(true, correct, predicted), [[7 / 12, 1 / 4]])
    blocks = np.array([[2, 0], [0, 2]])  # each block twice, the other never
    drawn = resampling.mean_ious(true, correct, predicted, blocks)
    np.testing.assert_allclose(drawn, [[[5 / 7, 1 / 3]], [[2 / 5, 0]]])


def test_draws_are_the_same_each_time_and_keep_the_size_of_every_stratum():
    strata = ["a"] * 7 + ["b"] * 17
    draws, again = (resampling.draw(8, strata, resamples=200) for _ in range(2))
    np.testing.assert_array_equal(draws.blocks, again.blocks)
    assert (draws.seeds.sum(1) == 8).all() and draws.seeds.shape == (200, 8)
    assert (draws.blocks[:, :7].sum(1) == 7).all() and (draws.blocks[:, 7:].sum(1) == 17).all()
    assert draws.blocks.std() > 0.5
    assert (resampling.draw(8, strata, resamples=200, fixed_images=True).blocks == 1).all()


def test_mean_over_drawn_seeds():
    draws = resampling.Draws(seeds=np.array([[2, 0], [1, 1]]), blocks=np.ones((2, 3)))
    values = np.array([[1.0, 3.0], [1.0, 3.0]])
    np.testing.assert_allclose(resampling.over_seeds(values, draws), [1, 2])
    np.testing.assert_allclose(resampling.over_seeds(values[..., None], draws), [[1], [2]])


def coverage(seed_spread: float, block_spread: float, noise: float, fixed_images: bool) -> float:
    """How often intervals of 95 % hold the mean that experiments of 8 seeds and 24 blocks were drawn around, 0."""
    generator, held, trials = np.random.default_rng(1), 0, 400
    draws = resampling.draw(8, ["a"] * 7 + ["b"] * 17, resamples=500, fixed_images=fixed_images)
    weights = draws.blocks / draws.blocks.sum(1, keepdims=True)
    for _ in range(trials):
        values = seed_spread * generator.normal(size=(8, 1)) + block_spread * generator.normal(size=(1, 24))
        values = values + noise * generator.normal(size=(8, 24))
        resampled = resampling.over_seeds(weights @ values.T, draws)
        _, low, high = resampling.interval(values.mean(), resampled, seeds=8)
        held += low <= 0 <= high
    return held / trials


@pytest.mark.parametrize("spreads", [(1, 0, 1), (0.5, 1, 1), (1, 1, 0.3)])
def test_intervals_of_seeds_and_images_hold_the_truth(spreads):
    assert 0.935 <= coverage(*spreads, fixed_images=False) <= 0.995


def test_intervals_of_seeds_alone_hold_it_where_images_do_not_differ():
    assert 0.93 <= coverage(1, 0, 1, fixed_images=True) <= 0.975
    assert coverage(0.5, 2, 1, fixed_images=True) < 0.7


def test_an_interval_of_the_same_value_everywhere_is_a_point():
    found = resampling.interval(np.array(0.5), np.full(100, 0.5), seeds=8)
    assert found == (0.5, 0.5, 0.5)
    assert np.ptp(resampling.interval(np.array(0.0), np.arange(3.0), 8, level=0.99)) > np.ptp(
        resampling.interval(np.array(0.0), np.arange(3.0), 8, level=0.95)
    )


def test_sign_flip():
    assert resampling.sign_flip_p(np.full(8, 0.3)) == 2 / 256
    assert resampling.sign_flip_p(np.array([1.0, -1.0])) == 1
    # of (3, 1): means 2 and 1 with either sign
    assert resampling.sign_flip_p(np.array([3.0, 1.0])) == 2 / 4
    # (5, 4, -1): only +-(5, 4, 1) and +-(5, 4, -1) are as large
    assert resampling.sign_flip_p(np.array([5.0, 4.0, -1.0])) == 4 / 8


def test_holm():
    np.testing.assert_allclose(resampling.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert resampling.holm([2 / 256] * 4) == [8 / 256] * 4
    assert resampling.holm([0.9, 0.8]) == [1, 1]
