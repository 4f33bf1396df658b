"""A training in a process of its own, forked from one that has imported everything: it starts at once."""

import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import jax
from absl import logging
from ml_collections import ConfigDict

from ovenet_jax.train import train


class Training:
    """It has begun. `place`: the address, the number of processes that train together, and which of them this one is.

    It ends like main.py: with 0 when all is done, with 75 when it was interrupted.
    """

    def __init__(self, config_file: Path, folder: Path, *place: str | int):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with tempfile.NamedTemporaryFile(dir=folder.parent, suffix=".txt", delete=False) as file:
            self._printed = Path(file.name)
        self.process = context.Process(target=_train, args=(self._printed, config_file, folder, *place))
        self.process.start()

    def end(self) -> tuple[int, str]:
        """Waits; (exit code, what it has printed)."""
        self.process.join(timeout=600)
        self.process.kill()  # one that hangs
        return self.process.exitcode, self._printed.read_text()


def _train(printed: Path, config_file: Path, folder: Path, address: str = "", count: int = 1, index: int = 0) -> None:
    with printed.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.modules["clu.metric_writers"] = None  # no TensorBoard, so that the process starts fast
    jax.config.update("jax_num_cpu_devices", 2 if address else 1)
    if address:
        jax.distributed.initialize(address, num_processes=count, process_id=index)
    logging.set_verbosity(logging.ERROR)
    config = ConfigDict(json.loads(config_file.read_text()))
    sys.exit(0 if train(config, folder) else 75)
