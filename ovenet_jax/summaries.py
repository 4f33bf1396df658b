"""What a run leaves to read: one JSON line per report, and TensorBoard files by CLU where TensorFlow is installed."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np


class Summaries:
    """Writes scalars and pictures of process 0 under `folder`: `metrics.jsonl` and TensorBoard's event files.

    A resumed run goes on after `step`: later lines of an earlier attempt are dropped.
    """

    def __init__(self, folder: Path, step: int):
        self._file = folder / "metrics.jsonl"
        self._drop_lines_after(step)
        self._tensorboard = _create_tensorboard_writer(folder / "tensorboard")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line {"step": step, ...}."""
        with self._file.open("a") as file:
            file.write(json.dumps({"step": step, **{k: float(v) for k, v in values.items()}}) + "\n")
        if self._tensorboard:
            self._tensorboard.write_scalars(step, dict(values))

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """uint8 [H, W, 3] RGB by name; for TensorBoard only."""
        if self._tensorboard:
            self._tensorboard.write_images(step, {name: p[None] for name, p in pictures.items()})

    def close(self) -> None:
        if self._tensorboard:
            self._tensorboard.close()

    def _drop_lines_after(self, step: int) -> None:
        if not self._file.exists():
            return
        lines = self._file.read_text().splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            temporary = self._file.with_suffix(".tmp")
            temporary.write_text("".join(f"{line}\n" for line in kept))
            temporary.replace(self._file)


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that was cut off."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return float("inf")


def _create_tensorboard_writer(folder: Path):
    try:
        from clu import metric_writers  # imports TensorFlow
    except ImportError:
        print("TensorFlow is not installed: metrics go to metrics.jsonl only, not to TensorBoard.")
        return None
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(folder)))
