"""Seeds: reading a map at the end of every pixel's offset.

Positions and offsets are normalised, x first: [-1, 1] spans the centres of the first and the last pixel, so
an offset of 2 is a whole side. They are float32 at least, whatever type the network computes in.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from ovenet_jax.models.layers import is_symbolic, named


def pixel_grid(size: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """[H, W, 2] for `size` (H, W): every pixel's own normalised position (x, y)."""
    x, y = (jnp.linspace(-1.0, 1.0, side, dtype=dtype) for side in reversed(size))
    return jnp.stack(jnp.meshgrid(x, y), axis=-1)


def seed_positions(offset: jax.Array) -> jax.Array:
    """The pixels that `offset` [B, H, W, 2] points to, [B, H, W, 2], clipped to the map.

    Uses jnp.where: exactly at the border PyTorch's clamp passes the whole gradient, jnp.clip half of it.
    """
    position = pixel_grid(offset.shape[1:3], offset.dtype) + offset
    return jnp.where(position < -1.0, -1.0, jnp.where(position > 1.0, 1.0, position))


@jax.named_scope("sample")
def sample(
    values: jax.Array, positions: jax.Array, *, align_corners: bool = True, padding: str = "border", order: int = 1
) -> jax.Array:
    """Reads `values` [B, H, W, C] at `positions` [B, h, w, 2] -> [B, h, w, C]: the seed gather.

    PyTorch's `grid_sample` in value and gradient. `align_corners` False takes [-1, 1] as the outer edges of
    the map, as code written for PyTorch 1.1 does on newer versions. `padding` "border" repeats the
    edge, with no gradient for positions on or beyond it; "zeros" counts everything outside as 0. `order` 1 is
    bilinear, 0 nearest (a tie goes to the even pixel).
    Source: OVeNet, seed prediction; values and gradients compared with those of PyTorch 2.13.
    """
    height, width = values.shape[1:3]
    if is_symbolic(height, width):
        shape = (*positions.shape[:3], values.shape[3])
        form = {"padding_mode": padding, "align_corners": int(align_corners)}
        return named("GridSample", values, positions, shape=shape, **form)
    row = _to_pixels(positions[..., 1], height, align_corners)
    column = _to_pixels(positions[..., 0], width, align_corners)
    if padding == "border":
        row, column = _clip(row, height), _clip(column, width)
    if order == 0:
        row, column = jnp.round(row), jnp.round(column)
    if padding == "border" and order == 1:
        return _read_bilinear(values, row, column)
    return _read(values, row, column, order=order, mode="nearest" if padding == "border" else "constant")


def _read(values: jax.Array, row: jax.Array, column: jax.Array, *, order: int, mode: str) -> jax.Array:
    """`values` [B, H, W, C] at the pixels (row, column), [B, h, w] each -> [B, h, w, C]."""
    read = partial(map_coordinates, order=order, mode=mode)
    read_channels = jax.vmap(read, in_axes=(-1, None), out_axes=-1)
    return jax.vmap(read_channels)(values, [row, column])


@jax.custom_vjp
def _read_bilinear(values: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """_read inside the map, with the gradient that JAX would derive, several times faster and in far less memory.

    Reverse mode only: forward mode (jax.jvp) raises an error.
    """
    return _read(values, row, column, order=1, mode="nearest")


def _gradients_of_one_image(
    inputs: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `inputs`, values [H, W, C], row and column [h, w], from the output's `gradient` [h, w, C].

    The four neighbours of the positions are scattered one after another into the same sum, so that memory for only one
    of them is needed.
    """
    values, row, column = inputs
    height, width, channels = values.shape
    dtype = jnp.result_type(values, row)
    pixels, gradient = values.reshape(-1, channels).astype(dtype), gradient.astype(dtype)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = row - top, column - left  # the weights of the lower and of the right neighbours

    def add_neighbours(grad_pixels, step):
        step_y, step_x = step
        y = jnp.minimum(top.astype(jnp.int32) + step_y, height - 1)
        x = jnp.minimum(left.astype(jnp.int32) + step_x, width - 1)
        index = y * width + x
        weight = jnp.where(step_y, down, 1 - down) * jnp.where(step_x, right, 1 - right)
        grad_weight = jnp.sum(pixels[index] * gradient, axis=-1)
        return grad_pixels.at[index].add(weight[..., None] * gradient), grad_weight

    steps = (jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 0, 1]))  # y, x
    grad_pixels, (upper_left, upper_right, lower_left, lower_right) = jax.lax.scan(
        add_neighbours, jnp.zeros_like(pixels), steps
    )
    grad_row = (1 - right) * (lower_left - upper_left) + right * (lower_right - upper_right)
    grad_column = (1 - down) * (upper_right - upper_left) + down * (lower_right - lower_left)
    grad_values = grad_pixels.reshape(values.shape)
    return grad_values.astype(values.dtype), grad_row.astype(row.dtype), grad_column.astype(column.dtype)


_read_bilinear.defvjp(lambda *inputs: (_read_bilinear(*inputs), inputs), jax.vmap(_gradients_of_one_image))


def _to_pixels(position: jax.Array, size: int, align_corners: bool) -> jax.Array:
    if align_corners:
        return (position + 1.0) * (0.5 * (size - 1))
    return (position + 1.0) * (0.5 * size) - 0.5


def _clip(coordinate: jax.Array, size: int) -> jax.Array:
    """Into [0, size - 1]; the gradient is 0 on the bounds and beyond, as grid_sample's is."""
    inside = (coordinate > 0) & (coordinate < size - 1)
    return jnp.where(inside, coordinate, jax.lax.stop_gradient(jnp.clip(coordinate, 0, size - 1)))
