"""What the training step spends its time on: python -m benchmarks.costs --width=48 --crop 512 1024 ...

JAX's profiler watches a few steps on random images on one device. Instructions of the compiled program are added up by
what they do (convolution, matrix product, copy, gather, scatter, and the rest: arithmetic and sums), in which part of
the step, in the forward or the backward pass; where the compiler has not kept that, those of what reads their result.
The costliest come first. "ms" is per step, "share" of the time of all instructions. On a CPU instructions run side by
side, and what Eigen's threads do of a convolution is not seen, so that times do not add up to the step's. Needs jax,
flax and optax only.
"""

import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
from jax.profiler import ProfileData

from benchmarks import hlo, networks
from benchmarks.table import Table, parser
from benchmarks.timing import median_seconds
from benchmarks.train_step import RepeatedStep, add_arguments, compile_step, on_one_device

KINDS = {
    "conv_general_dilated": "convolution",
    "convolution": "convolution",
    "dot_general": "product",
    "gather": "gather",
    "scatter-add": "scatter",
    "transpose": "copy",
    "copy": "copy",
}
HOLDERS = {"call", "while", "conditional"}  # of instructions that are counted themselves
WRAPPERS = {"jvp", "transpose", "vmap", "checkpoint", "rematted_computation", "while", "body", "closed_call"}


class Cost(NamedTuple):
    """What an instruction is counted under."""

    kind: str
    part: str
    direction: str


def main() -> None:
    arguments = parse()
    device, mesh = on_one_device(arguments)
    columns = {"kind": "14s", "part": "16s", "pass": "10s", "instructions": "14d", "ms": "10.1f", "share": "9.1%"}
    program = compile_step(networks.create_network(arguments), arguments.precision, mesh, arguments)
    step = RepeatedStep(program, mesh, arguments)
    seconds = median_seconds(step, arguments.repeats)
    print(f"{1000 * seconds:.1f} ms a step")
    table = Table(columns, arguments.json, device=device, step_seconds=seconds, arguments=vars(arguments))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(arguments.repeats):
                jax.block_until_ready(step())
        (file,) = Path(folder).rglob("*.xplane.pb")
        spent = seconds_by_instruction(file)
    if not spent:
        raise SystemExit("JAX's profiler saw no instruction of the step on this device.")
    described = instructions(program.step.as_text())
    times, numbers = Counter(), Counter()
    for name, total in spent.items():
        opcode, path = described.get(name, ("", ""))
        if opcode not in HOLDERS:
            cost = cost_of(name, path)
            times[cost] += total / arguments.repeats
            numbers[cost] += 1
    for cost, of_step in times.most_common(arguments.rows):
        table.row(*cost, numbers[cost], 1000 * of_step, of_step / times.total())


def parse() -> argparse.Namespace:
    arguments = parser("costs", "What a training step on one device spends its time on.")
    networks.add_arguments(arguments)
    add_arguments(arguments)
    arguments.add_argument("--rows", type=int, default=12, help="only the costliest")
    return arguments.parse_args()


def seconds_by_instruction(file: Path) -> Counter[str]:
    """Of a profile, by the names that instructions have in the compiled program.

    On a GPU each kernel stands in the line of its stream, and perhaps again in lines that are made of those.
    """
    planes = list(ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")] or planes
    spent = Counter()
    for plane in devices:
        lines = list(plane.lines)
        for line in [line for line in lines if line.name.startswith("Stream")] or lines:
            for event in line.events:
                facts = dict(event.stats)
                if facts.get("hlo_module") == "jit_train_step":
                    spent[facts["hlo_op"]] += event.duration_ns / 1e9
    return spent


def instructions(program: str) -> dict[str, tuple[str, str]]:
    """By name: opcode and the path of the JAX operation that it comes from.

    Where the compiler has not kept the path it is that of the first that reads the result, without the operation.
    """
    computations, _ = hlo.read_computations(program)
    found = {name: one for computation in computations.values() for name, one in computation.items()}
    readers: dict[str, hlo.Instruction] = {}
    for instruction in found.values():
        for operand in instruction.operands:
            readers.setdefault(operand, instruction)

    def path_of_reader(name: str) -> str:
        while reader := readers.get(name):
            if reader.path:
                return reader.path.rpartition("/")[0] + "/"
            name = reader.name
        return ""

    return {name: (one.opcode, one.path or path_of_reader(name)) for name, one in found.items()}


def cost_of(name: str, path: str) -> Cost:
    """Of an instruction that comes from "jit(train_step)/transpose(jvp(stage4))/conv_general_dilated" and the like."""
    *scopes, operation = path.partition(";")[0].split("/")  # of those that the compiler merged, the first
    parts = [part for scope in scopes[1:] for part in re.findall(r"\w+", scope) if part not in WRAPPERS]
    named = re.match("copy|transpose|convolution", name)  # XLA knows better than the operation, or alone
    kind = KINDS.get(named[0] if named else operation, "arithmetic")
    if "transpose(" in path:
        direction = "backward"
    else:
        direction = "forward" if "jvp(" in path else ""
    return Cost(kind, parts[0] if parts else "", direction)


if __name__ == "__main__":
    main()
