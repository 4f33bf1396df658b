"""Estimates what a training takes on GPUs, from its traced step: nothing is compiled or run.

Tracing gives FLOPs, the bytes of all operations before any is fused, and what the forward pass stores for the backward
pass. The factors below turn these into memory and time; docs/performance.md says how they were found.
"""

import json
import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters, zoo
from ovenet_jax.run.state import init_state, without
from ovenet_jax.supervision.task import task_of
from ovenet_jax.training import optimizer as optimizers
from ovenet_jax.training.compilation import prepare_step
from ovenet_jax.training.step import frozen_parts

GPUS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "devices" / "gpus.json").read_text())
USABLE = 0.75  # share of a GPU's memory, JAX's default
TEMPORARY = 0.65  # bytes of temporary memory for each stored byte; 0.59 to 0.64 in compiled programs
UNFUSED = 0.08  # bytes moved outside convolutions: compiled program / before fusion
KERNELS, LAUNCH = 3.8, 2e-6  # kernels per convolution, seconds per kernel
MESSAGE = 15e-6  # seconds per all-reduce of a sum within a host, assumed
SUM = r"across dimensions = \[1\] : \(tensor<[12]x\d+x\d+xf32>"  # BatchNorm's, over the images of [sums, B, C]
MATRIX, BANDWIDTH = 0.8, 0.9  # shares of the data sheet's rates that good kernels reach
EFFICIENCY = 0.60, 0.77  # least time / published time, of published trainings
READING = {"compressed": 0.035, "decoded": 0.0029}  # seconds per sample of 1024x2048 on one core


def plan(config: ConfigDict, devices: str | None) -> str:
    """A table for the training of `config` on `devices` ("8xh200"; None: this machine's GPUs).

    Raises UserError: unknown devices, or a batch that cannot be split over them.
    """
    count, gpu = _devices(devices)
    if config.get("loss", {}).get("enet_weights"):
        config.loss.enet_weights = False  # take no time, and would need the data
    data, rest = divmod(count, config.mesh[1])
    if rest or config.mesh[0] not in (0, data) or config.batch_size % data:
        split = f"over {count} GPUs with config.mesh={tuple(config.mesh)}"
        helps = "choose rows that divide the GPUs, and a batch size that is a multiple of the rest"
        raise UserError(f"config.batch_size={config.batch_size} cannot be split {split}; {helps}.")
    images, usable = config.batch_size / count, USABLE * gpu["memory"]
    height, width = config.augment.crop
    rows = {f"{config.name}, {config.precision}": f"{images:g} x {height}x{width} on each of {count} {gpu['name']}"}
    for rematerialise in (config.rematerialise, not config.rematerialise):
        fixed, of_image = memory(config, rematerialise)
        needed, largest = fixed + of_image * images, int((usable - fixed) / of_image * count) // data * data
        fits = f"{needed / 1e9:.1f} of {usable / 1e9:.1f} GB, {'fits' if needed <= usable else 'does not fit'}"
        rows[f"memory, config.rematerialise={rematerialise}"] = f"{fits}; at most config.batch_size={max(0, largest)}"
    shortest, longest = step_seconds(config, count, gpu)
    fastest = config.batch_size / shortest
    hours = [timedelta(seconds=round(config.steps * x)) for x in (shortest, longest)]
    rows["a step"] = f"{1e3 * shortest:.0f} to {1e3 * longest:.0f} ms"
    rows["images/s"] = f"{config.batch_size / longest:.0f} to {fastest:.0f}"
    rows[f"{config.steps} steps"] = f"{hours[0]} to {hours[1]} without evaluations"
    workers = (f"{math.ceil(fastest * x)} ({storage})" for storage, x in READING.items())
    rows["config.data.workers, of all hosts"] = f"{' or '.join(workers)} for images of 1024x2048"
    said = "Estimated from the traced step; nothing was compiled or run. make gpu-program compiles for a GPU."
    return "\n".join([*(f"{name:<36}  {value}" for name, value in rows.items()), said])


def _devices(given: str | None) -> tuple[int, dict[str, Any]]:
    known = f"write --devices=COUNTxNAME with one of {', '.join(GPUS)}, as 8xh200"
    if given is None:
        kinds = [device.device_kind for device in jax.devices() if device.platform == "gpu"]
        for gpu in GPUS.values():
            if kinds and gpu["name"] in kinds[0]:
                return len(kinds), gpu
        raise UserError(f"JAX finds {kinds[0] + ', which is unknown' if kinds else 'no GPU'} here; {known}.")
    found = re.fullmatch(r"([1-9]\d{0,5})x(\w+)", given)
    if not found or found[2] not in GPUS:
        raise UserError(f"--devices={given} is unknown; {known}.")
    return int(found[1]), GPUS[found[2]]


def memory(config: ConfigDict, rematerialise: bool) -> tuple[float, float]:
    """Bytes of GPU memory without images, and bytes per image on the GPU."""
    task, model = task_of(config), zoo.create_model(config.model)  # in this order: a task counts classes
    model.set_attributes(rematerialise=rematerialise)
    graphdef, params, statistics = parameters.split(model)
    frozen, loss = frozen_parts(config), task.create_loss()

    def stored(images: int) -> float:
        def pull_back(trained: Any, image: jax.Array, label: jax.Array) -> Any:
            def total(trained: Any) -> jax.Array:
                model = parameters.merge(graphdef, params | trained, statistics)
                model.train()
                output = model(image, nnx.Rngs(dropout=0))
                return loss(output, label, batch_labels=label[None])["total"]

            return jax.vjp(total, trained)[1]

        size = (images, *config.augment.crop)
        image = jax.ShapeDtypeStruct((*size, len(config.model.input.mean)), config.precision)
        arrays = jax.eval_shape(pull_back, without(params, frozen), image, jax.ShapeDtypeStruct(size, np.uint8))
        return TEMPORARY * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays))

    one, two = stored(task.group), stored(2 * task.group)
    state = init_state(model, optimizers.from_config(config)[1], frozen, config.ema)
    fixed = sum(x.nbytes for x in jax.tree.leaves(state)) + max(0, 2 * one - two)
    return fixed, (two - one) / task.group / task.accumulate


def step_seconds(config: ConfigDict, count: int, gpu: dict[str, Any]) -> tuple[float, float]:
    """The shortest and the longest time [s] that a step on `count` GPUs is expected to take.

    Convolutions run at the matrix rate (float32: TF32's), everything else at memory bandwidth; launches are added, and
    to the longer time BatchNorm's messages between GPUs, one after the other.
    """
    images = config.batch_size / count
    times, unit = task_of(config).accumulate, task_of(config).group
    traced = unit * max(1, int(images) // times // unit)  # one micro-batch: a loop's body is counted once
    mesh = parallel.create_mesh(parallel.devices("cpu")[:1])
    lowered = lower_step(ConfigDict(config.to_dict() | {"batch_size": traced, "accumulate": 1}), mesh)
    costs: Any = lowered.cost_analysis()
    program = lowered.as_text()
    matrix = gpu["matrix"] * (1.0 if config.precision == "bfloat16" else 0.5)
    rate = matrix if gpu["capability"] >= [8, 0] else gpu["float32"]
    moving = UNFUSED * costs["bytes accessed"] / (BANDWIDTH * gpu["bandwidth"])
    computing = (costs["flops"] / (MATRIX * rate) + moving) * images / traced
    messages = times * len(re.findall(SUM, program)) * MESSAGE if count > 1 else 0.0
    least = computing + times * KERNELS * program.count("stablehlo.convolution") * LAUNCH
    return least / EFFICIENCY[1], least / EFFICIENCY[0] + messages


def lower_step(config: ConfigDict, mesh: Mesh) -> jax.stages.Lowered:
    """The training step of `config`, lowered for NVIDIA GPUs, whatever the devices of the mesh are."""
    step = prepare_step(config, task_of(config), zoo.create_model(config.model), mesh, platform="cuda")
    return step.function.trace(*step.arguments).lower(lowering_platforms=("cuda",))
