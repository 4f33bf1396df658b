"""Time of refining label maps, ours beside the published way: python -m benchmarks.refine

On label maps of 2048x1024, made on the spot from toy streets, with the offsets of their ground truth in published .mat
files. Both ways read and write files, which are in the system's cache, take turns on one core, and must write the same
labels; their processor time is counted. The published way needs PyTorch. Linux only.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from scipy import io
from torch.nn.functional import grid_sample

from benchmarks.table import Table, parser
from ovenet_jax.data import toy_streets
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.segfix import ground_truth, refine
from ovenet_jax.segfix.files import Offsets, write_offsets
from ovenet_jax.segfix.labels import evaluation_classes, offset_of_class, training_label

SIZE = (1024, 2048)
SCALE = 2
DIRECTIONS = 8


def main() -> None:
    arguments = parse()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_maps(root, arguments.maps)
        seconds = {"published": [], "ours": []}
        for i in range(arguments.rounds):
            seconds["published"].append(time_of(published, root, root / f"published_{i}"))
            seconds["ours"].append(time_of(ours, root, root / f"ours_{i}"))
        different = sum(
            not np.array_equal(*(cv2.imread(str(root / way / file.name), -1) for way in ("published_0", "ours_0")))
            for file in (root / "labels").iterdir()
        )
    columns = {"way": "12s", "a map [ms]": "12.1f", "maps/s": "9.1f", "of published": "14.1f"}
    table = Table(columns, arguments.json, different_maps=different, arguments=vars(arguments))
    for way, times in seconds.items():
        median = statistics.median(times) / arguments.maps
        ratio = statistics.median(map(np.divide, seconds["published"], times))
        table.row(way, 1000 * median, 1 / median, ratio)
    print(f"{different} of {arguments.maps} maps differ")


def parse() -> argparse.Namespace:
    arguments = parser("refine", "Time of refining label maps, ours beside the published way.")
    arguments.add_argument("--maps", type=int, default=8, help="in each round")
    arguments.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    return arguments.parse_args()


def write_maps(root: Path, maps: int) -> None:
    """Label maps with some of their columns in disorder, as labels, and the offsets of the true ones."""
    (root / "labels").mkdir()
    for i in range(maps):
        true = cv2.resize(toy_streets.scene("train", i)[1], SIZE[::-1], interpolation=cv2.INTER_NEAREST)
        truth = ground_truth.of_classes(true)
        nowhere = np.zeros(SIZE, bool)  # ignored
        classes = evaluation_classes(DIRECTIONS).train_ids()[training_label(truth, nowhere, DIRECTIONS)]
        write_offsets(root / f"offsets/{i}.mat", Offsets(offset_of_class(DIRECTIONS)[classes]))
        label = np.roll(true, 3, axis=1)
        cv2.imwrite(str(root / f"labels/{i}.png"), CITYSCAPES.label_ids()[label])


def time_of(way: Callable[[Path, Path], None], root: Path, out: Path) -> float:
    start = time.process_time()
    way(root, out)
    return time.process_time() - start


def ours(root: Path, out: Path) -> None:
    folders = [f"--labels={root}/labels", f"--offsets={root}/offsets", f"--out={out}"]
    refine.main([*folders, "--dataset=cityscapes", "--workers=1"])


def published(root: Path, out: Path) -> None:
    """As the published script: ids class by class, a grid of all pixels, PyTorch's sampling of numbers."""
    out.mkdir()
    for file in (root / "labels").iterdir():
        label = np.array(Image.open(file).convert("P"))
        numbers = np.full(label.shape, 255)
        for number, (label_id, *_) in enumerate(CITYSCAPES.ids):
            numbers[label == label_id] = number

        offset = io.loadmat(root / f"offsets/{file.stem}.mat")["mat"].astype(np.float32)
        offset = torch.from_numpy(offset.transpose(2, 0, 1) * SCALE)
        height, width = numbers.shape
        rows, columns = torch.meshgrid(
            torch.arange(height, dtype=torch.float), torch.arange(width, dtype=torch.float), indexing="ij"
        )
        position = torch.stack([offset[1] + columns, offset[0] + rows], dim=-1)
        grid = position / torch.tensor([(width - 1) / 2, (height - 1) / 2]) - 1
        values = torch.from_numpy(numbers)[None, None].float()
        sampled = grid_sample(values, grid[None], padding_mode="border", mode="bilinear", align_corners=True)
        refined = np.round(sampled.squeeze().numpy()).astype(np.uint8)

        ids = np.full(label.shape, 255, np.uint8)
        for number, (label_id, *_) in enumerate(CITYSCAPES.ids):
            ids[refined == number] = label_id
        Image.fromarray(ids).save(out / file.name)


if __name__ == "__main__":
    main()
