"""Compiles the training step of a config ahead of the first step, and counts compilations."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.models import parameters
from ovenet_jax.models.normalisation import Normalisation, images_of
from ovenet_jax.run.state import TrainState, init_state
from ovenet_jax.supervision.task import Task
from ovenet_jax.training import optimizer as optimizers
from ovenet_jax.training.health import watched
from ovenet_jax.training.packing import Packing
from ovenet_jax.training.step import frozen_parts, train_step

COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's event of a program compiled, or read from the cache
FROM_CACHE = "/jax/compilation_cache/cache_retrieval_time_sec"


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

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        counts.cached += event == FROM_CACHE
        if event == COMPILED:
            counts.programs += 1
            counts.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(add)


class PreparedStep(NamedTuple):
    """function: the jitted training step, which donates its packed state. state: the initial one, unpacked. packing: of
    the state. arguments: shapes and shardings of the function's arguments."""

    function: Any
    state: TrainState
    packing: Packing
    arguments: tuple[Any, ...]


def prepare_step(config: ConfigDict, task: Task, model: nnx.Module, mesh: Mesh, platform: str) -> PreparedStep:
    """The training step that the config describes, for `model` on the mesh; platform: "cpu", "gpu" ..."""
    model.set_attributes(lay_out=parallel.row_layout(mesh), rematerialise=config.rematerialise)
    _, optimizer = optimizers.from_config(config)
    state = init_state(model, optimizer, frozen_parts(config), config.ema)
    packing = Packing(state, platform)
    step = partial(
        train_step,
        graphdef=parameters.split(model)[0],
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
    jitted = jax.jit(watched(step, config.non_finite.policy), out_shardings=parallel.replicated(mesh), donate_argnums=0)
    packed = parallel.replicated_shapes(mesh, jax.eval_shape(packing.pack, state))
    size = (config.batch_size, *config.augment.crop)
    sharded = {"sharding": parallel.rows_sharded(mesh)}
    image, label = images_of(config.model.input, *size, **sharded), jax.ShapeDtypeStruct(size, np.uint8, **sharded)
    return PreparedStep(jitted, state, packing, (packed, image, label))


def compile_step(step_function: Any, *arguments: Any) -> jax.stages.Compiled:
    """The jitted training step, compiled for these arguments (arrays, or shapes and shardings); prints the time."""
    parallel.say(f"Compiling the training step for {parallel.devices_in_words()} ...")
    began = time.monotonic()
    compiled = step_function.lower(*arguments).compile()
    parallel.say(f"Compiled in {time.monotonic() - began:.0f} s.")
    return compiled
