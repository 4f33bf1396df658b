"""What buckets change: python -m benchmarks.bucketing WORKDIR [--buckets 1 32 64] [--as_they_are]

Evaluates the network of a run on images of varying size, exactly (bucket 1) and with the short sides of passes rounded
to multiples of some numbers. Images of the evaluation split are cropped to sizes of their own, 50 to 100 % of each
side; with --as_they_are, for a data set whose images vary by themselves, not.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.table import Table, parser
from ovenet_jax import errors
from ovenet_jax.data import pipeline
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.run import workdir
from ovenet_jax.supervision.task import task_of
from ovenet_jax.weights.network import restore_network


@dataclass(frozen=True, eq=False)
class Sampled:
    """Some images of a source, cropped at the bottom and right, each to a size of its own, or as they are."""

    source: pipeline.Source
    images: int
    cropped: bool

    def __len__(self) -> int:
        return min(self.images, len(self.source))

    def __getitem__(self, index: int) -> dict:
        sample = self.source[index * len(self.source) // len(self)]
        if not self.cropped:
            return sample
        shares = np.random.default_rng(index).uniform(0.5, 1, 2)
        height, width = (int(share * side) for share, side in zip(shares, sample["label"].shape, strict=True))
        return sample | {key: sample[key][:height, :width] for key in ("image", "label")}


def main() -> None:
    arguments = parse()
    config = workdir.config_of(arguments.workdir)
    task_of(config).prepare()
    network = restore_network(config.model, arguments.workdir, config.eval.checkpoint)
    columns = {"bucket": "8d", "shapes": "8d", "mIoU [%]": "10.3f", "change": "+9.3f", "seconds": "9.1f"}
    table = Table(columns, arguments.json, config=config.to_dict(), images=arguments.images)
    exact = None
    for bucket in arguments.buckets:
        config.eval.bucket = bucket
        evaluator = Evaluator(config, network.graphdef)
        evaluator.source = Sampled(evaluator.source, arguments.images, cropped=not arguments.as_they_are)
        start = time.perf_counter()
        evaluation = evaluator.run(network.params, network.statistics)
        seconds = time.perf_counter() - start
        miou = 100 * evaluation.miou
        exact = miou if exact is None else exact
        table.row(bucket, len(evaluator.inference.pass_sizes), miou, miou - exact, seconds)


def parse() -> argparse.Namespace:
    arguments = parser("bucketing", "What rounding the sizes of passes changes in the answers of a trained network.")
    arguments.add_argument("workdir", type=Path, help="of a run or an import")
    arguments.add_argument("--buckets", type=int, nargs="+", default=[1, 32, 64], help="1 is exact")
    arguments.add_argument("--images", type=int, default=24, help="of the split; exact passes compile for each")
    arguments.add_argument("--as_they_are", action="store_true", help="leave the images' sizes alone")
    return arguments.parse_args()


if __name__ == "__main__":
    sys.exit(errors.run(main))
