"""float64, in which tests compare numbers to rounding and nobody trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def float64() -> Iterator[None]:
    """Programs are in float64. XLA transforms and splits them as always, but LLVM does not optimise their machine code:
    that takes two thirds of the time in which float64 convolutions compile on CPUs."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with jax.enable_x64(True):
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
