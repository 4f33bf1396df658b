"""Time and memory of the project's training step: python -m benchmarks.train_step --width=48 --crop 512 1024 ...

One step on random images on one device, as training runs it but without the check that it is finite, beside that of the
same network in PyTorch where torch is installed. "memory" is the most the device ever held; on a CPU, what the compiled
program says it wants. FLOPs are those of our step as it is written, before any compiler's choices (what --rematerialise
computes twice counts twice); their rate is compared with the device's in a product of large matrices of the same type,
measured in the same run. Needs jax, flax and optax only.

With --counts nothing runs: the step is compiled, in both precisions, and the program's own numbers are shown. On a CPU
bfloat16 is computed in float32, so that memory there says little about a GPU.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from benchmarks import hlo, networks
from benchmarks.table import Table, parser
from benchmarks.timing import matrix_rate, median_seconds
from ovenet_jax.configs.keys import PRECISIONS
from ovenet_jax.devices import parallel
from ovenet_jax.models import parameters
from ovenet_jax.models.ovenet import OVeNet
from ovenet_jax.run.state import TrainState, init_state
from ovenet_jax.supervision.losses import ovenet_loss, segmentation_loss
from ovenet_jax.supervision.measures import class_measures
from ovenet_jax.training.optimizer import create_optimizer, poly_schedule
from ovenet_jax.training.packing import Packing
from ovenet_jax.training.step import train_step

AUX_WEIGHT = 0.4  # published


class Program(NamedTuple):
    """A compiled step, the state it starts from and how that is packed, FLOPs of a step on all devices, seconds of
    tracing and compilation."""

    step: jax.stages.Compiled
    state: TrainState
    packing: Packing
    flops: float
    seconds: float


def main() -> None:
    arguments = parse()
    measure = count if arguments.counts else measure_time
    measure(arguments)


def parse() -> argparse.Namespace:
    arguments = parser("train_step", "Time and memory of a training step on one device.")
    networks.add_arguments(arguments)
    add_arguments(arguments)
    arguments.add_argument("--counts", action="store_true", help="compile only: FLOPs and memory")
    arguments.add_argument(
        "--torch",
        action=argparse.BooleanOptionalAction,
        default=importlib.util.find_spec("torch") is not None,
        help="time PyTorch's step, too",
    )
    return arguments.parse_args()


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Those of the step."""
    arguments.add_argument("--crop", type=int, nargs=2, default=[256, 512], help="height and width of images")
    arguments.add_argument("--batch", type=int, default=2, help="images per device")
    arguments.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the network")
    arguments.add_argument("--rematerialise", action="store_true", help="less memory, more to compute")
    arguments.add_argument("--repeats", type=int, default=10, help="steps that are timed")


def measure_time(arguments: argparse.Namespace) -> None:
    """The table of times, ours and PyTorch's."""
    torch_rows = measure_torch(arguments) if arguments.torch else []
    device, mesh = on_one_device(arguments)
    columns = {
        "step": "24s",
        "precision": "10s",
        "step [ms]": "11.1f",
        "images/s": "10.2f",
        "compile [s]": "13.1f",
        "memory [GB]": "13.2f",
        "TFLOP/s": "9.3f",
        "of matrix rate": "16.1%",
    }
    rate = matrix_rate(arguments.precision)
    table = Table(columns, arguments.json, device=device, matrix_rate=rate, arguments=vars(arguments))
    network = networks.create_network(arguments)
    program = compile_step(network, arguments.precision, mesh, arguments)
    seconds = median_seconds(RepeatedStep(program, mesh, arguments), arguments.repeats)
    ours = "ours", seconds, program.seconds, peak_memory(program.step) / 1e9
    for name, seconds, compilation, memory in (ours, *torch_rows):
        speed = program.flops / seconds
        times = 1000 * seconds, arguments.batch / seconds, compilation
        table.row(name, arguments.precision, *times, memory, speed / 1e12, speed / rate)


def on_one_device(arguments: argparse.Namespace) -> tuple[str, Mesh]:
    """Says what is measured; the kind of the device and a mesh of it."""
    device = jax.devices()[0]
    height, width = arguments.crop
    network = f"{arguments.network}, HRNet-W{arguments.width}, {arguments.classes} classes"
    print(f"{network}, {arguments.batch} x {height} x {width}, on one {device.device_kind}")
    return device.device_kind, parallel.create_mesh(devices=[device])


def compile_step(network: nnx.Module, precision: str, mesh: Mesh, arguments: argparse.Namespace) -> Program:
    """The published training step, with `arguments.batch` images on each device of the mesh."""
    network.set_attributes(rematerialise=arguments.rematerialise)
    graphdef, *_ = parameters.split(network)
    schedule = poly_schedule(0.01, total_steps=1000, power=0.9)
    optimizer = create_optimizer(schedule, momentum=0.9, weight_decay=5e-4)
    state = init_state(network, optimizer)
    packing = Packing(state, mesh.devices.flat[0].platform)
    step = jax.jit(
        partial(
            train_step,
            graphdef=graphdef,
            optimizer=optimizer,
            loss=loss_of(network),
            measure=partial(class_measures, align_corners=True),
            normalisation=networks.NORMALISATION,
            seed=0,
            precision=precision,
            packing=packing,
        ),
        out_shardings=parallel.replicated(mesh),
        donate_argnums=0,
    )
    packed = packing.pack(state)
    start = time.perf_counter()
    images = partial(jax.ShapeDtypeStruct, dtype=jnp.uint8, sharding=parallel.batch_sharded(mesh))
    size = (arguments.batch * mesh.size, *arguments.crop)
    lowered = step.lower(parallel.replicated_shapes(mesh, packed), images((*size, 3)), images(size))
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    return Program(compiled, packed, packing, lowered.cost_analysis()["flops"], seconds)


def loss_of(network: nnx.Module) -> Callable[..., dict[str, jax.Array]]:
    if isinstance(network, OVeNet):
        return partial(
            ovenet_loss,
            aux_weight=AUX_WEIGHT,
            confidence_weight=2.0,
            include_ignored=True,
            grid_align_corners=True,
            align_corners=True,
        )
    options = {"aux_weight": AUX_WEIGHT, "align_corners": True}
    return lambda output, label, batch_labels: {
        "total": segmentation_loss(output, label, batch_labels=batch_labels, **options)
    }


class RepeatedStep:
    """A program's step again and again, each on the state that the one before left, on `arguments.batch` random images
    for each device."""

    def __init__(self, program: Program, mesh: Mesh, arguments: argparse.Namespace):
        rng = np.random.default_rng(0)
        size = (arguments.batch * mesh.size, *arguments.crop)
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        label = rng.integers(0, arguments.classes, size, np.uint8)
        self._batch = jax.device_put((image, label), parallel.batch_sharded(mesh))
        self._step = program.step
        self.state = jax.device_put(program.state, parallel.replicated(mesh))

    def __call__(self) -> dict[str, jax.Array]:
        self.state, measures = self._step(self.state, *self._batch)
        return measures


def peak_memory(program: jax.stages.Compiled) -> float:
    """In bytes."""
    held = jax.devices()[0].memory_stats()
    if held:
        return held["peak_bytes_in_use"]
    sizes = program.memory_analysis()
    inputs_and_outputs = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return inputs_and_outputs + sizes.temp_size_in_bytes


def measure_torch(arguments: argparse.Namespace) -> list[tuple[str, float, float | None, float | None]]:
    """Name, seconds of a step and of compilation, gigabytes; in processes that have the device for themselves."""
    options = ["--crop", *map(str, arguments.crop), *["--small"] * arguments.small]
    for key in ("network", "width", "classes", "batch", "precision", "repeats"):
        options.append(f"--{key}={getattr(arguments, key)}")
    rows = []
    for name, compiled in (("PyTorch", []), ("PyTorch, torch.compile", ["--compile"])):
        command = [sys.executable, "-m", "benchmarks.torch_ovenet", *options, *compiled]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            print(f"{name} failed: {result.stderr.strip().splitlines()[-1]}")
        else:
            row = json.loads(result.stdout.splitlines()[-1])
            rows.append((name, row["seconds"], row["compile_seconds"], row["gigabytes"]))
    return rows


def count(arguments: argparse.Namespace) -> None:
    """The table of --counts."""
    device, mesh = on_one_device(arguments)
    columns = {
        "precision": "10s",
        "TFLOP": "8.3f",
        "accessed [GB]": "15.1f",
        "temporary [GB]": "16.2f",
        "state [GB]": "12.2f",
        "compile [s]": "13.1f",
        "  largest results": "60s",
    }
    table = Table(columns, arguments.json, device=device, arguments=vars(arguments))
    network = networks.create_network(arguments)
    for precision in PRECISIONS:
        program = compile_step(network, precision, mesh, arguments)
        memory = program.step.memory_analysis()
        table.row(
            precision,
            program.flops / 1e12,
            program.step.cost_analysis()["bytes accessed"] / 1e9,
            memory.temp_size_in_bytes / 1e9,
            memory.argument_size_in_bytes / 1e9,
            program.seconds,
            f"  {largest_results(program.step.as_text())}",
        )


def largest_results(program: str, shown: int = 3) -> str:
    """The largest arrays that the instructions of a compiled program make, and how many of each."""
    computations, entry = hlo.read_computations(program)
    making = (one for one in computations[entry].values() if one.opcode not in hlo.LAUNCHES_NOTHING)
    made = Counter(one.shapes[0]._replace(order=()) for one in making if len(one.shapes) == 1)
    largest = sorted(made, key=lambda shape: shape.bytes, reverse=True)[:shown]
    return ", ".join(f"{made[x]} x {x.type}[{','.join(map(str, x.sizes))}] ({x.bytes / 1e6:.0f} MB)" for x in largest)


if __name__ == "__main__":
    main()
