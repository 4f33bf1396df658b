import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from ovenet_jax.models.convolution import convolve, convolve_whole


def gradients(convolution, size, stride, dilation, rows=6, columns=8, dtype=jnp.float64):
    """Of input and kernel, 3 to 5 channels, for a random gradient of the output."""
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.normal(size=shape), dtype) for shape in ((2, rows, columns, 3), (size, size, 3, 5))
    )
    y, backward = jax.vjp(lambda x, kernel: convolution(x, kernel, stride, dilation), x, kernel)
    return backward(jnp.asarray(rng.normal(size=y.shape), dtype))


@pytest.mark.parametrize("columns", [1, 7, 8])
@pytest.mark.parametrize("rows", [1, 6, 9])
@pytest.mark.parametrize(
    ("size", "stride", "dilation"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 4), (7, 2, 1)]
)
def test_gradients_are_those_of_xla(size, stride, dilation, rows, columns):
    with jax.enable_x64(True):
        ours, xla = (gradients(f, size, stride, dilation, rows, columns) for f in (convolve_whole, convolve))
    for result, expected in zip(ours, xla, strict=True):
        assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_gradients_stay_bfloat16_and_add_up_in_float32():
    ours, exact = (gradients(convolve_whole, 3, 1, 1, 64, 64, dtype) for dtype in (jnp.bfloat16, jnp.float32))
    for result, expected in zip(ours, exact, strict=True):
        assert result.dtype == jnp.bfloat16
        assert_allclose(
            np.asarray(result, np.float32), expected, rtol=0.05, atol=0.02 * np.abs(expected).max()
        )


def test_only_cpus_convolve_along_rows_alone():
    def programs(platform):
        traced = jax.jit(lambda: gradients(convolve_whole, 3, 1, 1, dtype=jnp.float32)).trace()
        return traced.lower(lowering_platforms=(platform,)).as_text()

    along_rows = "dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f]"
    assert along_rows in programs("cpu")
    assert along_rows not in programs("cuda")
