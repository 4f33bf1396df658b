"""What libraries read in the environment, which has to be there before they are used. Imports none of them."""

import os
import subprocess
import sys
from pathlib import Path

EIGEN = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
# XLA ends a process whose flags it does not know.
READ_FLAGS = "from jaxlib import _jax; _jax.CompileOptions()"


def prepare() -> None:
    """For main.py: what the environment does not say yet, and `convolve_by_eigen`."""
    caches = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", "~/.cache"))  # noqa: PTH111  pathlib's raises
    if not caches.startswith("~"):  # as it does for a user without a home, in a container
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(caches) / "ovenet_jax" / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow writes summaries: it has nothing to say
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    convolve_by_eigen()


def convolve_by_eigen() -> None:
    """On CPUs XLA convolves by Eigen and leaves the rest to YNNPACK, unless XLA_FLAGS says otherwise.

    XLA would give convolutions to YNNPACK as well, which takes up to ten times as long for the gradients of wide
    kernels (docs/performance.md); YNNPACK's sums are faster and more exact than XLA's. Nothing changes on GPUs, or
    where this jaxlib does not know the flag. To have YNNPACK's convolutions back, name their type with a + in
    XLA_FLAGS; where that names a file it is left alone.
    """
    given = os.environ.get("XLA_FLAGS", "").strip()
    names_a_file = given and not given.startswith("-")
    if not names_a_file and EIGEN not in given and xla_takes(EIGEN):
        os.environ["XLA_FLAGS"] = f"{EIGEN} {given}".rstrip()  # XLA heeds them in their order


def xla_takes(flag: str) -> bool:
    """Whether this jaxlib knows the flag and its value; asked in a process of its own, which takes 0.3 s."""
    variables = {**os.environ, "XLA_FLAGS": flag}
    asked = subprocess.run([sys.executable, "-c", READ_FLAGS], env=variables, capture_output=True)
    return asked.returncode == 0
