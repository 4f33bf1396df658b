import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from ovenet_jax.models.sampling import pixel_grid, sample, seed_positions


def random_map(height=5, width=7, channels=3):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, height, width, channels)), jnp.float32)


def pixels(dx, dy, height=5, width=7):
    """An offset of whole pixels everywhere, [2, height, width, 2], x first."""
    offset = jnp.asarray([2 * dx / (width - 1), 2 * dy / (height - 1)])
    return jnp.broadcast_to(offset, (2, height, width, 2))


def test_zero_offsets_read_the_pixel_itself():
    values = random_map()
    assert_allclose(sample(values, seed_positions(pixels(0, 0))), values, atol=1e-6)


def test_an_offset_of_one_pixel_right_reads_the_right_neighbour():
    values = random_map()
    read = sample(values, seed_positions(pixels(1, 0)))
    assert_allclose(read[:, :, :-1], values[:, :, 1:], atol=1e-5)
    assert_allclose(read[:, :, -1], values[:, :, -1], atol=1e-5)  # the border repeats


def test_an_offset_of_one_pixel_down_reads_the_lower_neighbour():
    values = random_map()
    assert_allclose(sample(values, seed_positions(pixels(0, 1)))[:, :-1], values[:, 1:], atol=1e-5)


def test_mirrored_values_and_offsets_give_the_mirrored_result():
    values = random_map()
    offset = 0.3 * jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 7, 2)), jnp.float32)
    mirrored = offset[:, :, ::-1] * jnp.asarray([-1.0, 1.0])
    expected = sample(values, seed_positions(offset))[:, :, ::-1]
    assert_allclose(sample(values[:, :, ::-1], seed_positions(mirrored)), expected, atol=1e-5)


def test_without_aligned_corners_zero_offsets_do_not_read_the_pixel_itself():
    values = random_map()
    read = sample(values, seed_positions(pixels(0, 0)), align_corners=False)
    assert jnp.abs(read - values).max() > 0.1


def test_zeros_padding_fades_to_zero_outside():
    values = jnp.ones((1, 3, 3, 1))
    half_a_pixel_out = jnp.asarray([[[[1.5, 0.0]]]])
    assert_allclose(sample(values, half_a_pixel_out, padding="zeros"), 0.5, atol=1e-6)
    assert_allclose(sample(values, half_a_pixel_out, padding="border"), 1.0, atol=1e-6)


def test_nearest_sends_a_tie_to_the_even_pixel():
    values = jnp.arange(5.0).reshape(1, 1, 5, 1)
    x = jnp.asarray([0.5, 1.5, 2.5]) / 2 - 1  # pixel coordinates to normalised ones
    positions = jnp.stack([x, jnp.zeros(3)], -1)[None, None]
    assert_allclose(sample(values, positions, order=0).ravel(), [0, 2, 2])


@pytest.mark.parametrize(("x", "slope"), [(-1.0, 0.0), (-1.5, 0.0), (0.25, 1.0), (1.0, 0.0), (1.2, 0.0)])
def test_a_position_on_or_beyond_the_border_gets_no_gradient(x, slope):
    values = jnp.arange(3.0).reshape(1, 1, 3, 1)
    gradient = jax.grad(lambda x: sample(values, jnp.stack([x, 0.0 * x])[None, None, None]).sum())(x)
    assert_allclose(
        gradient, slope
    )  # one pixel is one unit of the normalised x here, and the values rise by 1


def test_the_grid_spans_the_corner_pixels_x_first():
    grid = pixel_grid(3, 5)
    assert_allclose(grid[0, 0], [-1, -1])
    assert_allclose(grid[0, 4], [1, -1])
    assert_allclose(grid[2, 0], [-1, 1])
