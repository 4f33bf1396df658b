"""Start of several processes: how they find each other, meet, and check that all run the same configuration.

Before JAX uses the coordinator's port, they exchange a line of JSON each way there, over plain TCP: JAX itself aborts a
process in C++ if another one is missing. They send only digests of the configuration, since the connection is neither
private nor authenticated.
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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ovenet_jax import described, files, tables
from ovenet_jax.errors import UserError
from ovenet_jax.run import peers
from ovenet_jax.run.peers import Connections

RETRY_SECONDS = 0.2
READ_SECONDS = 10.0  # from connecting to the end of the line
LONGEST_LINE = 2**20
MOST_UNIDENTIFIED = 64  # connections at a time that have not sent their line yet

Digests = dict[str, str]  # digest of a key -> digest of its value
MESSAGE: files.Form = {"index": int, "task": {str: str}}
ANSWER: files.Form = {"refusal": str, "tasks": {str: {str: str}}}


@dataclass(frozen=True)
class Place:
    """This process among `count`; process 0 listens at `coordinator`, HOST:PORT. `devices`: the host's devices that
    this process uses; None: all."""

    coordinator: str
    count: int
    index: int
    devices: Sequence[int] | None = None

    @property
    def address(self) -> peers.Address:
        """HOST and PORT. Raises UserError: `coordinator` has another form."""
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            wanted = "it must be HOST:PORT, with a port from 1 to 65535"
            raise UserError(f"The coordinator's address is {self.coordinator!r}; {wanted}.")
        return host.strip("[]"), int(port)


def start(
    coordinator: str | None, count: int | None, index: int | None, timeout: float, task: Mapping[str, Any]
) -> None:
    """Joins this process to the others, if there are any; to be called before any device is used.

    coordinator, count, index: all three, `count` 1 alone for a single process, or none: then Slurm, Open MPI or another
    environment that JAX knows gives them. task: what all must agree on. timeout: seconds to wait for the others.

    Raises UserError: some of the three are missing; or, in all processes that have connected, a process is missing or
    has another task or number of devices.
    """
    if (place := find(coordinator, count, index, timeout)).count == 1:
        return
    task = {**task, "code of ovenet_jax": version_of_code(Path(__file__).parents[1]), "version of jax": version("jax")}
    peers.watch(place.index, meet(place, task, timeout))
    import jax

    from ovenet_jax.devices import parallel

    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is train.py's, see interruption.py
    options: Any = {"cluster_detection_method": "deactivate", "initialization_timeout": round(timeout)}
    coordinator = "{}:{}".format(*peers.relay(place.address)) if place.index else place.coordinator
    jax.distributed.initialize(coordinator, place.count, place.index, place.devices, **options)
    devices = Counter(device.process_index for device in parallel.devices())
    if len(set(devices.values())) > 1:
        numbers = ", ".join(f"process {i} has {n}" for i, n in sorted(devices.items()))
        raise UserError(f"Processes need the same number of devices each, but {numbers}; start all in the same way.")
    if place.index == 0:
        print(f"{place.count} processes with {tables.number_of(jax.local_device_count(), 'device')} each.", flush=True)


def meet(place: Place, task: Mapping[str, Any], timeout: float) -> Connections:
    """Waits until all processes have connected with the same `task`, and returns the connections for peers.py. Raises
    UserError: a process is missing or has another task."""
    task = {"--processes": place.count, **task}
    exchange = _report if place.index else _receive_all
    answer, connections = asyncio.run(exchange(place, digests(task), timeout))
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
        raise UserError(f"Give {', '.join(given)} together, or none of them; missing: {', '.join(missing)}.")
    if not 0 <= index < count:
        raise UserError(f"--process={index} is not one of {count} processes; they count from 0 to {count - 1}.")
    return Place(coordinator, count, index)


def _detect(timeout: float) -> Place:
    """The place that the cluster's environment gives this process; alone where there is none."""
    from jax._src.clusters import ClusterEnv  # public only as a part of jax.distributed.initialize

    try:
        with warnings.catch_warnings(action="ignore"):  # warnings of missing packages for other clusters
            found = ClusterEnv.auto_detect_unset_distributed_params(*(None,) * 5, round(timeout))
    except Exception as error:  # whatever the cluster's interface raises
        fault = f"The cluster's description of this process cannot be read ({error})"
        remedy = "give --coordinator, --processes and --process, or --processes=1 for a process alone"
        raise UserError(f"{fault}; {remedy}.") from error
    coordinator, count, index, devices = found
    if coordinator is None or count is None or index is None or count == 1:
        return Place("", 1, 0)
    # The only process on a host uses all devices of the host.
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", ""))
    return Place(coordinator, count, index, None if re.fullmatch(r"1(\(x\d+\))?", tasks) else devices)


async def _receive_all(place: Place, own: Digests, timeout: float) -> tuple[dict, Connections]:
    """Process 0: collects the tasks of all processes, and answers with an error message ("" for none) and all tasks.

    Connections without a valid message of this run within READ_SECONDS are closed. A process that has ended meanwhile
    may connect again.
    """
    visitors: list[tuple[int, Digests, asyncio.StreamWriter]] = []
    settled, reading, refusal = asyncio.Event(), asyncio.Semaphore(MOST_UNIDENTIFIED), ""

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if reading.locked():
                raise ValueError("too many at once")  # another process of this run tries again
            async with reading:
                message = await _read(reader, MESSAGE, READ_SECONDS)
            index, task = message["index"], message["task"]
            if not 0 < index < (place.count if task[PROCESSES] == own[PROCESSES] else LONGEST_LINE):
                raise ValueError(f"no process {index}")
        except (OSError, ValueError, KeyError, asyncio.CancelledError):  # CancelledError: the server closes
            writer.close()
            return
        visitors.append(visitor := (index, task, writer))
        if len(visitors) == place.count - 1 or len({index for index, *_ in visitors}) < len(visitors):
            settled.set()
        with suppress(OSError, asyncio.CancelledError):  # Python 3.11 logs the end of a cancelled handler as an error
            while await reader.read(LONGEST_LINE):  # until it ends
                pass
        visitors.remove(visitor)

    both = socket.has_dualstack_ipv6()  # on all addresses of this machine, as JAX does
    family = socket.AF_INET6 if both else socket.AF_INET
    _, port = place.address
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        fault = f"of the coordinator {place.coordinator} cannot be opened ({error.strerror or error})"
        raise UserError(f"Port {port} {fault}; choose another.") from error
    server = await asyncio.start_server(receive, sock=listener, limit=LONGEST_LINE)
    with suppress(TimeoutError):
        await asyncio.wait_for(settled.wait(), timeout)
    server.close()
    count_of = Counter(index for index, *_ in visitors)
    if twice := [index for index, count in count_of.items() if count > 1]:
        refusal = f"Two processes were started with --process={twice[0]}; each needs a number of its own."
    elif absent := set(range(1, place.count)) - count_of.keys():
        refusal = f"Of {place.count} processes {_listed(absent)} did not come to the coordinator {place.coordinator}"
        refusal += " in time; see what they print, and start all of them."
    tasks = {"0": own} | {str(index): task for index, task, _ in visitors}
    answer = json.dumps({"refusal": refusal, "tasks": tasks})
    connections = [(index, _taken_from(writer)) for index, _, writer in visitors]
    for _, connection in connections:
        with suppress(OSError):
            connection.sendall(answer.encode() + b"\n")
    return json.loads(answer), dict(connections)


async def _report(place: Place, own: Digests, timeout: float) -> tuple[dict, Connections]:
    """Another process: sends its task to process 0, and returns the answer."""
    deadline = time.monotonic() + timeout
    problem: Exception | None = None
    message = json.dumps({"index": place.index, "task": own}).encode() + b"\n"
    while (left := deadline - time.monotonic()) > 0:
        writer = None
        try:
            connection = socket.create_connection(place.address, timeout=min(left, READ_SECONDS))
            reader, writer = await asyncio.open_connection(sock=connection, limit=LONGEST_LINE * place.count)
            writer.write(message)
            # process 0 answers when all have connected, or after its timeout
            return await _read(reader, ANSWER, timeout + READ_SECONDS), {0: _taken_from(writer)}
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
        return files.parse_json(await asyncio.wait_for(reader.readuntil(), seconds), form)
    except (EOFError, asyncio.LimitOverrunError) as error:
        raise ValueError("no whole line") from error


def _taken_from(writer: asyncio.StreamWriter) -> socket.socket:
    """The writer's connection, for use after the exchange."""
    connection = writer.get_extra_info("socket").dup()
    connection.settimeout(READ_SECONDS)
    writer.close()
    return connection


def digests(task: Mapping[str, Any]) -> Digests:
    """Digests of keys and values, which do not reveal the values."""
    return {_digest(key): _digest(key, value) for key, value in described.leaves(task).items()}


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


PROCESSES = _digest("--processes")


def differences(task: Mapping[str, Any], tasks: Mapping[int, Digests]) -> str:
    """One sentence on the keys in which `tasks`, of all processes, differ from this process's `task`; "" for none."""
    own, mine = described.leaves(task), digests(task)
    found = []
    for key, value in sorted(own.items()):
        digest = _digest(key)
        if others := [index for index, other in tasks.items() if other.get(digest) != mine[digest]]:
            found.append(f"{key} is {value!r} here and differs in {_listed(others)}")
    if others := [index for index, other in tasks.items() if other.keys() - mine.keys()]:
        found.append(f"{_listed(others)} {'has' if len(others) == 1 else 'have'} keys that this one does not have")
    if not found:
        return ""
    more = f"; {len(found) - 5} more keys differ" if len(found) > 5 else ""
    fault = f"All processes must run the same configuration, but {'; '.join(found[:5])}{more}"
    return f"{fault}; start all with the same command."


def _listed(indices: Collection[int]) -> str:
    return f"process{'es' if len(indices) > 1 else ''} {', '.join(map(str, sorted(indices)))}"


def version_of_code(package: Path) -> str:
    """A hash of the source files of a package."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
