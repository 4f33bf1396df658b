"""A lost process is noticed by the others, and told from one that has done its work."""

import socket
import subprocess
import sys
import time

import pytest

from ovenet_jax.errors import EXIT_INTERRUPTED
from ovenet_jax.run import peers
from tests.places import ROOT

CHILD = """
import socket, sys, time
from ovenet_jax.run import peers
peers.BEAT, peers.SILENCE, peers.GRACE = 0.1, 0.5, 0.1
peers.watch(1, {3: socket.socket(fileno=int(sys.argv[1]))})
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


FAILS = """
import atexit, socket, sys, time
from ovenet_jax import errors
from ovenet_jax.run import peers
peers.GRACE = 0.5
peers.watch(1, {0: socket.socket(fileno=int(sys.argv[1]))})
atexit.register(time.sleep, 60)  # as JAX waits for the others

def command():
    raise errors.UserError("There is\\nno folder caf\\udce9.")

sys.exit(errors.run(command))
"""


def test_an_error_is_told_to_the_others_and_ends_a_process_that_would_wait_for_them():
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", FAILS, str(theirs.fileno())]
    ended = subprocess.run(command, cwd=ROOT, pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stderr) == (2, "Error: There is\nno folder caf\\udce9.\n")
    assert ours.recv(1000).strip() == b"Process 1 says: There is no folder caf\\udce9."


def test_a_connection_stays_open_when_the_coordinator_has_gone():
    """JAX would abort its process."""
    with socket.create_server(("localhost", 0)) as server:
        ours = socket.create_connection(peers.relay(server.getsockname()))
        theirs, _ = server.accept()
    for here, there in ((ours, theirs), (theirs, ours)):
        here.sendall(b"some")
        assert there.recv(4) == b"some"
    theirs.close()
    ours.settimeout(0.2)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            ours.recv(1)
        ours.sendall(b"more")


def test_one_that_has_done_its_work_is_not_lost(child):
    process, ours = child
    for _ in range(5):  # longer than the silence that would be too long
        ours.sendall(b"\n")
        time.sleep(0.2)
    ours.sendall(b"done\n")
    ours.close()
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
