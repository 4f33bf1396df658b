from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks.sampling import corners, derived
from ovenet_jax.devices import parallel
from ovenet_jax.models.sampling import pixel_grid, sample, seed_positions
from tests.collectives import collectives


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
    gradient = jax.jit(jax.grad(lambda x: sample(values, jnp.stack([x, 0.0 * x])[None, None, None]).sum()))(x)
    assert_allclose(gradient, slope)  # one pixel is one unit of the normalised x here, and the values rise by 1


@partial(jax.jit, static_argnums=0)
def read_and_gradients(form, values, positions):
    """What is read, and the gradients to values and positions of its product with fixed numbers."""
    read, backward = jax.vjp(form, values, positions)
    return read, *backward(jnp.cos(jnp.arange(read.size)).reshape(read.shape).astype(read.dtype))


def positions_everywhere(height, width):
    """Between pixels, on them, on the border and beyond it: [2, 7, 9, 2], float64."""
    rng = np.random.default_rng(2)
    positions = rng.uniform(-1.3, 1.3, (2, 7, 9, 2))
    on_pixels = rng.integers(0, (width, height), (2, 7, 9, 2)) / np.maximum((width - 1, height - 1), 1) * 2 - 1
    return np.where(rng.random((2, 7, 9, 1)) < 0.5, positions, on_pixels)


@pytest.mark.parametrize("form", [derived, corners])
@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 7), (5, 1)])
def test_the_gradient_is_the_one_jax_derives(form, height, width):
    with jax.enable_x64(True):
        values = jnp.asarray(np.random.default_rng(0).normal(size=(2, height, width, 3)))
        arrays = values, jnp.asarray(positions_everywhere(height, width))
        for ours, expected in zip(read_and_gradients(sample, *arrays), read_and_gradients(form, *arrays), strict=True):
            assert ours.dtype == expected.dtype == jnp.float64
            assert_allclose(ours, expected, atol=1e-13)


def test_gradients_have_the_types_of_what_they_belong_to():
    values = random_map().astype(jnp.bfloat16)
    positions = jnp.asarray(positions_everywhere(5, 7), jnp.float32)
    results = read_and_gradients(sample, values, positions)
    assert [x.dtype for x in results] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    in_float32 = read_and_gradients(sample, values.astype(jnp.float32), positions)
    for result, expected in zip(results, in_float32, strict=True):
        assert_allclose(result.astype(jnp.float32), expected, rtol=0.02, atol=0.02)


def test_channels_may_be_sampled_apart():
    values, positions = random_map(), jnp.asarray(positions_everywhere(5, 7), jnp.float32)
    apart = jax.vmap(lambda channel, p: sample(channel[..., None], p)[..., 0], (-1, None), -1)
    for one, other in zip(
        read_and_gradients(apart, values, positions), read_and_gradients(sample, values, positions), strict=True
    ):
        assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_batch_split_over_devices_is_sampled_where_it_lies():
    mesh = parallel.create_mesh()
    values = np.random.default_rng(0).normal(size=(8, 5, 7, 3)).astype(np.float32)
    positions = np.tile(positions_everywhere(5, 7), (4, 1, 1, 1)).astype(np.float32)
    arrays = jax.device_put((values, positions), parallel.batch_sharded(mesh))
    compiled = jax.jit(lambda *arrays: read_and_gradients(sample, *arrays)).lower(*arrays).compile()
    assert not list(collectives(compiled.as_text()))
    for result, whole in zip(compiled(*arrays), read_and_gradients(sample, values, positions), strict=True):
        assert len(result.addressable_shards) == 8 and result.addressable_shards[0].data.shape[0] == 1
        assert_allclose(result, whole, atol=1e-5)


def test_labels_are_read_as_they_are():
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 5, 7, 1)), jnp.int32)
    read = sample(labels, seed_positions(pixels(1, 0)), order=0)
    assert read.dtype == jnp.int32
    np.testing.assert_array_equal(read[:, :, :-1], labels[:, :, 1:])


def test_the_grid_spans_the_corner_pixels_x_first():
    grid = pixel_grid((3, 5))
    assert_allclose(grid[0, 0], [-1, -1])
    assert_allclose(grid[0, 4], [1, -1])
    assert_allclose(grid[2, 0], [-1, 1])
