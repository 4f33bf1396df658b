"""How long things take: without compilation, after warming up, the median of several times."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def median_seconds(call: Callable[[], Any], repeats: int = 10, warm_up: int = 2) -> float:
    """Of one call, until what it returns is there."""
    seconds = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[warm_up:])


def matrix_rate(dtype: str) -> float:
    """FLOP/s of one device in a product of large square matrices: what no network is faster than.

    Of random numbers: a GPU is faster with those that are all alike.
    """
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / median_seconds(lambda: product(matrix, matrix))
