"""The main module of the pipeline's worker processes (see `_light_main_module` in pipeline.py).

A worker only reads and augments. grain would import jax there for its tree functions, but has its own where
there is none.
"""

import sys

from absl import logging

if __name__ == "__mp_main__":
    sys.modules["jax"] = None
    logging.set_verbosity(logging.ERROR)  # grain warns that there is no jax
