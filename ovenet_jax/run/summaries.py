"""Metrics of a run: one JSON line per report, and TensorBoard files by CLU where TensorFlow is installed."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ovenet_jax import files

GROUPS = ("loss_", "accuracy_", "eval_")  # prefixes of measures


class JsonLines:
    """JSON objects in a file, one per line. keep: which lines of an earlier attempt stay.

    `count` says how many there are. With `read_only` lines are counted but not written: another process writes them.
    """

    def __init__(self, path: Path, keep: Callable[[dict], bool], read_only: bool = False):
        self.path, self._read_only, self._unwritten, before = path, read_only, "", b""
        try:
            before = path.read_bytes() if path.exists() else b""
        except OSError as error:
            print(f"Warning: {path} cannot be read ({error.strerror}); training is not affected.")
        lines = before.splitlines(keepends=True)
        whole = [(line, content) for line in lines if (content := _parsed(line))]
        kept = [line.rstrip() + b"\n" for line, content in whole if keep(content)]
        self.count = len(kept)
        if read_only:
            return
        cut_off = bool(lines) and not before.endswith(b"\n") and not _parsed(lines[-1])  # by a crash
        try:
            if len(whole) + cut_off < len(lines):
                aside = path.with_name(f"{path.name}.damaged")
                files.write(aside, before)
                print(f"Warning: damaged lines of {path} are removed; the original file is saved as {aside}.")
            if b"".join(kept) != before:
                files.write(path, b"".join(kept))
        except OSError as error:
            print(f"Warning: {path} cannot be written now ({error.strerror}); free space.")

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds one line. If the disk is full, warns and tries again with the next line."""
        self.count += 1
        if not self._read_only:
            self._unwritten += files.to_json(line) + "\n"
            self._write("free space: the lines are kept in memory and written later")

    def close(self) -> None:
        """Tries once more to write what could not be written."""
        if self._unwritten:
            self._write("its last lines are lost")

    def _write(self, otherwise: str) -> None:
        whole = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a") as file:
                file.write(self._unwritten)
            self._unwritten = ""
        except OSError as error:
            if self.path.is_file():
                os.truncate(self.path, whole)
            print(f"Warning: {self.path} cannot be written now ({error.strerror}); {otherwise}.")


class Summaries:
    """Writes scalars and pictures of process 0 under `folder`: `metrics.jsonl` and TensorBoard's event files.

    A resumed run continues after `step`: lines of later steps are dropped. evaluated: whether that step's evaluation
    was complete; else its lines are dropped, too.
    """

    def __init__(self, folder: Path, step: int, evaluated: bool = True):
        def keep(line: dict) -> bool:
            open_evaluation = not evaluated and any(key.startswith("eval_") for key in line)
            return line["step"] < step or (line["step"] == step and not open_evaluation)

        self._lines = JsonLines(folder / "metrics.jsonl", keep)
        self._tensorboard = self._attempt(partial(create_tensorboard_writer, folder / "tensorboard"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line {"step": step, ...}. TensorBoard groups them: eval_miou_fused is eval/miou_fused there."""
        self._lines.append({"step": step, **{key: float(value) for key, value in values.items()}})
        tags = {key: key.replace("_", "/", 1) if key.startswith(GROUPS) else f"training/{key}" for key in values}
        self._on_tensorboard(lambda writer: writer.write_scalars(step, {tags[key]: values[key] for key in values}))

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """uint8 [H, W, 3] RGB by name; for TensorBoard only."""
        batches = {name: picture[None] for name, picture in pictures.items()}
        self._on_tensorboard(lambda writer: writer.write_images(step, batches))

    def close(self) -> None:
        self._lines.close()
        self._on_tensorboard(lambda writer: writer.close())

    def _on_tensorboard(self, act: Callable[[Any], None]) -> None:
        if self._tensorboard:
            self._attempt(partial(act, self._tensorboard))

    def _attempt(self, act: Callable[[], Any]) -> Any:
        """The result of `act`. After an error TensorBoard's files are no longer written; the run continues."""
        try:
            return act()
        except Exception as error:  # TensorFlow's own kinds, of this or an earlier write; or it is not installed
            self._tensorboard = None
            message, *_ = str(error).split("\n")
            print(f"Note: TensorBoard's files are not written ({message[:200]}); {self._lines.path} has the metrics.")


def _parsed(line: bytes) -> dict | None:
    """The object in a line; None where that is damaged."""
    try:
        return files.parse_json(line, {"step": int})
    except ValueError:
        return None


def create_tensorboard_writer(folder: Path):
    from clu import metric_writers  # imports TensorFlow

    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(folder)))
