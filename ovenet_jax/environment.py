"""What libraries read in the environment, which has to be there before they are used. Imports none of them."""

import os
from pathlib import Path


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

    XLA (jaxlib 0.10.2) would give convolutions to YNNPACK as well, which takes up to ten times as long for the
    gradients of wide kernels: docs/performance.md. Its sums are wanted: XLA's own add up bfloat16 in bfloat16, and
    float32 less exactly. Nothing changes on GPUs.
    """
    eigen = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    given = os.environ.get("XLA_FLAGS", "")
    if eigen not in given:
        os.environ["XLA_FLAGS"] = f"{eigen} {given}".rstrip()  # of two that differ XLA takes the last
