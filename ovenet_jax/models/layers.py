"""The layers every network is made of: Conv, BatchNorm, ConvNormAct, resize_bilinear.

All maps are channels-last, [B, H, W, C]. A layer computes in the type of its input (parameters are cast to
it), so the type of the image decides the precision of the whole network. Where that is bfloat16, these are
float32 all the same: parameters, BatchNorm's statistics and arithmetic, every softmax, and all that follows the
scores, offsets and confidences. Initial values are drawn on the host from the `InitialValues` that each constructor
is handed: the same for any number of devices, and nothing is compiled to make them.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

PRECISIONS = ("float32", "bfloat16")  # types of an image that configs may ask for

Activation = Callable[[jax.Array], jax.Array]
Maps = TypeVar("Maps", jax.Array, list[jax.Array])


def at_least_float32(x: jax.Array) -> jax.Array:
    """`x` in float32, or as it is where it is finer."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class InitialValues:
    """Draws the initial values of convolutions, one after the other, from `seed`.

    Kernels of a backbone are N(0, 0.001^2) as published, for training from ImageNet weights; with `he` they are
    N(0, 2 / fan_in), which trains faster from nothing. Heads keep PyTorch's default, U(-b, b) with
    b = 1 / sqrt(fan_in), which biases always have.
    """

    def __init__(self, seed: int, *, he: bool):
        self._rng = np.random.default_rng(seed)
        self._he = he

    def backbone_kernel(self, shape: tuple[int, int, int, int]) -> np.ndarray:
        """[k, k, in, out], float32."""
        std = math.sqrt(2 / math.prod(shape[:3])) if self._he else 0.001
        return (std * self._rng.standard_normal(shape)).astype(np.float32)

    def default(self, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
        """PyTorch's default for kernels and biases, float32."""
        bound = 1 / math.sqrt(fan_in)
        return self._rng.uniform(-bound, bound, shape).astype(np.float32)


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0) with a gradient of 0 at 0; NaN stays NaN, and lets gradients through. All as PyTorch.

    A choice between two arrays, not a maximum as jax.nn.relu: on CPUs XLA computes the latter, and all that leads to
    it, again for everything that reads it, and takes about twice the time for a step: docs/performance.md.
    """
    return jnp.where(x <= 0, 0, x)


def as_it_comes(x: jax.Array, reach: int = 0, stride: int = 1) -> jax.Array:  # noqa: ARG001
    """The `lay_out` of layers whose maps stay on the devices where they are.

    Where the rows of images are split over devices, `model.set_attributes(lay_out=...)` says by another function how
    each map [B, H, W, C] lies on them for a layer that reads `reach` rows beyond its own, by `stride`.
    """
    return x


class Conv(nnx.Module):
    """2-D convolution, [B, H, W, in] -> [B, ceil(H / stride), ceil(W / stride), out], padding `dilation * (k // 2)`.

    Padding is explicit and symmetric as in PyTorch: "SAME" pads a strided 3x3 on one side only.
    `in_head` chooses PyTorch's default initial kernel instead of the backbone's.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
        in_head: bool = False,
        init: InitialValues,
    ):
        shape = (kernel_size, kernel_size, in_features, out_features)
        fan_in = in_features * kernel_size**2
        self.kernel: nnx.Param[Any] = nnx.Param(
            init.default(shape, fan_in) if in_head else init.backbone_kernel(shape)
        )
        self.bias: nnx.Param[Any] | None = nnx.Param(init.default((out_features,), fan_in)) if bias else None
        self.stride = stride
        self.dilation = dilation
        self.lay_out = as_it_comes

    def __call__(self, x: jax.Array) -> jax.Array:
        padding = self.dilation * (self.kernel.shape[0] // 2)
        y = jax.lax.conv_general_dilated(
            self.lay_out(x, reach=padding, stride=self.stride),
            self.kernel.get_value().astype(x.dtype),
            window_strides=(self.stride, self.stride),
            padding=((padding, padding), (padding, padding)),
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = self.lay_out(y)
        if self.bias is None:
            return y
        # The bias's gradient, a sum over all pixels, is float32.
        return (y + self.bias.get_value()).astype(x.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation with PyTorch's SyncBatchNorm arithmetic, statistics over the whole (global) batch.

    Normalises with the biased batch variance and keeps the unbiased one, n / (n - 1), in the running
    statistics: running = (1 - momentum) * running + momentum * batch, momentum in PyTorch's sense.
    `use_running_average` is switched by `model.train()` and `model.eval()`.
    """

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1):
        self.scale: nnx.Param[Any] = nnx.Param(np.ones(features, np.float32))
        self.bias: nnx.Param[Any] = nnx.Param(np.zeros(features, np.float32))
        self.mean: nnx.BatchStat[Any] = nnx.BatchStat(np.zeros(features, np.float32))
        self.var: nnx.BatchStat[Any] = nnx.BatchStat(np.ones(features, np.float32))
        self.eps = eps
        self.momentum = momentum
        self.use_running_average = True

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.use_running_average:
            mean, var = self.mean.get_value(), self.var.get_value()
        else:
            values = at_least_float32(x)
            mean, var = jnp.mean(values, (0, 1, 2)), jnp.var(values, (0, 1, 2))
            self._update_statistics(mean, var, count=x.size // x.shape[-1])
        scale = self.scale.get_value() * jax.lax.rsqrt(var + self.eps)
        return ((x - mean) * scale + self.bias.get_value()).astype(x.dtype)

    def _update_statistics(self, mean: jax.Array, var: jax.Array, count: int) -> None:
        unbiased = var * (count / max(count - 1, 1))
        for running, batch in ((self.mean, mean), (self.var, unbiased)):
            old = running.get_value()
            running.set_value(old + self.momentum * (jax.lax.stop_gradient(batch).astype(old.dtype) - old))


class ConvNormAct(nnx.Module):
    """Convolution (with the options of Conv), BatchNorm and an activation (None: none)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        activation: Activation | None = relu,
        init: InitialValues,
        **conv: Any,
    ):
        self.conv = Conv(in_features, out_features, kernel_size, init=init, **conv)
        self.norm = BatchNorm(out_features)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(self.conv(x))
        return x if self.activation is None else self.activation(x)


def chain(layers: Iterable[Callable[[Maps], Maps]], x: Maps, *, rematerialise: bool = False) -> Maps:
    """A map, or several, through one layer after the other.

    With `rematerialise` the backward pass finds only what goes into each layer, and computes what was inside again.
    """
    for layer in layers:
        x = _rematerialised(layer, x) if rematerialise else layer(x)
    return x


@nnx.remat
def _rematerialised(layer: Callable[[Maps], Maps], x: Maps) -> Maps:
    return layer(x)


@jax.named_scope("resize_bilinear")
def resize_bilinear(x: jax.Array, size: tuple[int, ...], *, align_corners: bool) -> jax.Array:
    """Bilinear resize [B, H, W, C] -> [B, h, w, C] for `size` (h, w), PyTorch's `interpolate` (never antialiased).

    With `align_corners` the centres of the corner pixels coincide, otherwise the outer edges of the maps do.
    Two products with constant interpolation matrices, one over rows and one over columns. In bfloat16 their weights are
    multiples of 1 / 256: those of a pixel still add up to 1, and positions are off by 1 / 512 of a pixel at most.
    """
    rows, columns = (
        jnp.asarray(_interpolation_matrix(source, target, align_corners, x.dtype), x.dtype)
        for source, target in zip(x.shape[1:3], size, strict=True)
    )
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    if x.shape[1] != size[0]:
        x = product("ih,bhwc->biwc", rows, x)
    if x.shape[2] != size[1]:
        x = product("jw,bhwc->bhjc", columns, x)
    return x


def interpolation_weights(
    source: int, target: int, align_corners: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `target` pixels along an axis: its two neighbours among `source` pixels, and the second's weight."""
    index = np.arange(target, dtype=np.float64)
    if align_corners:
        position = index * ((source - 1) / (target - 1) if target > 1 else 0.0)
    else:
        position = np.maximum((index + 0.5) * (source / target) - 0.5, 0.0)
    left = np.minimum(position.astype(np.int64), source - 1)
    right = np.minimum(left + 1, source - 1)
    return left, right, position - left


def _interpolation_matrix(source: int, target: int, align_corners: bool, dtype: jnp.dtype) -> np.ndarray:
    """[target, source] weights; each row holds the one or two non-zero weights of one target pixel."""
    left, right, weight = interpolation_weights(source, target, align_corners)
    if dtype == jnp.bfloat16:
        weight = np.round(weight * 256) / 256
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), left), 1.0 - weight)
    np.add.at(matrix, (np.arange(target), right), weight)
    return matrix
