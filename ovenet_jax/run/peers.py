"""Heartbeats between the processes of a run, on the connections of their meeting.

JAX would wait for a lost process, and after minutes abort in C++. Here all others print an error within 30 s and end
with EXIT_INTERRUPTED: the same command goes on from the last checkpoint.
"""

import atexit
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread

from ovenet_jax.errors import EXIT_INTERRUPTED, came_to_its_end

BEAT, SILENCE = 3.0, 20.0  # seconds from one heartbeat to the next, and until a process counts as lost
GRACE = 5.0  # seconds for this process to end with an error message of its own
DONE = b"done"
LONGEST = 1000  # bytes of a line

Connections = Mapping[int, socket.socket]  # by process; process 0 has one with each other, those one with it


def watch(connections: Connections) -> None:
    """Watches the other processes until this one ends."""
    for index, connection in connections.items():
        connection.settimeout(SILENCE)
        Thread(target=_listen, args=(index, connections), daemon=True).start()
    Thread(target=_beat, args=(connections,), daemon=True).start()
    excepthook = sys.excepthook

    @atexit.register
    def leave() -> None:
        if came_to_its_end.is_set():
            _send(connections, DONE)

    def after_the_others(*error) -> None:
        """Waits, since a lost process makes collectives fail at once: `_listen` names it first and ends this one."""
        time.sleep(GRACE + 1)
        excepthook(*error)

    sys.excepthook = after_the_others


def _beat(connections: Connections) -> None:
    while True:
        _send(connections, b"")
        time.sleep(BEAT)


def _send(connections: Connections, line: bytes) -> None:
    for connection in connections.values():
        with suppress(OSError):
            connection.sendall(line + b"\n")


def _listen(index: int, connections: Connections) -> None:
    unread, cause = b"", "its connection is closed"
    try:
        while received := connections[index].recv(LONGEST):
            *lines, unread = (unread + received)[-LONGEST:].split(b"\n")
            for line in filter(None, lines):
                if line == DONE:
                    return
                _end(line.decode(errors="replace"), connections)
    except TimeoutError:
        cause = f"no heartbeat for {SILENCE:g} s"
    except OSError as error:
        cause = error.strerror or str(error)
    time.sleep(GRACE)
    remedy = "see what it printed last, and start all processes with the same command"
    _end(f"Process {index} is lost ({cause}); {remedy}: they go on from the last checkpoint.", connections)


def _end(sentence: str, connections: Connections) -> None:
    _send(connections, sentence.encode())
    with suppress(OSError):
        print(f"Error: {sentence}", file=sys.stderr, flush=True)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(EXIT_INTERRUPTED)  # the other threads may wait for the lost process for minutes
