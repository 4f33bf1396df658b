"""Seeds: reading a map at the end of every pixel's offset.

Positions and offsets are normalised, x first: [-1, 1] spans the centres of the first and the last pixel, so
an offset of 2 is a whole side. They are float32 at least, whatever type the network computes in.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


def pixel_grid(height: int, width: int, dtype=jnp.float32) -> jax.Array:
    """[height, width, 2]: every pixel's own normalised position (x, y)."""
    x, y = jnp.linspace(-1.0, 1.0, width, dtype=dtype), jnp.linspace(-1.0, 1.0, height, dtype=dtype)
    return jnp.stack(jnp.meshgrid(x, y), axis=-1)


def seed_positions(offset: jax.Array) -> jax.Array:
    """The pixels that `offset` [B, H, W, 2] points to, [B, H, W, 2], clipped to the map.

    Where, not clip: at the very border PyTorch's clamp passes the whole gradient, jnp.clip half of it.
    """
    position = pixel_grid(*offset.shape[1:3], dtype=offset.dtype) + offset
    return jnp.where(position < -1.0, -1.0, jnp.where(position > 1.0, 1.0, position))


def sample(
    values: jax.Array,
    positions: jax.Array,
    *,
    align_corners: bool = True,
    padding: str = "border",
    order: int = 1,
) -> jax.Array:
    """Reads `values` [B, H, W, C] at `positions` [B, h, w, 2] -> [B, h, w, C]: the seed gather.

    PyTorch's `grid_sample` in value and gradient. `align_corners` False takes [-1, 1] as the outer edges of
    the map: what code of the years of PyTorch 1.1 does on a newer PyTorch. `padding` "border" repeats the
    edge, with no gradient for positions on or beyond it; "zeros" counts everything outside as 0. `order` 1 is
    bilinear, 0 nearest (a tie goes to the even pixel).
    Source: OVeNet, seed prediction; values and gradients compared with those of PyTorch 2.13.
    """
    height, width = values.shape[1:3]
    coordinates = [  # (row, column), in pixels
        _to_pixels(positions[..., axis], size, align_corners) for axis, size in ((1, height), (0, width))
    ]
    if padding == "border":
        coordinates = [_clip(c, size) for c, size in zip(coordinates, (height, width), strict=True)]
    if order == 0:
        coordinates = [jnp.round(c) for c in coordinates]
    read = partial(map_coordinates, order=order, mode="nearest" if padding == "border" else "constant")
    read_channels = jax.vmap(read, in_axes=(-1, None), out_axes=-1)
    return jax.vmap(read_channels)(values, coordinates)


def _to_pixels(position: jax.Array, size: int, align_corners: bool) -> jax.Array:
    if align_corners:
        return (position + 1.0) * (0.5 * (size - 1))
    return (position + 1.0) * (0.5 * size) - 0.5


def _clip(coordinate: jax.Array, size: int) -> jax.Array:
    """Into [0, size - 1]; the gradient is 0 on the bounds and beyond, as grid_sample's is."""
    inside = (coordinate > 0) & (coordinate < size - 1)
    return jnp.where(inside, coordinate, jax.lax.stop_gradient(jnp.clip(coordinate, 0, size - 1)))
