"""The main module of the pipeline's worker processes (see `_light_main_module` in pipeline.py).

A worker only reads and augments: it does not import jax, leaves signals to the process that started it, and ends
when that one has gone.
"""

import os
import signal
import sys
import threading
import time

import cv2
from absl import logging

from ovenet_jax.errors import INTERRUPTIONS


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__mp_main__":
    sys.modules["jax"] = None  # type: ignore[assignment]  # grain then uses tree functions of its own ...
    logging.set_verbosity(logging.ERROR)  # ... and would warn that it does
    cv2.setNumThreads(1)  # the number of workers already sets the number of busy cores
    # These are often sent to all processes, but the main one still needs a batch for its last step.
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=[os.getppid()], daemon=True).start()
