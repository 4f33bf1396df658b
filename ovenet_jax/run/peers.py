"""Heartbeats between the processes of a run, on the connections of `processes.meet`.

JAX would wait for a lost process, and after minutes abort in C++. Here all others print an error within 30 s and end
with EXIT_INTERRUPTED: the same command goes on from the last checkpoint.
"""

import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread, Timer
from typing import Any

from ovenet_jax.errors import EXIT_INTERRUPTED, at_the_end, end_at_once

BEAT, SILENCE = 3.0, 20.0  # seconds from one heartbeat to the next, and until a process counts as lost
GRACE = 5.0  # seconds for this process to end with an error message of its own
DONE = b"done"
LONGEST = 1000  # bytes of a line

Address = tuple[str, int]
Connections = Mapping[int, socket.socket]  # by process: of process 0 to all others, of those to process 0


def watch(own: int, connections: Connections) -> None:
    """Watches the other processes until this one, number `own`, ends."""
    for index, connection in connections.items():
        connection.settimeout(SILENCE)
        Thread(target=_listen, args=(index, connections), daemon=True).start()
    Thread(target=_beat, args=(connections,), daemon=True).start()
    excepthook = sys.excepthook

    def leave(exit_code: int, sentence: str) -> None:
        """Tells the others how this process ends. After an error JAX would wait for them for minutes."""
        told = f"Process {own} says: {' '.join(sentence.split())}"
        _send(connections, told.encode(errors="backslashreplace")[: LONGEST // 2] if sentence else DONE)
        if sentence:
            timer = Timer(GRACE, end_at_once, [exit_code])
            timer.daemon = True
            timer.start()

    def after_the_others(kind: type[BaseException], *error: Any) -> None:
        """Delays a stack trace: if a lost process is its cause, `_listen` names that and ends this one first."""
        time.sleep(GRACE + 1)
        excepthook(kind, *error)
        leave(1, f"{kind.__name__}, a bug; see its stack trace.")

    at_the_end.append(leave)
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
                time.sleep(GRACE)
                _end(line.decode(errors="replace"), connections)
    except TimeoutError:
        cause = f"no heartbeat for {SILENCE:g} s"
    except OSError as error:
        cause = error.strerror or str(error)
    time.sleep(GRACE)
    remedy = "see what it printed last, and start all processes with the same command"
    _end(f"Process {index} is lost ({cause}); {remedy}: they go on from the last checkpoint.", connections)


def _end(sentence: str, connections: Connections) -> None:
    _send(connections, sentence.encode(errors="backslashreplace")[: LONGEST // 2])
    with suppress(OSError):
        print(f"Error: {sentence}", file=sys.stderr, flush=True)
    end_at_once(EXIT_INTERRUPTED)


def relay(coordinator: Address) -> Address:
    """Forwards a local address to the coordinator, and returns it. Its connections stay open when the coordinator is
    lost: if one closed, JAX would abort this process in C++."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        near, _ = listener.accept()
        Thread(target=serve, daemon=True).start()  # for the next connection
        with suppress(OSError), near, socket.create_connection(coordinator) as far:  # JAX tries again
            Thread(target=copy, args=(far, near), daemon=True).start()
            copy(near, far)

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(2**16):
                with suppress(OSError):  # the coordinator is lost
                    target.sendall(received)

    Thread(target=serve, daemon=True).start()
    return listener.getsockname()
