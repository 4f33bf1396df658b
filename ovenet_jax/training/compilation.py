"""Compiles the training step of a config ahead of the first step, and counts compilations."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.supervision.task import Task
from ovenet_jax.training.health import watched
from ovenet_jax.training.packing import Packing
from ovenet_jax.training.step import frozen_parts, train_step

COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's event of a program compiled, or read from the cache
FROM_CACHE = "/jax/compilation_cache/cache_hits"


@dataclass
class Compilations:
    """Compiled programs, how many of them were in the persistent cache, and the seconds of all."""

    programs: int = 0
    cached: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.programs} programs in {self.seconds:.0f} s, {self.cached} of them from the cache"


@contextmanager
def counting() -> Iterator[Compilations]:
    """Counts what this process compiles in the body of the `with`."""
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


def jit_step(
    config: ConfigDict,
    task: Task,
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    packing: Packing,
    mesh: Mesh,
) -> Any:
    """The training step that the config describes, jitted for the mesh; its packed state argument is donated."""
    step = partial(
        train_step,
        graphdef=graphdef,
        optimizer=optimizer,
        loss=task.create_loss(),
        measure=task.measure,
        normalisation=Normalisation.from_config(config.model.input),
        seed=config.seed,
        frozen=frozen_parts(config),
        precision=config.precision,
        accumulate=task.accumulate,
        group=task.group,
        ema=config.ema,
        packing=packing,
    )
    watched_step = watched(step, config.non_finite.policy)
    return jax.jit(watched_step, out_shardings=parallel.replicated(mesh), donate_argnums=0)


def batch_shapes(config: ConfigDict, mesh: Mesh) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Images and labels of a step, as `parallel.to_global` makes them."""
    shape = (config.batch_size, *config.augment.crop)
    described = partial(jax.ShapeDtypeStruct, dtype=np.uint8, sharding=parallel.rows_sharded(mesh))
    return described((*shape, 3)), described(shape)


def compile_step(step_function: Any, *arguments: Any) -> jax.stages.Compiled:
    """The jitted training step, compiled for these arguments (arrays, or shapes and shardings); prints the time."""
    parallel.say("Compiling the training step ...")
    began = time.monotonic()
    compiled = step_function.lower(*arguments).compile()
    parallel.say(f"Compiled in {time.monotonic() - began:.0f} s.")
    return compiled
