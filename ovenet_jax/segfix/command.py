"""Shared parts of the commands in this folder: arguments, the loop over files, exit codes."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import cv2
from tqdm import tqdm

from ovenet_jax import errors, files, tables
from ovenet_jax.data.encodings import LABEL_IDS, TRAIN_IDS

CORES = os.cpu_count() or 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise errors.UserError(f"{message}; --help lists all arguments.")


def parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all commands take."""
    layout = argparse.RawDescriptionHelpFormatter
    made = _Parser(prog=f"python -m {module}", description=description, formatter_class=layout, allow_abbrev=False)
    made.add_argument("--labels", type=folder, required=True, help="folder of label PNGs, and its subfolders")
    made.add_argument("--out", type=folder, required=True, help="new folder for the output")
    made.add_argument("--dataset", help="class table of the labels: a data set's name, or your classes.yaml")
    made.add_argument("--ids", choices=(LABEL_IDS, TRAIN_IDS), default=LABEL_IDS, help="kind of ids in the labels")
    made.add_argument("--workers", type=number(1, 1024, int), default=CORES, help="cores to use (default: all)")
    return made


def folder(text: str) -> Path:
    return Path(files.at_home(text))


def number(least: float, most: float, kind: type = float) -> Callable[[str], float]:
    """The type of an argument that is a number from `least` to `most`."""

    def number_of(text: str) -> float:
        with suppress(ValueError):
            if least <= kind(text) <= most:  # nan is not
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")

    return number_of


def run(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    command: Callable[[argparse.Namespace], Sequence[str]],
) -> int:
    """Parses `arguments`, runs `command`, prints the faults that it returns, and returns the exit code."""

    def faults_told() -> int:
        cv2.setNumThreads(1)  # --workers sets the number of busy cores
        if faults := command(parser.parse_args(arguments)):
            print(f"{tables.number_of(len(faults), 'fault')}, left out:{errors.listed(faults)}", file=sys.stderr)
        return errors.EXIT_INCOMPLETE if faults else errors.EXIT_DONE

    return errors.run(faults_told)


def each(
    work: Callable[[Any], Any], items: Sequence, workers: int, title: str, faults: list[str], end: str = ""
) -> Iterator[Any]:
    """Yields work(item) in order, computed by `workers` threads, since work releases the GIL. If it raises
    OSError or ValueError, the error's sentence plus `end` is added to `faults` instead."""

    def attempt(item: Any) -> tuple[Any, Exception | None]:
        try:
            return work(item), None
        except (OSError, ValueError) as error:
            return None, error

    with ThreadPoolExecutor(workers) as threads:
        for result, error in tqdm(threads.map(attempt, items), title, len(items), unit=" files", mininterval=1):
            if error:
                faults.append(f"{error}{end}")
            else:
                yield result
