"""A lost process is noticed by the others, and told from one that has done its work."""

import socket
import subprocess
import sys
import time

import pytest

from ovenet_jax.errors import EXIT_INTERRUPTED
from tests.places import ROOT

CHILD = """
import socket, sys, time
from ovenet_jax.run import peers
peers.BEAT, peers.SILENCE, peers.GRACE = 0.1, 0.5, 0.1
peers.watch({3: socket.socket(fileno=int(sys.argv[1]))})
time.sleep(2)
"""


@pytest.fixture
def child():
    """A process that watches process 3, and our end of their connection."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", CHILD, str(theirs.fileno())]
    process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
    theirs.close()
    ours.recv(1)  # it has begun
    yield process, ours
    process.kill()


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda ours: ours.close(), "Error: Process 3 is lost (its connection is closed); see what it printed last"),
        (lambda _: None, "Error: Process 3 is lost (no heartbeat for 0.5 s); see what it printed last"),
        (lambda ours: ours.sendall(b"\nProcess 2 is lost.\n"), "Error: Process 2 is lost.\n"),
    ],
    ids=["dead", "cut off", "told by another"],
)
def test_a_lost_process_ends_the_others_with_one_sentence(child, act, sentence):
    process, ours = child
    act(ours)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert errors.startswith(sentence) and errors.count("\n") == 1


def test_one_that_has_done_its_work_is_not_lost(child):
    process, ours = child
    for _ in range(5):  # longer than the silence that would be too long
        ours.sendall(b"\n")
        time.sleep(0.2)
    ours.sendall(b"done\n")
    ours.close()
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
