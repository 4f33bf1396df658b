"""The layers every network is made of: Conv, BatchNorm, ConvNormAct, resize_bilinear.

All maps are channels-last, [B, H, W, C]. A layer computes in the type of its input (parameters are cast to
it), so the type of the image decides the precision of the whole network. Even with bfloat16 these stay float32:
parameters, BatchNorm's statistics and arithmetic, every softmax, and everything after scores, offsets and
confidences. Initial values are drawn on the host by the `InitialValues` that each constructor takes: the same for
any number of devices, and without compilation.
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.custom_derivatives import linear_call

Activation = Callable[[jax.Array], jax.Array] | None  # None: none
Maps = TypeVar("Maps", jax.Array, list[jax.Array])
Layer = TypeVar("Layer")
Arrays = tuple[jax.Array, ...]  # one for each of several maps


def at_least_float32(x: jax.Array) -> jax.Array:
    """`x` as float32, or unchanged if its type is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class InitialValues:
    """Draws the initial values of convolutions, one after another, from `seed`.

    Kernels of a backbone are N(0, 0.001^2) as published, for training from ImageNet weights; with `he` they are
    N(0, 2 / fan_in), which trains faster without pretrained weights. Kernels of heads and all biases have PyTorch's
    default, U(-b, b) with b = 1 / sqrt(fan_in).
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


def is_symbolic(*sides: Any) -> bool:
    """Whether a side of maps is a variable of jax.export: the traced program is for images of any size."""
    return any(map(jax.export.is_symbolic_dim, sides))


def named(name: str, *inputs: jax.Array, shape: tuple[Any, ...], **attributes: Any) -> jax.Array:
    """The ONNX operation `name` on maps, in programs for images of any size; onnx_graph.py translates it."""
    return jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(shape, inputs[0].dtype))(*inputs, **attributes)


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0) with a gradient of 0 at 0; NaN stays NaN, and lets gradients through. All as PyTorch.

    `jnp.where` instead of jax.nn.relu's maximum: on CPUs XLA recomputes the maximum and its inputs for every consumer,
    which about doubles the time of a step (docs/performance.md).
    """
    return named("Relu", x, shape=x.shape) if is_symbolic(*x.shape[1:]) else jnp.where(x <= 0, 0, x)


@jax.custom_jvp
def relu_of_sum(*maps: jax.Array) -> jax.Array:
    """`relu` of the sum of maps. Its gradient takes the zeros from the result, which is stored anyway; taken from the
    sum, all maps would be read and added once more."""
    return relu(reduce(jnp.add, maps))


@relu_of_sum.defjvp
def _relu_of_sum_jvp(maps, tangents):
    result = relu_of_sum(*maps)
    return result, jnp.where(result <= 0, 0, reduce(jnp.add, tangents))


def keep_layout(x: jax.Array, reach: int = 0, stride: int = 1) -> jax.Array:  # noqa: ARG001
    """Returns `x`: the default `lay_out` of layers, without a sharding constraint.

    If image rows are sharded, `model.set_attributes(lay_out=...)` installs a function that constrains the sharding of
    each map [B, H, W, C], given how many rows the layer reads beyond its own (`reach`) and its `stride`.
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
        self.kernel: nnx.Param[Any] = nnx.Param(init.default(shape, fan_in) if in_head else init.backbone_kernel(shape))
        self.bias: nnx.Param[Any] | None = nnx.Param(init.default((out_features,), fan_in)) if bias else None
        self.stride = stride
        self.dilation = dilation
        self.lay_out = keep_layout

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
        return normalise([self], [x])[0]

    def update_statistics(self, mean: jax.Array, var: jax.Array, count: int) -> None:
        unbiased = var * (count / max(count - 1, 1))
        for running, batch in ((self.mean, mean), (self.var, unbiased)):
            old = running.get_value()
            running.set_value(old + self.momentum * (batch.astype(old.dtype) - old))


def normalise(norms: Sequence[BatchNorm], maps: Sequence[jax.Array]) -> Arrays:
    """`norm(x)` for each BatchNorm and its map; all share one all-reduce of their sums, see `_sums`."""
    scales, biases, means, variances = (
        tuple(getattr(norm, name).get_value() for norm in norms) for name in ("scale", "bias", "mean", "var")
    )
    ((eps, use_running_average),) = {(norm.eps, norm.use_running_average) for norm in norms}  # all have the same
    if use_running_average:
        return _normalised(tuple(maps), means, variances, scales, biases, eps)
    normalised, means, variances = _normalised_by_batch(tuple(maps), means, scales, biases, eps)
    for norm, x, mean, var in zip(norms, maps, means, variances, strict=True):
        norm.update_statistics(mean, var, count=_pixels(x))
    return normalised


def _normalised(maps: Arrays, means: Arrays, variances: Arrays, scales: Arrays, biases: Arrays, eps: float) -> Arrays:
    def of_map(x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return ((x - mean) * (scale * jax.lax.rsqrt(var + eps)) + bias).astype(x.dtype)

    return tuple(map(of_map, maps, means, variances, scales, biases))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalised_by_batch(
    maps: Arrays, shifts: Arrays, scales: Arrays, biases: Arrays, eps: float
) -> tuple[Arrays, Arrays, Arrays]:
    """Maps [B, H, W, C] normalised by their own means and biased variances, and these two, [C] for each map, which pass
    no gradient on.

    The gradient is the one that JAX would derive, with both of its sums in one pass over a map and the gradient of the
    result, because reading maps takes most of the time (docs/performance.md). Reverse mode only.
    """
    means, variances = _batch_statistics(maps, shifts)
    return _normalised(maps, means, variances, scales, biases, eps), means, variances


def _batch_statistics(maps: Arrays, shifts: Arrays) -> tuple[Arrays, Arrays]:
    """Mean and biased variance [C] of each map: the variance is the mean square of deviations from a shift, without the
    square of their mean.

    The shift of bfloat16 maps is the running mean, so that one pass suffices. The variance's error of about (mean -
    shift)^2 / 10^7 is negligible for bfloat16, which rounds away deviations below a 256th of the mean. Wider types
    take one pass more for their own mean as the shift.
    """
    if maps[0].dtype != jnp.bfloat16:
        shifts = tuple(total / _pixels(x) for x, (total,) in zip(maps, _sums([(x,) for x in maps]), strict=True))
    deviations = [at_least_float32(x) - shift for x, shift in zip(maps, shifts, strict=True)]
    sums = _sums([(x, jnp.square(x)) for x in deviations])
    means, squares = zip(*(both / _pixels(x) for x, both in zip(maps, sums, strict=True)), strict=True)
    variances = tuple(jnp.maximum(square - jnp.square(mean), 0) for mean, square in zip(means, squares, strict=True))
    return tuple(map(operator.add, shifts, means)), variances


def _sums(maps: Sequence[tuple[jax.Array, ...]]) -> list[jax.Array]:
    """For each tuple of maps [B, H, W, C] their sums over all axes but the channels, [len(tuple), C].

    Not on CPUs, which compile it half as long again: by GPU kernels for each row, each image and all images, and one
    all-reduce for all tuples together between devices that have other images.
    """

    def alone(maps: Sequence[tuple[jax.Array, ...]]) -> list[jax.Array]:
        return [jnp.stack([jnp.sum(x, (0, 1, 2)) for x in own]) for own in maps]

    def joined(maps: Sequence[tuple[jax.Array, ...]]) -> list[jax.Array]:
        of_images = [jnp.stack([jnp.sum(x, 2) for x in own]).sum(2) for own in maps]
        ends = np.cumsum([x.shape[-1] for x in of_images])[:-1]
        return jnp.split(jnp.concatenate(of_images, -1).sum(1), ends, -1)

    return jax.lax.platform_dependent(maps, cpu=alone, default=joined)


def _pixels(x: jax.Array) -> int:
    return x.size // x.shape[-1]


def _normalise_by_batch(maps, shifts, scales, biases, eps):
    normalised, means, variances = _normalised_by_batch(maps, shifts, scales, biases, eps)
    return (normalised, means, variances), (maps, means, variances, scales)


def _gradients_by_batch(eps, residuals, gradients):
    def of_map(x, gradient, deviation, var, scale, sums):
        grad_bias, product = sums
        inv_std = jax.lax.rsqrt(var + eps)
        grad_x = gradient - grad_bias / _pixels(x) - deviation * (jnp.square(inv_std) * product / _pixels(x))
        grad_scale = (product * inv_std).astype(scale.dtype)
        return (scale * inv_std * grad_x).astype(x.dtype), grad_scale, grad_bias.astype(scale.dtype)

    maps, means, variances, scales = residuals
    outer = [at_least_float32(x) for x in gradients[0]]
    deviations = [x - mean for x, mean in zip(maps, means, strict=True)]
    sums = _sums([(x, x * deviation) for x, deviation in zip(outer, deviations, strict=True)])
    of_maps, of_scales, of_biases = zip(*map(of_map, maps, outer, deviations, variances, scales, sums), strict=True)
    return of_maps, None, of_scales, of_biases


_normalised_by_batch.defvjp(_normalise_by_batch, _gradients_by_batch)


class ConvNormAct(nnx.Module):
    """Convolution (with the options of Conv), BatchNorm and an activation (None: none)."""

    def __init__(
        self, in_features: int, out_features: int, kernel_size: int, *, activation: Activation = relu, **conv: Any
    ):
        self.conv = Conv(in_features, out_features, kernel_size, **conv)
        self.norm = BatchNorm(out_features)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return together([self], [x])[0]


def together(layers: Sequence[ConvNormAct], maps: Sequence[jax.Array]) -> list[jax.Array]:
    """`layer(x)` for each layer and its map; on several GPUs their BatchNorms share one all-reduce."""
    convolved = [layer.conv(x) for layer, x in zip(layers, maps, strict=True)]
    normalised = normalise([layer.norm for layer in layers], convolved)
    return [layer.activation(x) if layer.activation else x for layer, x in zip(layers, normalised, strict=True)]


class AtrousPyramid(nnx.Module):
    """A 1x1 and, per dilation, a dilated 3x3 convolution, concatenated: [B, H, W, in] -> [B, H, W, (1 + dilations) *
    features]. Used by ASP-OC and ASP-OCR (ASPP: Chen et al., DeepLabv3, 2017). `layer`: options of ConvNormAct."""

    def __init__(self, in_features: int, features: int, dilations: Iterable[int], **layer: Any):
        branch: Callable[..., ConvNormAct] = partial(ConvNormAct, in_features, features, in_head=True, **layer)
        self.branches = nnx.List([branch(1), *(branch(3, dilation=dilation) for dilation in dilations)])

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([branch(x) for branch in self.branches], axis=-1)


def chain(layers: Iterable[Callable[[Maps], Maps]], x: Maps, *, rematerialise: bool = False) -> Maps:
    """Applies layers one after another to a map, or to a list of maps.

    With `rematerialise` only the inputs of layers are stored; the backward pass recomputes the rest (jax.checkpoint).
    """
    for layer in layers:
        x = nnx.remat(operator.call)(layer, x) if rematerialise else layer(x)
    return x


def in_step(
    paths: Sequence[Sequence[Layer]],
    maps: Sequence[jax.Array],
    apply: Callable[[list[Layer], list[jax.Array]], Sequence[jax.Array]],
) -> list[jax.Array]:
    """Each map through its own path of layers; the i-th layers of all paths are applied by `apply(layers, maps)`."""
    maps = list(maps)
    for place in range(max(map(len, paths))):
        at = [i for i, path in enumerate(paths) if place < len(path)]
        for i, x in zip(at, apply([paths[i][place] for i in at], [maps[i] for i in at]), strict=True):
            maps[i] = x
    return maps


@jax.named_scope("resize_bilinear")
def resize_bilinear(x: jax.Array, size: tuple[int, ...], *, align_corners: bool) -> jax.Array:
    """Bilinear resize [B, H, W, C] -> [B, h, w, C] for `size` (h, w), PyTorch's `interpolate` (never antialiased).

    With `align_corners` the centres of the corner pixels coincide, otherwise the outer edges of the maps do. Rows, then
    columns, are weighted by a constant interpolation matrix. In bfloat16 its weights are multiples of 1 / 256: those
    of a pixel still add up to 1, and positions are off by 1 / 512 of a pixel at most.
    """
    if is_symbolic(*x.shape[1:3], *size):
        form = {"mode": "linear", "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel"}
        return named("Resize", x, shape=(x.shape[0], *size, x.shape[3]), **form)
    for axis, target in zip((1, 2), size, strict=True):
        if x.shape[axis] != target:
            x = _weighted(x, _interpolation_matrix(x.shape[axis], target, align_corners, x.dtype), axis)
    return x


def _weighted(x: jax.Array, matrix: np.ndarray, axis: int) -> jax.Array:
    """The product of a constant sparse `matrix` [target, source] and `x` along one axis of its four.

    On CPUs it is a dense product. On GPUs a float32 product takes as long as a convolution and needs the map
    transposed, so each pixel is a weighted sum of its few neighbours instead. The gradient uses the transposed matrix.
    """

    def weighted(matrix: np.ndarray, _: tuple, x: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(
            x, cpu=partial(_product, matrix, axis), default=partial(_sum_of_neighbours, matrix, axis)
        )

    return linear_call(partial(weighted, matrix), partial(weighted, matrix.T), (), x)


def _product(matrix: np.ndarray, axis: int, x: jax.Array) -> jax.Array:
    form = {1: "ih,bhwc->biwc", 2: "jw,bhwc->bhjc"}[axis]
    return jnp.einsum(form, jnp.asarray(matrix, x.dtype), x, precision=jax.lax.Precision.HIGHEST)


def _sum_of_neighbours(matrix: np.ndarray, axis: int, x: jax.Array) -> jax.Array:
    count = np.count_nonzero(matrix, axis=1).max()
    index = np.argsort(matrix == 0, axis=1, kind="stable")[:, :count]
    weight = np.take_along_axis(matrix, index, axis=1)
    index = np.where(weight == 0, index[:, :1], index)
    x_, shape = at_least_float32(x), [-1 if a == axis else 1 for a in range(x.ndim)]
    terms = (
        jnp.take(x_, index[:, k], axis, mode="clip") * jnp.asarray(weight[:, k], x_.dtype).reshape(shape)
        for k in range(count)
    )
    return reduce(operator.add, terms).astype(x.dtype)


def interpolation_weights(source: int, target: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `target` pixels along an axis: its two neighbours among `source` pixels, and the second's weight."""
    index = np.arange(target, dtype=np.float64)
    if align_corners:
        position = index * ((source - 1) / (target - 1) if target > 1 else 0.0)
    else:
        position = np.maximum((index + 0.5) * (source / target) - 0.5, 0.0)
    left = np.minimum(position.astype(np.int64), source - 1)
    right = np.minimum(left + 1, source - 1)
    return left, right, position - left


def resized(x: np.ndarray, size: tuple[int, ...], align_corners: bool) -> np.ndarray:
    """`resize_bilinear` of one map [h, w, ...] in numpy, which avoids a compilation for each size."""
    for axis, target in enumerate(size):
        left, right, weight = interpolation_weights(x.shape[axis], target, align_corners)
        weight = weight.astype(np.float32).reshape(-1, *[1] * (x.ndim - 1 - axis))
        x = x.take(left, axis) * (1 - weight) + x.take(right, axis) * weight
    return x


def _interpolation_matrix(source: int, target: int, align_corners: bool, dtype: jnp.dtype) -> np.ndarray:
    """[target, source] weights; each row holds the one or two non-zero weights of one target pixel."""
    left, right, weight = interpolation_weights(source, target, align_corners)
    if dtype == jnp.bfloat16:
        weight = np.round(weight * 256) / 256
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), left), 1.0 - weight)
    np.add.at(matrix, (np.arange(target), right), weight)
    return matrix
