"""Eight CPU devices in one process, programs as users compile them, and a cache of those for this run and the next."""

import os
from pathlib import Path

# The processes that tests start inherit these.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ovenet_jax" / "tests-xla"),
)

import jax
import pytest
from absl import flags
from ml_collections import ConfigDict

from configs import common
from ovenet_jax.data import imagenet
from ovenet_jax.devices import environment

environment.convolve_by_eigen()  # as main.py
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="session")
def parsed_flags():
    """grain's worker processes want absl's flags parsed."""
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def tiny_model() -> ConfigDict:
    """`config.model` of an OVeNet with 5 classes that compiles in seconds."""
    return ConfigDict(
        {
            "num_classes": 5,
            "align_corners": True,
            "norm_momentum": 0.1,
            "input": {
                "bgr": False,
                "divisor": 255.0,
                "mean": imagenet.MEAN,
                "std": imagenet.STD,
            },
            "backbone": {
                "name": "hrnet",
                "width": 4,
                "modules": (1, 1, 1),
                "blocks": 1,
                "layer1_blocks": 1,
                "layer1_width": 4,
                "stem_width": 8,
                "he_init": False,
            },
            "head": common.ocr(16),
            "offset": {
                "branch": 4,
                "modules": (1,),
                "threshold": 0.2,
                "refinement": 0,
                "logits": True,
                "grid_align_corners": True,
                "default_init": True,
            },
        }
    )
