"""What the commands of this folder share: how they work through files, what they leave, and how they end."""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
from tqdm import tqdm

from ovenet_jax.errors import UserError, listed
from ovenet_jax.segfix.label_maps import LABEL_IDS, TRAIN_IDS

# Done; something was named and left out; the user can mend it; stopped by Ctrl-C.
EXIT_DONE, EXIT_INCOMPLETE, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


def parser(module: str, description: str) -> argparse.ArgumentParser:
    """With the arguments that all commands take."""
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--labels", type=folder, required=True, help="folder of label PNGs, and its subfolders")
    made.add_argument("--out", type=folder, required=True, help="new folder for what is made of them")
    made.add_argument("--dataset", help="whose ids the labels hold: a data set's name, or your classes.yaml")
    made.add_argument("--ids", choices=(LABEL_IDS, TRAIN_IDS), default=LABEL_IDS, help="which ids these are")
    made.add_argument("--workers", type=_count, default=os.cpu_count(), help="cores to use (default: all)")
    return made


def folder(text: str) -> Path:
    return Path(text).expanduser()


def number(least: float, most: float) -> Callable[[str], float]:
    """The type of an argument that is a number from `least` to `most`."""

    def number_of(text: str) -> float:
        if not least <= float(text) <= most:  # nan is not, either
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {most}")
        return float(text)

    return number_of


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def run(command: Callable[[], Sequence[str]]) -> int:
    """Runs a command that returns its faults, and says what it has to; returns the exit code."""
    cv2.setNumThreads(1)  # there are as many workers as the user wants cores at work
    try:
        faults = command()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("Interrupted; nothing is kept.", file=sys.stderr)
        return EXIT_INTERRUPTED
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        print(f"{count}, left out:{listed(faults)}", file=sys.stderr)
    return EXIT_INCOMPLETE if faults else EXIT_DONE


def each(work: Callable, items: Sequence, workers: int, title: str) -> Iterator:
    """work(item) of all items in their order, by so many threads: what takes time is done outside of Python."""
    with ThreadPoolExecutor(workers) as threads:
        yield from tqdm(threads.map(work, items), title, len(items), unit=" files", mininterval=1)


@contextlib.contextmanager
def new_folder(target: Path, option: str = "--out") -> Iterator[Path]:
    """For a `with`: a folder to write into, which becomes `target` at the end, unless it is left empty; work that is
    interrupted leaves nothing. option: the flag that chooses it.

    Raises:
      UserError: target exists, or cannot be written.
    """
    if target.exists():
        raise UserError(
            f"{target} exists already and is not overwritten; move it away, or choose another {option}."
        )
    writing = target.with_name(f".{target.name}.incomplete")
    try:
        shutil.rmtree(writing, ignore_errors=True)  # of one that was killed
        writing.mkdir(parents=True)
        yield writing
        if any(writing.iterdir()):
            writing.rename(target)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror or error}); free or choose another {option}."
        ) from error
    finally:
        shutil.rmtree(writing, ignore_errors=True)
