"""Versions, devices and settings of this machine: text for a report of a bug."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import ovenet_jax
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError

PACKAGES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "flax", "optax", "orbax-checkpoint", "grain"),
    *("tensorflow-datasets", "ml_collections", "numpy", "scipy", "opencv-python-headless"),
    *("pillow", "matplotlib", "tensorflow"),
)
VARIABLES = (  # no more of Slurm's and NVIDIA's, which may be secrets, as SLURM_JWT
    *("JAX_", "XLA_", "TF_CPP_", "CUDA_", "NVIDIA_VISIBLE_", "NCCL_", "OMPI_COMM_", "OMP_", "LD_", "XDG_CACHE_"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_"),
)
DRIVER = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def as_text() -> str:
    """A line for each fact, or the reason why it is unknown."""
    installed = {package.name: package.version for package in metadata.distributions()}
    facts = {"ovenet_jax": ovenet_jax.__version__, "Python": platform.python_version(), "system": platform.platform()}
    facts |= {name: installed.get(name, "not installed") for name in PACKAGES}
    facts["cores"] = str(os.cpu_count())
    facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    for folder in filter(Path.exists, (Path("/dev/shm"), Path.cwd())):
        facts[f"free in {folder}"] = f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"
    try:
        facts["devices"] = parallel.devices_in_words()
    except UserError as error:  # a driver that is too old, for example
        facts["devices"] = str(error)
    try:
        asked = subprocess.run(DRIVER, capture_output=True, text=True, timeout=60)
        facts["GPU, memory, driver"] = "; ".join((asked.stdout + asked.stderr).strip().splitlines())
    except (OSError, subprocess.TimeoutExpired):
        facts["GPU, memory, driver"] = "nvidia-smi is missing or does not answer"
    facts |= {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}
    return "\n".join(f"{name}: {value}" for name, value in facts.items())
