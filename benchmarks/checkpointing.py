"""What a checkpoint costs a training run: python -m benchmarks.checkpointing [--width=48] [--crop 512 1024] ...

One device trains on random images and saves its state as `ovenet_jax.train` does. "blocked" is what starting a save
takes, "slowed" by how much the steps until it is complete take longer than as many others. "overhead" is both, as a
share of a run with a checkpoint every 1,000 steps. Needs Orbax.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import jax

from benchmarks import networks
from benchmarks.table import Table, parser
from benchmarks.train_step import RepeatedStep, add_arguments, compile_step, on_one_device
from ovenet_jax.run.checkpoint import Checkpoints

EVERY = 1000  # steps


def main() -> None:
    arguments = parse()
    device, mesh = on_one_device(arguments)
    program = compile_step(networks.create_network(arguments), arguments.precision, mesh, arguments)
    step = RepeatedStep(program, mesh, arguments)

    def seconds_of_step() -> float:
        start = time.perf_counter()
        jax.block_until_ready(step())
        return time.perf_counter() - start

    columns = {
        "state [GB]": "10.2f",
        "step [ms]": "11.1f",
        "blocked [s]": "13.2f",
        "slowed [s]": "12.2f",
        "overhead": "10.2%",
    }
    table = Table(columns, arguments.json, device=device, arguments=vars(arguments))
    usual = statistics.median([seconds_of_step() for _ in range(2 + arguments.repeats)][2:])
    gigabytes = sum(x.nbytes for x in jax.tree.leaves(step.state)) / 1e9
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, closing(Checkpoints(Path(folder))) as saved:
        for _ in range(arguments.saves):
            complete, beside = Path(folder) / str(int(step.state.step)), []
            start = time.perf_counter()
            saved.save(program.packing.by_name(mesh, step.state))
            blocked = time.perf_counter() - start
            while not complete.exists():
                beside.append(seconds_of_step())
            slowed = max(0.0, sum(beside) - len(beside) * usual)
            table.row(gigabytes, 1000 * usual, blocked, slowed, (blocked + slowed) / (EVERY * usual))


def parse() -> argparse.Namespace:
    arguments = parser("checkpointing", "What a checkpoint costs a training run on one device.")
    networks.add_arguments(arguments)
    add_arguments(arguments)
    arguments.add_argument("--saves", type=int, default=3, help="how many; the first one is slower")
    arguments.add_argument("--folder", help="where to save; by default where temporary files are")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
