"""The 2-D convolution, with a gradient of its kernel that CPUs compute in half the time."""

from functools import partial

import jax
import jax.numpy as jnp


def convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """Maps [B, H, W, in] and kernel [k, k, in, out] -> [B, ceil(H / stride), ceil(W / stride), out].

    Padded by dilation * (k // 2) on every side, as PyTorch does: "SAME" pads a strided 3x3 on one side only.
    """
    padding = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_whole(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """`convolve` of maps none of which is split over devices by its rows; gradients on CPUs with `kernel_gradient`."""
    return convolve(x, kernel, stride, dilation)


def _forward(x, kernel, stride, dilation):
    return convolve(x, kernel, stride, dilation), (x, kernel)


def _backward(stride, dilation, saved, gradient):
    x, kernel = saved

    def by_xla(x, gradient):
        (of_kernel,) = jax.linear_transpose(lambda k: convolve(x, k, stride, dilation), kernel)(gradient)
        return of_kernel

    ours = partial(kernel_gradient, size=kernel.shape[0], stride=stride, dilation=dilation)
    (of_x,) = jax.linear_transpose(lambda x: convolve(x, kernel, stride, dilation), x)(gradient)
    return of_x, jax.lax.platform_dependent(x, gradient, cpu=ours, default=by_xla)


convolve_whole.defvjp(_forward, _backward)


def kernel_gradient(x: jax.Array, gradient: jax.Array, size: int, stride: int, dilation: int) -> jax.Array:
    """`convolve`'s input [B, H, W, in] and its output's gradient [B, h, w, out] -> that of the kernel [k, k, in, out].

    One convolution along rows: its channels are columns and images, its images the channels of k copies of x, each
    shifted by one column of the kernel. XLA's own is one along rows and columns whose channels are images only, so
    few that Eigen spends most of its time on gathering them: docs/performance.md.
    """
    images, rows, _, features = x.shape
    _, out_rows, out_columns, out_features = gradient.shape
    padding = dilation * (size // 2)
    span = (out_columns - 1) * stride + 1
    x = jnp.pad(x, ((0, 0), (0, 0), (padding, padding), (0, 0))).transpose(3, 1, 0, 2)
    shifted = jnp.stack([x[..., j * dilation : j * dilation + span : stride] for j in range(size)])
    rows_read = (out_rows - 1) * stride + (size - 1) * dilation + 1
    result = jax.lax.conv_general_dilated(
        shifted.reshape(size * features, rows, images * out_columns),
        gradient.transpose(1, 0, 2, 3).reshape(out_rows, images * out_columns, out_features),
        window_strides=(dilation,),
        padding=((padding, rows_read - padding - rows),),
        rhs_dilation=(stride,),
        dimension_numbers=("NHC", "HIO", "NHC"),
    )
    return result.reshape(size, features, size, out_features).transpose(2, 0, 1, 3)
