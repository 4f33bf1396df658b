"""What buckets change: python -m benchmarks.bucketing --config=configs/camvid.py:ovenet_tiny --workdir=DIR ...

Evaluates the network of a run on images of varying size, exactly (bucket 1) and with the short sides of passes rounded
to multiples of some numbers. Images of the evaluation split are cropped to sizes of their own, 50 to 100 % of each
side; with --as_they_are, for a data set whose images vary by themselves, not.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from benchmarks.table import Table, json_file
from ovenet_jax.data import pipeline
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.run.network import restore_network
from ovenet_jax.supervision.task import task_of

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py[:variant], see configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run or an import.", required=True)
BUCKETS = flags.DEFINE_list("buckets", ["1", "32", "64"], "1 is exact.")
IMAGES = flags.DEFINE_integer("images", 24, "So many, evenly spread over the split; exact passes compile for each.")
JSON = flags.DEFINE_string("json", json_file("bucketing"), "A file for the numbers of the table.")
AS_THEY_ARE = flags.DEFINE_boolean("as_they_are", False, "Leave the images' sizes alone.")


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


def main(_) -> None:
    config = CONFIG.value
    task_of(config).prepare()
    network = restore_network(config.model, Path(WORKDIR.value), config.eval.checkpoint)
    columns = {"bucket": "8d", "shapes": "8d", "mIoU [%]": "10.3f", "change": "+9.3f", "seconds": "9.1f"}
    table = Table(columns, JSON.value, config=config.name, workdir=WORKDIR.value, images=IMAGES.value)
    exact = None
    for bucket in map(int, BUCKETS.value):
        config.eval.bucket = bucket
        evaluator = Evaluator(config, network.graphdef)
        evaluator.source = Sampled(evaluator.source, IMAGES.value, cropped=not AS_THEY_ARE.value)
        start = time.perf_counter()
        evaluation = evaluator.run(network.params, network.statistics)
        seconds = time.perf_counter() - start
        miou = 100 * evaluation.miou
        exact = miou if exact is None else exact
        table.row(bucket, len(evaluator.inference.pass_sizes), miou, miou - exact, seconds)


if __name__ == "__main__":
    app.run(main)
