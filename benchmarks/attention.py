"""Time and memory of Base-OC's and ISA's attention: python -m benchmarks.attention [--sizes 32x64 64x128 128x256] ...

The context blocks alone, at the published widths, on random maps of these sizes (64x128 is an image of 512x1024 at
stride 8): Base-OC's with all scores at once and, as the networks have it, in turns; and ISA's. One table, and its
numbers in --json FILE. A row has a process of its own, and two figures of memory for forward and backward pass: the
temporaries XLA plans (a CPU's fused kernels take some more), and by how much the peak of the process, or of the GPU,
grew at the first run. Needs jax, flax and numpy alone. Linux.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.models import parameters
from ovenet_jax.models.attention import SelfAttention, softmax_attention
from ovenet_jax.models.isa import InterlacedAttention
from ovenet_jax.models.layers import InitialValues

FEATURES, KEY_FEATURES = 512, 256
BLOCKS = ("Base-OC, all at once", "Base-OC", "ISA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["32x64", "64x128", "128x256"], help="of the maps, HxW")
    parser.add_argument("--batch", type=int, default=1, help="maps")
    parser.add_argument("--dtype", default="float32", help="of the maps, for example bfloat16")
    parser.add_argument("--repeats", type=int, default=3, help="whose median is shown")
    parser.add_argument(
        "--all_at_once_up_to", type=int, default=8192, help="pixels; four N x N arrays are held"
    )
    parser.add_argument("--json", type=Path, help="a file for the numbers of the table")
    arguments = parser.parse_args()

    print(
        f"{'map':>9}  {'block':22}{'forward [ms]':>13}{'and backward':>14}{'planned [MB]':>14}{'peak [MB]':>11}"
    )
    rows = []
    for size in arguments.sizes:
        height, width = map(int, size.split("x"))
        for block in BLOCKS:
            if block == "Base-OC, all at once" and height * width > arguments.all_at_once_up_to:
                continue
            shape = (arguments.batch, height, width, FEATURES)
            row = in_own_process(measure, block, shape, arguments.dtype, arguments.repeats)
            rows.append({"map": [height, width], "block": block, **row})
            print(
                f"{size:>9}  {block:22}{row['forward_ms']:13.0f}{row['forward_backward_ms']:14.0f}"
                f"{row['planned_mb']:14.0f}{row['peak_mb']:11.0f}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def in_own_process(function: Callable, *arguments):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(block: str, shape: tuple[int, int, int, int], dtype: str, repeats: int) -> dict:
    graphdef, params, norms = parameters.split(create(block))
    rng = np.random.default_rng(0)
    x, gradient = (jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for _ in range(2))
    params, norms = jax.device_put((params, norms))

    def forward(params, x):
        module = parameters.merge(graphdef, params, norms)
        module.train()
        return module(x, all_at_once) if block == "Base-OC, all at once" else module(x)

    def forward_backward(params, x, gradient):
        return jax.vjp(forward, params, x)[1](gradient)

    both = jax.jit(forward_backward).lower(params, x, gradient).compile()
    forth = jax.jit(forward).lower(params, x).compile()
    before = peak_bytes()
    jax.block_until_ready(both(params, x, gradient))
    return {
        "peak_mb": (peak_bytes() - before) / 1e6,
        "planned_mb": both.memory_analysis().temp_size_in_bytes / 1e6,
        "forward_ms": median_ms(repeats, forth, params, x),
        "forward_backward_ms": median_ms(repeats, both, params, x, gradient),
        "device": jax.devices()[0].device_kind,
    }


def create(block: str) -> SelfAttention | InterlacedAttention:
    options = {"key_features": KEY_FEATURES, "activation": jax.nn.relu, "init": InitialValues(0)}
    if block == "ISA":
        return InterlacedAttention(FEATURES, block=(8, 8), **options)
    return SelfAttention(FEATURES, value_features=KEY_FEATURES, out_features=FEATURES, **options)


def all_at_once(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    sequences = (x.reshape(x.shape[0], -1, x.shape[-1]) for x in (query, key, value))
    return softmax_attention(*sequences).reshape(value.shape)


def peak_bytes() -> int:
    """The most memory ever in use, of the GPU or else of this process."""
    device = jax.devices()[0].memory_stats()
    return (
        device["peak_bytes_in_use"] if device else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )


def median_ms(repeats: int, function: Callable, *arrays) -> float:
    """Of so many runs after a first one."""
    milliseconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        milliseconds.append(1000 * (time.perf_counter() - start))
    return statistics.median(milliseconds[1:])


if __name__ == "__main__":
    main()
