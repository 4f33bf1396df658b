"""Whether a training step done twice from the same state gives the same bits: python -m benchmarks.repeatability ...

On GPUs it need not (docs/hosts.md); XLA_FLAGS=--xla_gpu_deterministic_ops=true is what config.deterministic sets. Needs
jax, flax and optax only.
"""

import argparse

import jax
import numpy as np

from benchmarks import networks
from benchmarks.table import Table, parser
from benchmarks.train_step import RepeatedStep, add_arguments, compile_step, on_one_device


def main() -> None:
    arguments = parse()
    device, mesh = on_one_device(arguments)
    program = compile_step(networks.create_network(arguments), arguments.precision, mesh, arguments)
    states = []
    for _ in range(2):
        step = RepeatedStep(program, mesh, arguments)
        step()
        states.append(program.packing.unpack(jax.device_get(step.state)).params)
    one, other = states
    differences = [np.abs(one[name] - other[name]).max() for name in one]
    table = Table({"parameters": "10d", "differ": "8d", "by at most": "12.1e"}, arguments.json, device=device)
    table.row(len(one), int(np.count_nonzero(differences)), float(max(differences)))


def parse() -> argparse.Namespace:
    arguments = parser("repeatability", "Whether a training step done twice gives the same bits.")
    networks.add_arguments(arguments)
    add_arguments(arguments)
    return arguments.parse_args()


if __name__ == "__main__":
    main()
