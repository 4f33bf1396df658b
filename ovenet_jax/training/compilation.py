"""Compiling before the first step, not in it; and how much was compiled."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax

COMPILED = (
    "/jax/core/compile/backend_compile_duration"  # JAX's event of a program compiled, or read from the cache
)
FROM_CACHE = "/jax/compilation_cache/cache_hits"


@dataclass
class Compilations:
    """Programs that were compiled so far, how many of them the persistent cache held, and the seconds of all."""

    programs: int = 0
    cached: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.programs} programs in {self.seconds:.0f} s, {self.cached} of them from the cache"


@contextmanager
def counting() -> Iterator[Compilations]:
    """Counts what this process compiles meanwhile."""
    counts = Compilations()

    def add_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED:
            counts.programs += 1
            counts.seconds += duration_secs

    def add_event(event: str, **_: str | int) -> None:
        counts.cached += event == FROM_CACHE

    jax.monitoring.register_event_duration_secs_listener(add_duration)
    jax.monitoring.register_event_listener(add_event)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(add_duration)
        jax.monitoring.unregister_event_listener(add_event)


def compile_step(step_function: Any, *arguments: Any) -> jax.stages.Compiled:
    """The jitted training step, compiled for these arguments (arrays, or their shapes and shardings); says how long."""
    chief = jax.process_index() == 0
    if chief:
        print("Compiling the training step ...", end=" ", flush=True)
    began = time.monotonic()
    compiled = step_function.lower(*arguments).compile()
    if chief:
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    return compiled
