import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from ovenet_jax.devices import environment
from ovenet_jax.errors import UserError
from tests.places import ROOT

PROGRAM = """
from ovenet_jax.devices import environment
environment.prepare()
import jax, jax.numpy as jnp

def loss(kernel, x):
    layout = ("NHWC", "HWIO", "NHWC")
    return jnp.sum(jnp.sin(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)))

kernel = jnp.ones((3, 3, 64, 64))  # of small convolutions none is YNNPACK's
print(jax.jit(jax.grad(loss)).lower(kernel, jnp.ones((2, 64, 128, 64))).compile().as_text())
"""


def compiled(xla_flags: str, cache: Path) -> str:
    """The program that a process with these XLA_FLAGS makes of a kernel's gradient."""
    variables = {**os.environ, "XLA_FLAGS": xla_flags, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_xla_hears_that_gpus_are_to_compute_the_same_bits_every_time(tmp_path):
    compiled_anew = {"XLA_FLAGS": f"--xla_dump_to={tmp_path}", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    variables = {**os.environ, **compiled_anew}
    code = "from ovenet_jax.devices import environment; environment.prepare(deterministic=True)\nimport jax\n"
    subprocess.run([sys.executable, "-c", f"{code}jax.jit(abs)(1.0)"], cwd=ROOT, env=variables, check=True)
    options = [file.read_text() for file in tmp_path.glob("*debug_options")]
    assert options
    assert all("xla_gpu_deterministic_ops: true" in text for text in options)


def test_who_has_no_name_is_called_by_number(monkeypatch, tmp_path):
    """As in containers: libraries look up whom files belong to."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(grp, "getgrgid", nobody)
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": environment.EIGEN, "XDG_CACHE_HOME": str(tmp_path)})
    environment.prepare()
    assert (tmp_path.owner(), tmp_path.group()) == (str(os.getuid()), str(os.getgid()))


@pytest.mark.parametrize("variables", [{"HOME": "/home/me"}, {"HOME": "/home/me", "XDG_CACHE_HOME": ""}])
def test_compiled_programs_are_kept_in_the_users_cache(monkeypatch, variables):
    """An empty variable is none, as in the specification of XDG_CACHE_HOME."""
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": environment.EIGEN, **variables})
    environment.prepare()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/home/me/.cache/ovenet_jax/xla"


def test_too_little_address_space_is_named():
    code = "from ovenet_jax import errors; from ovenet_jax.devices import environment; errors.run(environment.prepare)"
    shell = ["sh", "-c", f'ulimit -v 2000000; exec "{sys.executable}" -c "{code}"']
    ended = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True)
    said = (
        "Error: `ulimit -v` leaves this process 1953 MiB of address space, too little for its libraries; raise it to 8"
    )
    assert ended.stderr.startswith(said)


def test_a_file_of_flags_has_to_say_so_itself(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "flags.txt")
    with pytest.raises(UserError, match="names a file"):
        environment.prepare(deterministic=True)


def test_convolutions_on_cpus_are_not_ynnpacks_unless_the_user_says_so(tmp_path):
    if not environment.xla_takes(environment.EIGEN):
        pytest.skip("this jaxlib has no flag for what YNNPACK takes")
    ours = compiled("", tmp_path)
    assert ours.count(" convolution(") == 2
    assert "__ynn_fusion" not in ours
    given = "--xla_cpu_experimental_ynn_fusion_type=+LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    assert "__ynn_fusion" in compiled(given, tmp_path)


@pytest.mark.parametrize(
    ("flag", "taken"),
    [
        ("--xla_dump_to=x", True),
        ("--xla_dump_to=x --xla_no_such_flag=1", False),
        ("--xla_cpu_experimental_ynn_fusion_type=-NO_SUCH_TYPE", False),
    ],
)
def test_xla_is_asked_whether_it_takes_a_flag(flag, taken):
    assert environment.xla_takes(flag) == taken


@pytest.mark.parametrize("given", ["", " --xla_force_host_platform_device_count=2"])
def test_what_the_user_gives_xla_comes_last(given, monkeypatch):
    monkeypatch.setattr(environment, "xla_takes", lambda _: True)
    monkeypatch.setenv("XLA_FLAGS", given)
    for _ in range(2):
        environment.convolve_by_eigen()
    ours, *theirs = os.environ["XLA_FLAGS"].split()
    assert ours == environment.EIGEN
    assert theirs == given.split()


@pytest.mark.parametrize(("given", "taken"), [("flags.txt", True), ("--xla_dump_to=x", False)])
def test_a_file_of_flags_and_a_jaxlib_without_this_one_are_left_alone(given, taken, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(environment, "xla_takes", lambda _: taken)
    environment.convolve_by_eigen()
    assert os.environ["XLA_FLAGS"] == given
