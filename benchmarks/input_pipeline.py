"""Training samples per second and core, ours beside the published way: python -m benchmarks.input_pipeline ...

On pairs of 2048x1024 PNGs, made on the spot and laid out like Cityscapes: from the photographs of a folder
(--images=DIR) or else from toy streets, with noise as cameras have it. All ways make batches of the Cityscapes config,
read files from the system's cache and take turns on one core; their processor time is counted, so that other programs
matter little. Linux only.
"""

import argparse
import itertools
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

from benchmarks.table import Table, parser
from configs import cityscapes
from ovenet_jax.data import imagenet, pipeline, toy_streets
from ovenet_jax.data.augment import Act
from ovenet_jax.data.labels import CITYSCAPES, IGNORE
from ovenet_jax.data.sizes import scaled_size

SIZE = (1024, 2048)
PAIRS = 8
NOISE = 3  # standard deviation in grey levels; the PNGs become as large as those of Cityscapes
ROUNDS = 3
BATCHES = {"published": 2, "compressed": 4, "decoded": 40}  # of a round
MEAN, STD = np.float32(imagenet.MEAN), np.float32(imagenet.STD)


def main() -> None:
    arguments = parse()
    cv2.setNumThreads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pipeline.THREADS = 1  # as many as cores
    config = cityscapes.get_config()
    with tempfile.TemporaryDirectory() as folder:
        config.data.root, config.data.prepared = f"{folder}/source", f"{folder}/prepared"
        files = write_tree(Path(config.data.root), arguments.images)
        sources = {storage: prepared(config.data, storage) for storage in ("compressed", "decoded")}
        seconds = {name: [] for name in BATCHES}
        for seed in range(ROUNDS):
            seconds["published"].append(time_published(files, config, seed))
            for storage, source in sources.items():
                seconds[storage].append(time_ours(source, config, seed, BATCHES[storage]))
        memory = {storage: worker_memory(source, config) for storage, source in sources.items()}
    columns = {"way": "12s", "ms": "8.2f", "samples/s": "12.1f", "of published": "14.2f", "worker [MB]": "13.0f"}
    table = Table(columns, arguments.json, arguments=vars(arguments))
    for name in BATCHES:
        median = statistics.median(seconds[name])
        ratio = statistics.median(map(np.divide, seconds["published"], seconds[name]))
        table.row(name, 1000 * median, 1 / median, ratio, memory.get(name))


def parse() -> argparse.Namespace:
    arguments = parser("input_pipeline", "Training samples per second and core, ours beside the published way.")
    arguments.add_argument("--images", help="a folder of photographs; default: toy streets")
    return arguments.parse_args()


def time_published(files: list[tuple[Path, Path]], config: ConfigDict, seed: int) -> float:
    """Processor seconds per sample."""
    rng = np.random.default_rng(seed)
    endless = itertools.cycle(files)
    start = time.process_time()
    for _ in range(BATCHES["published"]):
        pairs = itertools.islice(endless, config.batch_size)
        samples = [published(image, label, config.augment, rng) for image, label in pairs]
        for arrays in zip(*samples, strict=True):
            np.stack(arrays)
    return (time.process_time() - start) / (BATCHES["published"] * config.batch_size)


def published(
    image_file: Path, label_file: Path, augment: ConfigDict, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A sample as the published systems make it: decode, labels value by value, resize all, pad, crop, normalise, flip.

    Random numbers are drawn as by our acts.

    Returns:
      normalised image float32 [3, h, w], RGB, and label int32 [h, w].
    """
    image = cv2.imread(str(image_file), cv2.IMREAD_COLOR)
    ids = cv2.imread(str(label_file), cv2.IMREAD_GRAYSCALE)
    train_ids, label = CITYSCAPES.train_ids(), ids.copy()
    for value in CITYSCAPES.known_ids():
        label[ids == value] = train_ids[value]

    scale = 0.5 + rng.integers(augment.scale_factor, endpoint=True) / 10
    height, width = scaled_size(label.shape, augment.base_size * scale)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
    rows, columns = augment.crop
    missing = (0, max(rows - height, 0), 0, max(columns - width, 0))
    image = cv2.copyMakeBorder(image, *missing, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    label = cv2.copyMakeBorder(label, *missing, cv2.BORDER_CONSTANT, value=IGNORE)
    y, x = rng.integers(np.subtract(label.shape, augment.crop), endpoint=True)
    image, label = image[y : y + rows, x : x + columns], label[y : y + rows, x : x + columns]

    image = (image.astype(np.float32)[..., ::-1] / 255 - MEAN) / STD
    image, label = image.transpose(2, 0, 1), label.astype(np.int32)
    if rng.random() >= 0.5:
        image, label = image[..., ::-1], label[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def time_ours(source: pipeline.Source, config: ConfigDict, seed: int, count: int) -> float:
    """Processor seconds per sample; those that were made ahead count, too."""
    made = itertools.count()

    def counted(sample, _):
        next(made)
        return sample

    acts = [*pipeline.augmentations(config.augment, source.classes), counted]
    start = time.process_time()
    with batches_of(source, config, acts, seed) as batches:
        for _ in range(count):
            next(batches)
    return (time.process_time() - start) / next(made)


def worker_memory(source: pipeline.Source, config: ConfigDict) -> float:
    """The most memory that a worker process ever held, in MB, batches and mapped files included (Linux)."""
    acts = pipeline.augmentations(config.augment, source.classes)
    with batches_of(source, config, acts, seed=0, workers=1) as batches:
        for _ in range(6):
            next(batches)
        (worker,) = multiprocessing.active_children()
        status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def batches_of(
    source: pipeline.Source, config: ConfigDict, acts: list[Act], seed: int, workers: int = 0
) -> AbstractContextManager:
    settings = {"batch_size": config.batch_size, "seed": seed, "first_step": 0, "workers": workers}
    return pipeline.train_batches(source, acts, **settings)


def prepared(data: ConfigDict, storage: str) -> pipeline.Source:
    data.storage = storage
    pipeline.prepare(data)
    # The same images many times over: grain's shuffling is slow on very few.
    return pipeline.open_split(data, "+".join(["train"] * 64))


def write_tree(root: Path, images: str | None) -> list[tuple[Path, Path]]:
    """A Cityscapes tree with PAIRS training images and one for validation; returns the files of the former, paired."""
    rng = np.random.default_rng(0)
    known = np.array(sorted(CITYSCAPES.known_ids()))
    files = []
    for i in range(PAIRS + 1):
        image = cv2.resize(photograph(i, images), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        brightness = cv2.cvtColor(cv2.blur(image, (25, 25)), cv2.COLOR_BGR2GRAY)
        label = known[brightness // 8].astype(np.uint8)  # areas that follow those of the image
        image = np.clip(image + NOISE * rng.standard_normal(image.shape, np.float32), 0, 255).astype(np.uint8)
        stem = f"{'train' if i < PAIRS else 'val'}/town/town_{i:06d}_000000"
        pair = root / f"leftImg8bit/{stem}_leftImg8bit.png", root / f"gtFine/{stem}_gtFine_labelIds.png"
        for file, array in zip(pair, (image, label), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), array)
        files.append(pair)
    size = statistics.mean(image.stat().st_size for image, _ in files) / 1e6
    print(f"{PAIRS} pairs of {SIZE[1]}x{SIZE[0]}, images of {size:.1f} MB as PNG")
    return files[:PAIRS]


def photograph(index: int, folder: str | None) -> np.ndarray:
    """BGR."""
    if not folder:
        return toy_streets.scene("train", index)[0][..., ::-1]
    files = sorted(path for path in Path(folder).iterdir() if path.suffix in (".jpg", ".png"))
    return cv2.imread(str(files[index % len(files)]), cv2.IMREAD_COLOR)


if __name__ == "__main__":
    main()
