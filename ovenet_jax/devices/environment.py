"""What libraries read in the environment, which has to be there before they are used. Imports none of them."""

import os
from importlib import metadata
from pathlib import Path

EIGEN = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
JAXLIB = "0.10.2"  # with which it was measured


def prepare() -> None:
    """For main.py: what the environment does not say yet, and `convolve_by_eigen`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ovenet_jax" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow writes summaries: it has nothing to say
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    convolve_by_eigen()


def convolve_by_eigen() -> None:
    """On CPUs XLA convolves by Eigen and leaves the rest to YNNPACK, unless XLA_FLAGS says otherwise.

    XLA would give convolutions to YNNPACK as well, which takes up to ten times as long for the gradients of wide
    kernels (docs/performance.md); YNNPACK's sums are faster and more exact than XLA's. Nothing changes on GPUs.
    Only with the jaxlib that this was measured with, since XLA ends a process that gives it a flag it does not know:
    measure again with another. To have YNNPACK's convolutions back, name their type with a + in XLA_FLAGS; where
    that names a file it is left alone.
    """
    given = os.environ.get("XLA_FLAGS", "").strip()
    names_a_file = given and not given.startswith("-")
    if metadata.version("jaxlib") == JAXLIB and not names_a_file and EIGEN not in given:
        os.environ["XLA_FLAGS"] = f"{EIGEN} {given}".rstrip()  # XLA heeds them in their order
