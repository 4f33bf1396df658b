"""Several processes that work as one: how they are found, meet, and make sure that they are about to do the same.

They meet on the coordinator's port in plain TCP, a line of JSON each way, before JAX is started on it: JAX itself
aborts a process in C++ when another one does not come. Of what they are about to do they show digests alone: anyone may
listen, and come as one of them.
"""

import asyncio
import hashlib
import json
import os
import re
import socket
import time
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ovenet_jax import files
from ovenet_jax.errors import UserError
from ovenet_jax.run import peers, workdir
from ovenet_jax.run.peers import Connections

RETRY_SECONDS = 0.2
READ_SECONDS = 10.0  # for a line to arrive once its sender has connected
LONGEST_LINE = 2**20
STRANGERS = 64  # who are listened to at once

Address = tuple[str, int]
Digests = dict[str, str]  # of the keys of a task and of their values
MESSAGE: files.Form = {"index": int, "task": {str: str}}
ANSWER: files.Form = {"refusal": str, "tasks": {str: {str: str}}}


@dataclass(frozen=True)
class Place:
    """This process among `count`; process 0 listens at `coordinator`, HOST:PORT. `devices`: this host's; None: all."""

    coordinator: str
    count: int
    index: int
    devices: Sequence[int] | None = None


@dataclass(frozen=True)
class Visitor:
    """Another process that has come to process 0."""

    index: int
    task: Digests
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def has_left(self) -> bool:
        return self.reader.at_eof() or self.writer.is_closing()


def start(
    coordinator: str | None, count: int | None, index: int | None, timeout: float, task: Mapping[str, Any]
) -> None:
    """Joins this process to the others, if there are any; to be called before any device is used.

    The three are given together, or `count` 1 for a process alone, or none of them: then the process stands where
    Slurm, Open MPI or another environment that JAX knows has put it. `task`: what all must agree on. Waits `timeout`
    seconds for the others. Raises UserError for an incomplete description; for processes that do not come, are about to
    do something else, or have another number of devices: the same in all processes that have met.
    """
    place = find(coordinator, count, index, timeout)
    if place.count == 1:
        return
    code = version_of_code(Path(__file__).parents[1])
    task = {**task, "code of ovenet_jax": code, "version of jax": version("jax")}
    peers.watch(meet(place, task, timeout))
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is train.py's, see interruption.py
    options: Any = {"cluster_detection_method": "deactivate", "initialization_timeout": round(timeout)}
    jax.distributed.initialize(*astuple(place), **options)
    devices = Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        numbers = ", ".join(f"process {i} has {n}" for i, n in sorted(devices.items()))
        raise UserError(f"Processes need the same number of devices each, but {numbers}; start them alike.")
    if place.index == 0:
        print(f"{place.count} processes with {jax.local_device_count()} devices each.", flush=True)


def meet(place: Place, task: Mapping[str, Any], timeout: float) -> Connections:
    """Returns when all processes have come to the coordinator with the same `task`: their connections for peers.py.
    Raises UserError where they have not."""
    host, _, port = place.coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"The coordinator's address is {place.coordinator!r}; it must be HOST:PORT.")
    task = {"--processes": place.count, **task}
    address, own = (host.strip("[]"), int(port)), digests(task)
    exchange = _report if place.index else _receive_all
    answer, connections = asyncio.run(exchange(place, address, own, timeout))
    tasks = {int(index): other for index, other in answer["tasks"].items()}
    if refusal := answer["refusal"] or differences(task, tasks):
        for connection in connections.values():
            connection.close()
        raise UserError(refusal)
    return connections


def find(coordinator: str | None, count: int | None, index: int | None, timeout: float) -> Place:
    if count == 1:
        return Place("", 1, 0)
    given = {"--coordinator": coordinator, "--processes": count, "--process": index}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return _detect(timeout)
    if coordinator is None or count is None or index is None:
        all_of_them, absent = ", ".join(given), ", ".join(missing)
        raise UserError(f"{all_of_them} are given together, or none of them; missing: {absent}.")
    if not 0 <= index < count:
        raise UserError(f"--process={index} is none of {count} processes; they count from 0 to {count - 1}.")
    return Place(coordinator, count, index)


def _detect(timeout: float) -> Place:
    """Where the cluster's environment puts this process; alone where there is none."""
    from jax._src.clusters import ClusterEnv  # public only as a part of jax.distributed.initialize

    unset = (None,) * 5
    try:
        with warnings.catch_warnings(action="ignore"):  # that packages for other clusters are missing
            found = ClusterEnv.auto_detect_unset_distributed_params(*unset, round(timeout))
    except Exception as error:  # whatever a cluster's own interface raises
        fault = f"The cluster's description of this process cannot be read ({error})"
        helps = "give --coordinator, --processes and --process, or --processes=1 for a process alone"
        raise UserError(f"{fault}; {helps}.") from error
    coordinator, count, index, devices = found
    if coordinator is None or count is None or index is None or count == 1:
        return Place("", 1, 0)
    # Where Slurm or Open MPI has started one process per host, that has all of the host's devices.
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", ""))
    return Place(coordinator, count, index, None if re.fullmatch(r"1(\(x\d+\))?", tasks) else devices)


async def _receive_all(place: Place, address: Address, own: Digests, timeout: float) -> tuple[dict, Connections]:
    """Process 0: takes every other process's task, and tells all that have come what is wrong, "" for nothing.

    Strangers are overlooked: whoever does not say in READ_SECONDS what only one of ours would say. A process that has
    ended meanwhile may come again.
    """
    visitors: list[Visitor] = []
    settled, listening, refusal = asyncio.Event(), 0, ""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal listening
        listening += 1
        try:
            if listening > STRANGERS:
                raise ValueError("too many at once")  # one of ours tries again
            message = await _read(reader, MESSAGE, READ_SECONDS)
            index, task = message["index"], message["task"]
            if not 0 < index < (place.count if task[PROCESSES] == own[PROCESSES] else LONGEST_LINE):
                raise ValueError(f"no process {index}")
        except (OSError, ValueError, KeyError):
            writer.close()
            return
        finally:
            listening -= 1
        here = [visitor for visitor in visitors if not visitor.has_left()]
        visitors[:] = [*here, Visitor(index, task, reader, writer)]
        if len(visitors) == place.count - 1 or len({visitor.index for visitor in visitors}) < len(visitors):
            settled.set()

    both = socket.has_dualstack_ipv6()  # all of this machine's addresses, as JAX does
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(("", address[1]), family=family, dualstack_ipv6=both)
    except OSError as error:
        fault = f"of the coordinator {place.coordinator} cannot be opened ({error.strerror or error})"
        raise UserError(f"Port {address[1]} {fault}; choose another.") from error
    server = await asyncio.start_server(listen, sock=listener, limit=LONGEST_LINE)
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await settled.wait()
    server.close()
    count_of = Counter(visitor.index for visitor in visitors)
    if twice := [index for index, count in count_of.items() if count > 1]:
        refusal = f"Two processes have come as --process={twice[0]}; each needs a number of its own."
    elif absent := set(range(1, place.count)) - count_of.keys():
        refusal = f"Of {place.count} processes {_listed(absent)} did not come to the coordinator {place.coordinator}"
        refusal += " in time; see what they say, and start all of them."
    tasks = {"0": own} | {str(visitor.index): visitor.task for visitor in visitors}
    answer = json.dumps({"refusal": refusal, "tasks": tasks})
    connections = [(visitor.index, _taken_from(visitor.writer)) for visitor in visitors]
    for _, connection in connections:
        with suppress(OSError):
            connection.sendall(answer.encode() + b"\n")
    return json.loads(answer), dict(connections)


async def _report(place: Place, address: Address, own: Digests, timeout: float) -> tuple[dict, Connections]:
    """Another process: brings its task to process 0, and returns what that says is wrong, "" for nothing."""
    deadline = time.monotonic() + timeout
    problem: Exception | None = None
    message = json.dumps({"index": place.index, "task": own}).encode() + b"\n"
    while (left := deadline - time.monotonic()) > 0:
        writer = None
        try:
            connection = socket.create_connection(address, timeout=left)
            reader, writer = await asyncio.open_connection(sock=connection, limit=LONGEST_LINE * place.count)
            writer.write(message)
            # process 0 speaks when all have come, or its time is over
            answer = await _read(reader, ANSWER, timeout + READ_SECONDS)
            return answer, {0: _taken_from(writer)}
        except (OSError, ValueError) as error:
            problem = error
            if writer:
                writer.close()
            await asyncio.sleep(RETRY_SECONDS)
    refusal = f"The coordinator {place.coordinator} did not answer process {place.index} in time ({problem})"
    return {"refusal": f"{refusal}; check the address and that process 0 runs there.", "tasks": {}}, {}


async def _read(reader: asyncio.StreamReader, form: files.Form, seconds: float) -> Any:
    """The line of JSON that arrives within so many seconds. Raises OSError or ValueError where none does."""
    try:
        async with asyncio.timeout(seconds):
            return files.parse_json(await reader.readuntil(), form)
    except (EOFError, asyncio.LimitOverrunError) as error:
        raise ValueError("no whole line") from error


def _taken_from(writer: asyncio.StreamWriter) -> socket.socket:
    """The connection, which outlives the meeting."""
    connection = writer.get_extra_info("socket").dup()
    connection.settimeout(READ_SECONDS)
    writer.close()
    return connection


def digests(task: Mapping[str, Any]) -> Digests:
    """A task as processes show it to one another: whoever does not have the same learns nothing of it."""
    return {_digest(key): _digest(key, value) for key, value in workdir.leaves(task).items()}


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


PROCESSES = _digest("--processes")


def differences(task: Mapping[str, Any], tasks: Mapping[int, Digests]) -> str:
    """One sentence about what of this process's `task` the processes' tasks do not agree on; "" if they do."""
    own, mine = workdir.leaves(task), digests(task)
    found = []
    for key, value in sorted(own.items()):
        digest = _digest(key)
        if others := [index for index, other in tasks.items() if other.get(digest) != mine[digest]]:
            found.append(f"{key} is {value!r} here and something else in {_listed(others)}")
    if others := [index for index, other in tasks.items() if other.keys() - mine.keys()]:
        found.append(f"{_listed(others)} {'has' if len(others) == 1 else 'have'} keys that this one has not")
    if not found:
        return ""
    more = f"; {len(found) - 5} more keys differ" if len(found) > 5 else ""
    return f"Processes that work as one must do the same, but {'; '.join(found[:5])}{more}; start all with one command."


def _listed(indices: Collection[int]) -> str:
    return f"process{'es' if len(indices) > 1 else ''} {', '.join(map(str, sorted(indices)))}"


def version_of_code(package: Path) -> str:
    """A hash of the source files of a package."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
