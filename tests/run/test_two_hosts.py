"""Two processes on hosts of their own (network namespaces) train together: under Slurm's script, and until the link
between them is cut.

Needs root and `ip`: python -m pytest -m slow tests/run/test_two_hosts.py -s
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.camvid_tree import write_tree
from tests.places import ROOT
from tests.test_main import arguments

HOSTS = ("ovenet-test-0", "ovenet-test-1")
ADDRESSES = ("10.231.0.1", "10.231.0.2")

SRUN = """#!/bin/bash
# As srun: starts the command once on each host, and ends with the exit code of one that fails.
shift  # --kill-on-bad-exit=1
for i in 0 1; do
    SLURM_PROCID=$i ip netns exec ovenet-test-$i "$@" > {folder}/$SLURM_RESTART_COUNT-$i 2>&1 &
    echo $! > {folder}/pid-$i
done
code=0
for process in $(jobs -p); do wait $process || code=$?; done
exit $code
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[None]:
    """Two network namespaces with a cable between them, in each of which this machine's name is its own address."""
    files = [Path("/etc/netns") / host / "hosts" for host in HOSTS]
    try:
        for host, address, file in zip(HOSTS, ADDRESSES, files, strict=True):
            ip("netns", "add", host)
            file.parent.mkdir(parents=True)
            names = "".join(f"{address} {host}\n" for host, address in zip(HOSTS, ADDRESSES, strict=True))
            file.write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n{names}")
        ends = [["netns", host, "name", "cable"] for host in HOSTS]
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for host, address in zip(HOSTS, ADDRESSES, strict=True):
            ip("-n", host, "addr", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", host, "link", "set", device, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        yield
    finally:
        for host, file in zip(HOSTS, files, strict=True):
            ip("netns", "del", host)
            shutil.rmtree(file.parent)


@pytest.mark.slow
@pytest.mark.usefixtures("hosts")
def test_both_sides_of_a_cut_link_say_so_within_half_a_minute(tmp_path):
    write_tree(tmp_path, counts={"train": 8, "val": 3, "test": 1})
    command = arguments(tmp_path, "run", "--config.evaluate_every=100000", steps=100_000)
    processes = []
    for index, host in enumerate(HOSTS):
        meeting = [f"--coordinator={ADDRESSES[0]}:7000", "--processes=2", f"--process={index}"]
        within = ["ip", "netns", "exec", host, sys.executable, "main.py", *command, *meeting]
        processes.append(subprocess.Popen(within, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        for line in processes[0].stdout:
            if line.startswith("step 5/"):
                break
        else:
            pytest.fail(processes[0].communicate()[1][-3000:])
        ip("-n", HOSTS[0], "link", "set", "cable", "down")
        cut = time.monotonic()
        for index, process in enumerate(processes):
            errors = process.communicate(timeout=60)[1]
            seconds = time.monotonic() - cut
            print(f"process {index}: {seconds:.1f} s after the cut, exit code {process.returncode}: {errors}")
            assert process.returncode == 75
            assert f"Error: Process {1 - index} is lost (" in errors
            assert "Traceback" not in errors
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.usefixtures("hosts")
def test_under_slurm_two_hosts_stop_together_and_go_on_from_the_queue(tmp_path):
    write_tree(tmp_path, counts={"train": 8, "val": 3, "test": 1})
    for name, content in (
        ("srun", SRUN.format(folder=tmp_path)),
        ("scontrol", f'#!/bin/sh\necho "$@" > {tmp_path}/queue'),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    command = ["bash", ROOT / "launch" / "train.slurm", *arguments(tmp_path, "run", steps=40)]
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "ovenet-test-[0-1]", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    variables = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable}

    def told(start: int, index: int = 0) -> str:
        file = tmp_path / f"{start}-{index}"
        return file.read_text() if file.exists() else ""

    with subprocess.Popen(command, cwd=ROOT, env={**variables, "SLURM_RESTART_COUNT": "0"}) as job:
        while "\nstep 5/" not in told(0):
            assert job.poll() is None, told(0) + told(0, 1)
            time.sleep(0.1)
        os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGUSR1)  # one of them hears it
        assert job.wait(60) == 75, told(0) + told(0, 1)
    step = re.search(r"Interrupted at step (\d+), which is saved", told(0))[1]
    assert (tmp_path / "queue").read_text() == "requeue 7\n"

    ended = subprocess.run(command, cwd=ROOT, env={**variables, "SLURM_RESTART_COUNT": "1"}, timeout=300)
    assert ended.returncode == 0, told(1) + told(1, 1)
    assert f"from step {step} of 40" in told(1)
    assert "Traceback" not in told(0) + told(0, 1) + told(1) + told(1, 1)
    print(f"stopped at step {step} and went on to 40")
