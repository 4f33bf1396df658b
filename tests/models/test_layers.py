import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from ovenet_jax.models import parameters
from ovenet_jax.models.layers import BatchNorm, Conv, InitialValues, relu, relu_of_sum, resize_bilinear


def test_resize_with_aligned_corners_keeps_the_corners_and_is_linear_between():
    x = jnp.asarray([0.0, 3.0, 6.0]).reshape(1, 1, 3, 1)
    assert_allclose(resize_bilinear(x, (1, 7), align_corners=True)[0, 0, :, 0], np.arange(7.0), atol=1e-6)


def test_resize_without_aligned_corners_samples_at_pixel_centres():
    x = jnp.asarray([0.0, 4.0]).reshape(1, 2, 1, 1)
    assert_allclose(resize_bilinear(x, (4, 1), align_corners=False)[0, :, 0, 0], [0, 1, 3, 4], atol=1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
def test_resize_of_a_constant_is_constant(align_corners):
    x = jnp.full((2, 5, 7, 3), 2.5)
    assert_allclose(resize_bilinear(x, (11, 3), align_corners=align_corners), 2.5, rtol=1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(20, 29), (3, 14), (5, 50), (1, 1)])
def test_resize_by_neighbours_is_the_product_with_its_matrix(size, align_corners, on_a_gpu):
    x, gradient = (np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32) for sides in ((5, 7), size))

    def values_and_gradient():
        y, pull_back = jax.vjp(lambda x: resize_bilinear(x, size, align_corners=align_corners), x)
        return y, *pull_back(gradient)

    by_product = values_and_gradient()
    on_a_gpu()
    for ours, expected in zip(values_and_gradient(), by_product, strict=True):
        assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_strided_convolution_pads_both_sides():
    conv = Conv(1, 1, 3, stride=2, init=InitialValues(0, he=False))
    conv.kernel.set_value(jnp.ones((3, 3, 1, 1)))
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    # The window around pixel (0, 0) covers the top left 2x2 and zeros: 0 + 1 + 4 + 5.
    assert_allclose(conv(x)[0, :, :, 0], [[10, 24], [51, 90]])


def test_convolution_computes_in_the_type_of_its_input():
    conv = Conv(2, 3, 1, bias=True, init=InitialValues(0, he=False))
    assert conv(jnp.ones((1, 2, 2, 2), jnp.bfloat16)).dtype == jnp.bfloat16


def test_default_initial_values_are_bounded_by_the_fan_in():
    conv = Conv(16, 32, 3, bias=True, in_head=True, init=InitialValues(0, he=False))
    bound = 1 / np.sqrt(16 * 9)
    for values in (conv.kernel.get_value(), conv.bias.get_value()):
        assert 0.9 * bound < np.abs(values).max() <= bound


def test_batch_norm_keeps_the_unbiased_variance_and_normalises_with_the_biased_one():
    norm = BatchNorm(1, eps=0.0)
    norm.train()
    x = jnp.asarray([1.0, 3.0]).reshape(2, 1, 1, 1)  # mean 2, biased variance 1, unbiased 2
    assert_allclose(norm(x).ravel(), [-1, 1], atol=1e-6)
    assert_allclose(norm.mean.get_value(), 0.9 * 0 + 0.1 * 2, rtol=1e-6)
    assert_allclose(norm.var.get_value(), 0.9 * 1 + 0.1 * 2, rtol=1e-6)


def test_batch_norm_in_evaluation_uses_and_keeps_the_stored_statistics():
    norm = BatchNorm(1, eps=0.0)
    norm.mean.set_value(jnp.asarray([1.0]))
    norm.var.set_value(jnp.asarray([4.0]))
    norm.eval()
    assert_allclose(norm(jnp.full((1, 1, 1, 1), 5.0)), 2.0)
    assert_allclose(norm.mean.get_value(), 1.0)


def test_batch_norm_takes_its_statistics_in_float32():
    norm = BatchNorm(1)
    norm.train()
    x = 1000 + jnp.arange(4096.0).reshape(1, 64, 64, 1) / 4096
    assert norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert norm.mean.get_value().dtype == norm.var.get_value().dtype == jnp.float32


def test_batch_norm_has_the_gradient_that_jax_derives():
    rng = np.random.default_rng(0)
    x, to_y = rng.normal(3, 2, (2, 3, 4, 3, 5))
    scale, bias = rng.normal(1, 0.3, (2, 5))
    norm = BatchNorm(5)
    norm.train()
    graphdef, _, statistics = parameters.split(norm)

    def ours(x, scale, bias):
        return parameters.merge(graphdef, {"scale": scale, "bias": bias}, statistics)(x)

    def plain(x, scale, bias):
        return (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + norm.eps) * scale + bias

    with jax.enable_x64(True):
        gradients, expected = (
            jax.jit(lambda *given, function=function: jax.vjp(function, *given)[1](to_y))(x, scale, bias)
            for function in (ours, plain)
        )
        for gradient, derived in zip(gradients, expected, strict=True):
            assert_allclose(gradient, derived, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dtype", "mean", "tolerance"), [("float32", 1000, 1e-3), ("bfloat16", 100, 1e-2)])
def test_batch_norm_is_exact_where_the_mean_is_far_beyond_the_deviation(dtype, mean, tolerance):
    norm = BatchNorm(2)
    norm.train()
    x = jnp.asarray(np.random.default_rng(0).normal(mean, 1, (4, 64, 64, 2)), dtype)
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
    assert_allclose(np.asarray(norm(x), np.float64), expected, rtol=tolerance, atol=tolerance)
    count = exact.size // 2
    var = exact.var((0, 1, 2)) * count / (count - 1)
    assert_allclose(norm.var.get_value(), 0.9 + 0.1 * var, rtol=tolerance)


def test_he_values_keep_the_variance_and_published_ones_are_tiny():
    shape = (3, 3, 32, 64)
    assert_allclose(InitialValues(0, he=False).backbone_kernel(shape).std(), 0.001, rtol=0.02)
    assert_allclose(InitialValues(0, he=True).backbone_kernel(shape).std(), np.sqrt(2 / (9 * 32)), rtol=0.02)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_relu_has_no_gradient_at_zero_and_hides_no_nan(dtype):
    x = jnp.asarray([-2.0, -0.0, 0.0, 3.0, jnp.nan, jnp.inf], dtype)
    assert relu(x).dtype == dtype
    np.testing.assert_array_equal(np.asarray(relu(x), np.float32), [0, 0, 0, 3, np.nan, np.inf])
    np.testing.assert_array_equal(jax.grad(lambda x: relu(x).sum())(x), [0, 0, 0, 1, 1, 1])


def test_relu_of_a_sum_is_relu_with_its_gradient_for_each_summand():
    x = jnp.asarray([-2.0, -0.0, 1.0, 3.0, jnp.nan, jnp.inf])
    y = jnp.asarray([1.0, 0.0, -1.0, 0.5, 1.0, 1.0])
    values, gradients = jax.vjp(relu_of_sum, x, y)
    np.testing.assert_array_equal(values, relu(x + y))
    np.testing.assert_array_equal(gradients(jnp.full(6, 2.0)), [[0, 0, 0, 2, 2, 2]] * 2)
