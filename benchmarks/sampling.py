"""Time and memory of the seed gather and its gradient: python -m benchmarks.sampling [--classes 19 150] ...

Beside `sample`: the same values with the gradient that JAX derives from map_coordinates, the four corners read by
hand, and PyTorch's grid_sample where torch is installed. Seeds are anywhere within OVeNet's threshold, so memory is
read at random. "memory" is what the compiled program wants besides its inputs and outputs; "difference" the largest
one, in values and gradients, to `sample`.
"""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from benchmarks.table import Table, parser
from benchmarks.timing import median_seconds
from ovenet_jax.models.sampling import sample, seed_positions

Arrays = Sequence[np.ndarray]


def derived(values: jax.Array, positions: jax.Array) -> jax.Array:
    """map_coordinates of every channel; the gradient is the one JAX derives."""
    read = partial(map_coordinates, order=1, mode="nearest")
    read_channels = jax.vmap(read, in_axes=(-1, None), out_axes=-1)
    return jax.vmap(read_channels)(values, in_pixels(values, positions))


def corners(values: jax.Array, positions: jax.Array) -> jax.Array:
    """The weighted sum of the four pixels around each position, all channels of a pixel at once."""
    height, width = values.shape[1:3]

    def read(image: jax.Array, coordinates: list[jax.Array]) -> jax.Array:
        row, column = coordinates
        top, left = jnp.floor(row), jnp.floor(column)
        result = 0.0
        for y, weight_y in ((top, 1 - (row - top)), (top + 1, row - top)):
            for x, weight_x in ((left, 1 - (column - left)), (left + 1, column - left)):
                index = jnp.minimum(y, height - 1).astype(int), jnp.minimum(x, width - 1).astype(int)
                result += (weight_y * weight_x)[..., None] * image[index]
        return result

    return jax.vmap(read)(values, in_pixels(values, positions))


def in_pixels(values: jax.Array, positions: jax.Array) -> list[jax.Array]:
    """Normalised positions -> rows and columns inside the map; no gradient on its border and beyond."""
    coordinates = []
    for axis, size in ((1, values.shape[1]), (0, values.shape[2])):
        pixel = (positions[..., axis] + 1) * (0.5 * (size - 1))
        inside = (pixel > 0) & (pixel < size - 1)
        coordinates.append(jnp.where(inside, pixel, jax.lax.stop_gradient(jnp.clip(pixel, 0, size - 1))))
    return coordinates


FORMS = {"sample": sample, "map_coordinates, derived gradient": derived, "four corners, derived gradient": corners}


def main() -> None:
    arguments = parse()
    columns = {"form": "36s", "classes": "9d", "forward [ms]": "14.1f", "forward + backward [ms]": "25.1f"}
    columns |= {"memory [MB]": "13.1f", "difference": "12.1e"}
    device = jax.devices()[0].device_kind
    height, width = arguments.size
    print(f"Maps of {arguments.batch} x {height} x {width} on one {device}")
    table = Table(columns, arguments.json, device=device, arguments=vars(arguments))
    for classes in arguments.classes:
        arrays = random_arrays(arguments.batch, height, width, classes)
        expected = None
        for name, form in FORMS.items():
            times, memory, results = time_form(form, arrays)
            expected = results if expected is None else expected
            table.row(name, classes, *times, memory, difference(results, expected))
        if importlib.util.find_spec("torch"):
            times, results = time_torch(arrays)
            table.row("PyTorch's grid_sample", classes, *times, None, difference(results, expected))


def parse() -> argparse.Namespace:
    arguments = parser("sampling", "Time and memory of the seed gather and its gradient.")
    arguments.add_argument("--classes", type=int, nargs="+", default=[19, 150], help="numbers of classes")
    arguments.add_argument("--size", type=int, nargs=2, default=[128, 256], help="height and width of the maps")
    arguments.add_argument("--batch", type=int, default=2, help="maps")
    return arguments.parse_args()


def random_arrays(batch: int, height: int, width: int, classes: int) -> Arrays:
    """Values, positions, and the gradient of what is read."""
    rng = np.random.default_rng(0)
    values, gradient = (rng.normal(size=(batch, height, width, classes)).astype(np.float32) for _ in range(2))
    offset = 0.2 * np.tanh(rng.normal(size=(batch, height, width, 2))).astype(np.float32)
    return values, np.asarray(seed_positions(jnp.asarray(offset))), gradient


def time_form(form: Callable[..., jax.Array], arrays: Arrays) -> tuple[list[float], float, Arrays]:
    """Milliseconds forward and with backward, temporary memory in MB, and the results: read values, gradients."""
    values, positions, gradient = (jnp.asarray(array) for array in arrays)

    def both(values: jax.Array, positions: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        read, backward = jax.vjp(form, values, positions)
        return read, *backward(gradient)

    forward = jax.jit(form)
    both = jax.jit(both).lower(values, positions, gradient).compile()
    calls = (lambda: forward(values, positions), lambda: both(values, positions, gradient))
    times = [1000 * median_seconds(call) for call in calls]
    return times, both.memory_analysis().temp_size_in_bytes / 1e6, both(values, positions, gradient)


def time_torch(arrays: Arrays) -> tuple[list[float], Arrays]:
    """The same of grid_sample, channels last, on the GPU if there is one; memory is not asked for."""
    import torch
    from torch.nn.functional import grid_sample

    device = "cuda" if torch.cuda.is_available() else "cpu"
    values, positions, gradient = (torch.from_numpy(np.array(array)).to(device) for array in arrays)
    values, gradient = (x.permute(0, 3, 1, 2) for x in (values, gradient))
    values.requires_grad_(), positions.requires_grad_()

    def forward() -> torch.Tensor:
        read = grid_sample(values, positions, padding_mode="border", align_corners=True)
        if device == "cuda":
            torch.cuda.synchronize()
        return read

    def both() -> tuple[torch.Tensor, ...]:
        read = forward()
        gradients = torch.autograd.grad(read, (values, positions), gradient)
        if device == "cuda":
            torch.cuda.synchronize()
        return read, *gradients

    times = [1000 * median_seconds(call) for call in (forward, both)]
    read, to_values, to_positions = (x.detach().cpu() for x in both())
    return times, (*(x.permute(0, 2, 3, 1).numpy() for x in (read, to_values)), to_positions.numpy())


def difference(results: Arrays, expected: Arrays) -> float:
    """The largest, relative to the largest expected value of the same array."""
    pairs = zip(results, expected, strict=True)
    return max(float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()) for a, b in pairs)


if __name__ == "__main__":
    main()
