"""Sets environment variables that libraries read on import, and therefore imports none of them."""

import grp
import os
import pwd
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ovenet_jax.errors import UserError

EIGEN = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
ADDRESS_SPACE = 2**33  # bytes; with less XLA and TensorFlow abort in C++
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# XLA aborts on unknown flags, so `xla_takes` tries them in a process of their own.
READ_FLAGS = "from jaxlib import _jax; _jax.CompileOptions()"


def prepare(deterministic: bool = False) -> None:
    """For main.py: sets the variables that are not set yet, and calls `convolve_by_eigen`.

    deterministic: bit-identical results on GPUs. By default some of their sums have no fixed order, and autotuning
    chooses the convolution algorithms.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit < ADDRESS_SPACE and limit != resource.RLIM_INFINITY:
        fault = f"`ulimit -v` leaves this process {limit >> 20} MiB of address space, too little for its libraries"
        raise UserError(f"{fault}; raise it to {ADDRESS_SPACE >> 20} MiB or more.")
    _name_users_by_number()
    caches = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")  # noqa: PTH111  pathlib's raises
    if not caches.startswith("~"):  # no home directory, as in containers
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(caches) / "ovenet_jax" / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: TensorFlow just writes summaries
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # shared memory of killed workers is removed without a warning
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    convolve_by_eigen()
    if deterministic and not _add_flag(DETERMINISTIC):
        raise UserError(f"XLA_FLAGS names a file: write {DETERMINISTIC} there instead of config.deterministic.")


def _name_users_by_number() -> None:
    """Names users and groups without a name (containers) by their id, for libraries that look up owners of files."""
    getpwuid, getgrgid = pwd.getpwuid, grp.getgrgid

    def user(uid: int) -> pwd.struct_passwd:
        with suppress(KeyError):
            return getpwuid(uid)
        return pwd.struct_passwd((str(uid), "x", uid, uid, "", "~", ""))

    def group(id: int) -> grp.struct_group:
        with suppress(KeyError):
            return getgrgid(id)
        return grp.struct_group((str(id), "x", id, []))

    pwd.getpwuid, grp.getgrgid = user, group


def convolve_by_eigen() -> None:
    """Makes XLA use Eigen instead of YNNPACK for convolutions on CPUs, and YNNPACK for the rest.

    The gradients of wide kernels take up to ten times as long in YNNPACK (docs/performance.md), whose sums are faster
    and more exact than XLA's. No effect on GPUs, if this jaxlib does not know the flag, or if XLA_FLAGS names a file.
    For YNNPACK's convolutions add the same flag with + instead of - to XLA_FLAGS.
    """
    if EIGEN not in os.environ.get("XLA_FLAGS", "") and xla_takes(EIGEN):
        _add_flag(EIGEN)


def _add_flag(flag: str) -> bool:
    """Puts the flag before the user's own, which therefore take precedence. False if XLA_FLAGS names a file."""
    given = os.environ.get("XLA_FLAGS", "").strip()
    if given and not given.startswith("-"):
        return False
    os.environ["XLA_FLAGS"] = f"{flag} {given}".rstrip()
    return True


def xla_takes(flag: str) -> bool:
    """Whether this jaxlib knows the flag and its value; found in a process of its own, which takes 0.3 s."""
    variables = {**os.environ, "XLA_FLAGS": flag}
    return subprocess.run([sys.executable, "-c", READ_FLAGS], env=variables, capture_output=True).returncode == 0
