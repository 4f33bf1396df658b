"""What libraries read in the environment, which has to be there before they are used. Imports none of them."""

import grp
import os
import pwd
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ovenet_jax.errors import UserError

EIGEN = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# XLA ends a process whose flags it does not know.
READ_FLAGS = "from jaxlib import _jax; _jax.CompileOptions()"


def prepare(deterministic: bool = False) -> None:
    """For main.py: what the environment does not say yet, and `convolve_by_eigen`.

    deterministic: GPUs compute the same bits every time. By default they add some numbers in an order left to chance,
    and convolve in the way that was fastest when tried.
    """
    _number_users()
    caches = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", "~/.cache"))  # noqa: PTH111  pathlib's raises
    if not caches.startswith("~"):  # as it does for a user without a home, in a container
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(caches) / "ovenet_jax" / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow writes summaries: it has nothing to say
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    convolve_by_eigen()
    if deterministic and not _add_flag(DETERMINISTIC):
        raise UserError(f"XLA_FLAGS names a file: write {DETERMINISTIC} there instead of config.deterministic.")


def _number_users() -> None:
    """In containers users may have no name: their number is one then, for libraries that ask who owns a file."""
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
    """On CPUs XLA convolves by Eigen and leaves the rest to YNNPACK, unless XLA_FLAGS says otherwise.

    XLA would give convolutions to YNNPACK as well, which takes up to ten times as long for the gradients of wide
    kernels (docs/performance.md); YNNPACK's sums are faster and more exact than XLA's. Nothing changes on GPUs, or
    where this jaxlib does not know the flag. To have YNNPACK's convolutions back, name their type with a + in
    XLA_FLAGS; where that names a file it is left alone.
    """
    if EIGEN not in os.environ.get("XLA_FLAGS", "") and xla_takes(EIGEN):
        _add_flag(EIGEN)


def _add_flag(flag: str) -> bool:
    """Whether it could be added: XLA_FLAGS may name a file. XLA heeds flags in their order, the user's last."""
    given = os.environ.get("XLA_FLAGS", "").strip()
    if given and not given.startswith("-"):
        return False
    os.environ["XLA_FLAGS"] = f"{flag} {given}".rstrip()
    return True


def xla_takes(flag: str) -> bool:
    """Whether this jaxlib knows the flag and its value; asked in a process of its own, which takes 0.3 s."""
    variables = {**os.environ, "XLA_FLAGS": flag}
    asked = subprocess.run([sys.executable, "-c", READ_FLAGS], env=variables, capture_output=True)
    return asked.returncode == 0
