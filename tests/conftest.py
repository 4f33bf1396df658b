"""Eight CPU devices in one process, programs as users compile them, and a cache of those for this run and the next."""

import gc
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

# The processes that tests start inherit these.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ovenet_jax" / "tests-xla"),
)

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from ovenet_jax.devices import environment
from ovenet_jax.models.layers import InitialValues
from tests import tiny_step

environment.convolve_by_eigen()  # as main.py
jax.config.update("jax_num_cpu_devices", 8)
gc.set_threshold(50_000)  # tracing makes many objects, which Python would look through again and again
gc.freeze()

# Those that take over 20 s from an empty cache, the longest first: handed out in this order before all others, lest one
# of the processes ends long after the others.
LONG_FILES = [
    *("test_goldens", "test_resume", "test_parallel", "test_main", "test_openseg", "test_data_sets", "test_demo"),
    *("test_step", "test_benchmarks", "test_kills", "test_evaluate", "test_train", "test_inference"),
    *("test_starting_point", "test_packing", "test_extending", "test_configs", "test_precision", "test_predictor"),
]


@pytest.fixture(autouse=True, scope="module")
def no_garbage_of_other_files():
    """Commands collect garbage at their end: of what their own file's tests have made, not of all programs before."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def torch():
    """PyTorch, which reads .pth files. Who asks for it is marked `torch`, and skipped where it is not installed."""
    return pytest.importorskip("torch", reason="PyTorch is not installed: .pth files cannot be read here")


@pytest.fixture(scope="session")
def in_memory(tmp_path_factory):
    """Makes a folder for runs. A checkpoint flushes hundreds of files, which takes a disk a while: where Linux
    has a folder in memory, with 1 GiB to spare, it is there."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2**30:
        yield partial(tmp_path_factory.mktemp, "run")
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield lambda: Path(tempfile.mkdtemp(dir=folder))


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if "torch" in item.fixturenames:
            item.add_marker("torch")
    order = {stem: number for number, stem in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Once called, functions of two forms compute in that for GPUs, which CPUs can follow, too."""
    return lambda: monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *arguments, default, **_: default(*arguments)
    )


@pytest.fixture
def undrawn(monkeypatch):
    """Initial kernels are zeros that take no memory, for tests of shapes: to draw a full-size network takes seconds."""
    for draw in ("backbone_kernel", "default"):
        monkeypatch.setattr(InitialValues, draw, lambda _, shape, *__: np.broadcast_to(np.float32(0), shape))


@pytest.fixture
def tiny_model() -> ConfigDict:
    return tiny_step.tiny_model()
