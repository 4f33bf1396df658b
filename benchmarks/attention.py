"""Time and memory of Base-OC's and ISA's attention: python -m benchmarks.attention [--sizes 32x64 64x128 128x256] ...

The context blocks alone, at the published widths, on random maps of these sizes (64x128 is an image of 512x1024 at
stride 8): Base-OC's with all scores at once and, as the networks have it, in turns; and ISA's. "memory" is what the
compiled forward and backward pass wants besides its inputs and outputs; a CPU's fused kernels take some more. Needs
jax, flax and numpy only.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.table import Table, parser
from benchmarks.timing import median_seconds
from ovenet_jax.configs.keys import PRECISIONS
from ovenet_jax.models import parameters
from ovenet_jax.models.attention import SelfAttention, softmax_attention
from ovenet_jax.models.isa import InterlacedAttention
from ovenet_jax.models.layers import InitialValues, relu

FEATURES, KEY_FEATURES = 512, 256
BLOCKS = ("Base-OC, all at once", "Base-OC", "ISA")


def main() -> None:
    arguments = parse()
    columns = {"map": "9s", "block": "22s", "forward [ms]": "14.1f", "forward + backward [ms]": "25.1f"}
    columns |= {"memory [MB]": "13.1f"}
    device = jax.devices()[0].device_kind
    print(f"Maps of {arguments.batch} x H x W x {FEATURES}, {arguments.precision}, on one {device}")
    table = Table(columns, arguments.json, device=device, arguments=vars(arguments))
    for size in arguments.sizes:
        height, width = map(int, size.split("x"))
        shape = (arguments.batch, height, width, FEATURES)
        for block in BLOCKS:
            if block != "Base-OC, all at once" or height * width <= arguments.all_at_once_up_to:
                table.row(size, block, *measure(block, shape, arguments.precision, arguments.repeats))


def parse() -> argparse.Namespace:
    arguments = parser("attention", "Time and memory of Base-OC's and ISA's attention.")
    arguments.add_argument("--sizes", nargs="+", default=["32x64", "64x128", "128x256"], help="of the maps, HxW")
    arguments.add_argument("--batch", type=int, default=1, help="maps")
    arguments.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the maps")
    arguments.add_argument("--repeats", type=int, default=3, help="runs that are timed")
    arguments.add_argument("--all_at_once_up_to", type=int, default=8192, help="pixels; four N x N arrays are held")
    return arguments.parse_args()


def measure(block: str, shape: tuple[int, int, int, int], precision: str, repeats: int) -> tuple[float, float, float]:
    """Milliseconds forward and with backward, temporary memory in MB."""
    graphdef, params, norms = parameters.split(create(block))
    rng = np.random.default_rng(0)
    x, gradient = (jnp.asarray(rng.standard_normal(shape, np.float32), precision) for _ in range(2))
    params, norms = jax.device_put((params, norms))

    def forward(params: parameters.Arrays, x: jax.Array) -> jax.Array:
        module = parameters.merge(graphdef, params, norms)
        module.train()
        return module(x, all_at_once) if block == "Base-OC, all at once" else module(x)

    def both(params: parameters.Arrays, x: jax.Array, gradient: jax.Array) -> tuple:
        return jax.vjp(forward, params, x)[1](gradient)

    forward_alone = jax.jit(forward)
    both = jax.jit(both).lower(params, x, gradient).compile()
    calls = (lambda: forward_alone(params, x), lambda: both(params, x, gradient))
    times = [1000 * median_seconds(call, repeats, warm_up=1) for call in calls]
    return *times, both.memory_analysis().temp_size_in_bytes / 1e6


def create(block: str) -> SelfAttention | InterlacedAttention:
    options = {"key_features": KEY_FEATURES, "activation": relu, "init": InitialValues(0, he=False)}
    if block == "ISA":
        return InterlacedAttention(FEATURES, block=(8, 8), **options)
    return SelfAttention(FEATURES, value_features=KEY_FEATURES, **options)


def all_at_once(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    sequences = (x.reshape(x.shape[0], -1, x.shape[-1]) for x in (query, key, value))
    return softmax_attention(*sequences).reshape(value.shape)


if __name__ == "__main__":
    main()
