"""Time per image of the test protocols, and what buckets save: python -m benchmarks.inference [--width=48] ...

On random images and untrained weights: time does not depend on either. A row's first image is timed with its
compilations (nothing is cached), later ones are the median. "varying" are images of as many sizes as there are.
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import jax
import numpy as np

from benchmarks import networks
from benchmarks.table import Table, parser
from ovenet_jax.configs.keys import PRECISIONS
from ovenet_jax.devices import parallel
from ovenet_jax.evaluation.inference import Inference
from ovenet_jax.evaluation.protocol import Protocol, passes
from ovenet_jax.models import parameters

SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
ROWS = (
    # title, scales, flip, windows, bucket, varying sizes
    ("scale 1", (1.0,), False, "cityscapes", 1, False),
    ("scale 1, flip", (1.0,), True, "cityscapes", 1, False),
    ("six scales, flip", SIX, True, "cityscapes", 1, False),
    ("six scales, flip, generic windows", SIX, True, "generic", 1, False),
    ("scale 1, varying, exact", (1.0,), False, "cityscapes", 1, True),
    ("scale 1, varying, bucket 64", (1.0,), False, "cityscapes", 64, True),
)


def main() -> None:
    arguments = parse()
    height = arguments.height
    graphdef, *arrays = parameters.split(networks.create_network(arguments))
    mesh = parallel.create_mesh(devices=jax.local_devices()[:1])
    arrays = jax.device_put(arrays, parallel.replicated(mesh))
    device = jax.devices()[0].device_kind
    print(f"{arguments.network}, HRNet-W{arguments.width}, images of {height} x {2 * height}, on one {device}")
    columns = {"protocol": "36s", "runs": "6d", "shapes": "8d", "first [s]": "11.2f", "later [s]": "11.2f"}
    table = Table(columns, arguments.json, device=device, arguments=vars(arguments))
    for title, scales, flip, windows, bucket, varying in ROWS[: arguments.rows]:
        protocol = Protocol(
            base_size=2 * height,
            window=(height, 2 * height),
            scales=scales,
            flip=flip,
            windows=windows,
            side="long",
            sum="exp",
            bucket=bucket,
        )
        jax.clear_caches()
        inference = Inference(
            graphdef,
            protocol,
            align_corners=True,
            normalisation=networks.NORMALISATION,
            mesh=mesh,
            precision=arguments.precision,
            answer_only=True,
        )
        samples = [{"image": image} for image in images(arguments.images, height, varying)]
        ends = [time.perf_counter()]
        for _, segmentation in inference.over(samples, *inference.stored(*arrays)):
            jax.block_until_ready(segmentation.prediction)
            ends.append(time.perf_counter())
        first, *later = np.diff(ends)
        runs = len(passes((height, 2 * height), protocol, True)) * (1 + flip)
        table.row(title, runs, len(inference.pass_sizes), first, statistics.median(later))


def parse() -> argparse.Namespace:
    arguments = parser("inference", "Time per image of the test protocols on one device.")
    networks.add_arguments(arguments)
    arguments.add_argument("--height", type=int, default=256, help="of images and test windows; width: twice that")
    arguments.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the network")
    arguments.add_argument("--images", type=int, default=6, help="per row, 2 at least")
    arguments.add_argument("--rows", type=int, default=len(ROWS), help="only the first ones")
    return arguments.parse_args()


def images(number: int, height: int, varying: bool) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(number):
        rows = rng.integers(height // 2, height) if varying else height
        yield rng.integers(0, 256, (rows, 2 * height, 3), dtype=np.uint8)


if __name__ == "__main__":
    main()
