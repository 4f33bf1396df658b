"""Processes find one another, agree on what to do, or say in one sentence why not."""

import contextlib
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ovenet_jax.errors import UserError
from ovenet_jax.run import processes
from ovenet_jax.run.processes import Place, differences, digests, find, meet, start, version_of_code
from tests.free_port import free_address

TASK = {"--mode": "train", "config": {"batch_size": 8, "augment": {"crop": (64, 64)}}}


def meeting(tasks, timeout=20.0, coordinator=None, places=None):
    """What each of several processes is told; here they are threads, of which the first comes last."""
    coordinator = coordinator or free_address()
    places = places or range(len(tasks))

    def come(index, task):
        try:
            time.sleep(0.2 if index == 0 else 0)
            meet(Place(coordinator, len(tasks), index), task, timeout)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as threads:
        return list(threads.map(come, places, tasks))


def connected(host, port):
    for _ in range(300):
        try:
            return socket.create_connection((host, int(port)), timeout=5)
        except OSError:
            time.sleep(0.01)
    raise OSError("nobody listens")


def test_processes_with_the_same_task_meet_and_may_meet_again_at_the_same_address():
    coordinator = free_address()
    for _ in range(2):
        assert meeting([TASK] * 3, coordinator=coordinator) == ["", "", ""]


def test_a_process_with_another_config_is_named_to_all():
    other = {**TASK, "config": {"batch_size": 16, "augment": {"crop": (64, 64)}}}
    told = meeting([TASK, TASK, other])
    assert "but config.batch_size is 8 here and differs in process 2; start all with the same command" in told[0]
    assert "but config.batch_size is 16 here and differs in processes 0, 1; start all" in told[2]


def test_all_that_differs_is_named_with_the_processes_it_differs_in():
    tasks = {0: {"a": 1, "b": {"c": 1}}, 1: {"a": 2, "b": {"c": 1}}, 2: {"a": 2, "b": {}}}
    shown = {index: digests(task) for index, task in tasks.items()}
    assert "a is 1 here and differs in processes 1, 2; b.c is 1 here and differs in process 2;" in (
        differences(tasks[0], shown)
    )
    assert "processes 0, 1 have keys that this one does not have" in differences(tasks[2], shown)
    assert differences(tasks[0], {0: shown[0], 1: digests({"b": {"c": 1}, "a": 1})}) == ""


def test_tuples_are_lists_to_other_processes():
    assert digests({"a": (1, 2)}) == digests({"a": [1, 2]})


def test_code_is_another_version_when_a_file_has_another_name_or_content(tmp_path):
    files = {"a.py": "x = 1\n", "models/b.py": ""}
    others = ({**files, "a.py": "x = 2\n"}, {"a.py": "x = 1\n", "models/c.py": ""}, {"a.py": "x = 1\n"})
    versions = []
    for number, content in enumerate((files, {**files, "notes.txt": "of no matter"}, *others)):
        for name, text in content.items():
            file = tmp_path / str(number) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        versions.append(version_of_code(tmp_path / str(number)))
    same, again, *different = versions
    assert same == again
    assert len({same, *different}) == 4


def test_a_process_that_does_not_come_is_named_to_the_others():
    told = meeting([TASK] * 3, timeout=1.0, places=(0, 1))
    assert told[0] == told[1]
    assert "Of 3 processes process 2 did not come to the coordinator localhost:" in told[0]


def test_two_processes_with_one_number_are_told():
    told = meeting([TASK] * 3, places=(0, 1, 1))
    assert all("Two processes were started with --process=1" in sentence for sentence in told)


def test_a_process_that_has_ended_and_is_started_again_is_welcome():
    """Also while others are still awaited."""
    coordinator = free_address()
    host, port = coordinator.split(":")
    line = json.dumps({"index": 1, "task": digests({"--processes": 3, **TASK})}).encode() + b"\n"
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(meet, Place(coordinator, 3, 0), TASK, 20)
        for _ in range(2):
            connection = connected(host, port)
            connection.sendall(line)
            time.sleep(0.1)
            connection.close()
        others = [threads.submit(meet, Place(coordinator, 3, index), TASK, 20) for index in (1, 2)]
        assert waiting.result().keys() == {1, 2}
        for future in (waiting, *others):
            for connection in future.result().values():
                connection.close()


DEEP = b'{"index": 1, "task": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}\n"
OF_OURS = json.dumps(digests({"--processes": 2})).encode()
LINES = (
    b"GET / HTTP/1.1\r\n", b"", b'{"index": 1}\n', b"[]\n", b"[" * 200_000 + b"\n", b'{"index": 1e999, "task": {}}\n',
    b'{"index": 1, "task": {}}\n', b'{"index": 99, "task": {}}\n', DEEP, bytes(range(256)) * 10 + b"\n",
    b"x" * (2**20 + 10) + b"\n", b'{"index": 99, "task": ' + OF_OURS + b"}\n",
    b'{"index": 0, "task": ' + OF_OURS + b"}\n",
)  # fmt: skip


def test_strangers_at_the_coordinator_are_overlooked_and_told_nothing(monkeypatch):
    """Also those who send a byte from time to time, or nothing."""
    monkeypatch.setattr(processes, "READ_SECONDS", 0.5)
    coordinator = free_address()
    host, port = coordinator.split(":")
    told = []

    def knock():
        for line in LINES:
            with connected(host, port) as connection, contextlib.suppress(OSError):
                connection.sendall(line)
                told.append(connection.recv(10_000))

    def trickle():
        with connected(host, port) as connection, contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.1)
            told.append(b"never ended")

    def come_late():
        time.sleep(1.0)
        return meet(Place(coordinator, 2, 1), TASK, 20)

    with ThreadPoolExecutor() as threads:
        done = [threads.submit(task) for task in (knock, trickle, come_late)]
        ours = meet(Place(coordinator, 2, 0), TASK, 20)
        assert [future.result() for future in done[:2]] == [None, None]
        theirs = done[2].result()
    assert set(told) <= {b""}
    assert ours.keys() == {1} and theirs.keys() == {0}  # to be kept while they work
    for connection in (*ours.values(), *theirs.values()):
        connection.close()


def test_nothing_of_a_task_is_sent():
    """Whoever listens, or comes first to the coordinator's address, sees digests."""
    with socket.create_server(("localhost", 0)) as server, ThreadPoolExecutor() as threads:
        address = f"localhost:{server.getsockname()[1]}"
        coming = threads.submit(meet, Place(address, 2, 1), TASK | {"secret": "/home/me/data"}, 5)
        connection, _ = server.accept()
        said = connection.makefile().readline()
        connection.sendall(json.dumps({"refusal": "", "tasks": {"0": digests({"b": 1})}}).encode() + b"\n")
        with pytest.raises(UserError, match="--mode is 'train' here and differs in process 0"):
            coming.result()
        connection.close()
    message = json.loads(said)
    assert message.keys() == {"index", "task"}
    for digest in (*message["task"], *message["task"].values()):
        assert re.fullmatch("[0-9a-f]{24}", digest)


def test_a_coordinator_that_does_not_answer_is_named():
    coordinator = free_address()
    with pytest.raises(UserError, match=f"The coordinator {coordinator} did not answer process 1 in time .*refused"):
        meet(Place(coordinator, 2, 1), TASK, timeout=0.5)


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} of the coordinator .* cannot be opened .*in use"):
            meet(Place(f"localhost:{port}", 2, 0), TASK, timeout=0.5)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("host:1", 2, None), "together, or none of them; missing: --process"),
        ((None, 2, 0), "missing: --coordinator"),
        (("host:1", 2, 2), "--process=2 is not one of 2 processes; they count from 0 to 1"),
    ],
)
def test_an_incomplete_description_is_refused(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        find(*flags, timeout=1)


@pytest.mark.parametrize("address", ["host", ":1", "host:0", "host:65536", "host:\u00b2"])
@pytest.mark.parametrize("index", [0, 1])
def test_an_address_without_a_host_and_a_port_is_refused(address, index):
    with pytest.raises(UserError, match=f"The coordinator's address is '{address}'; it must be HOST:PORT, with a port"):
        meet(Place(address, 2, index), TASK, timeout=1)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[03-06]", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}


@pytest.fixture
def slurm(monkeypatch):
    def set_tasks(count):
        for key, value in {**SLURM, "SLURM_NTASKS": str(count)}.items():
            monkeypatch.setenv(key, value)

    return set_tasks


def test_slurm_says_where_a_process_stands(slurm):
    slurm(4)
    assert find(None, None, None, timeout=1) == Place("node03:61447", 4, 2, devices=[0])


def test_a_process_alone_on_its_host_has_all_of_its_devices(slurm, monkeypatch):
    slurm(4)
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "1(x4)")
    assert find(None, None, None, timeout=1).devices is None
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "4")
    assert find(None, None, None, timeout=1).devices == [0]


def test_flags_come_before_slurm(slurm):
    slurm(4)
    assert find("other:1", 2, 0, timeout=1) == Place("other:1", 2, 0)
    assert find(None, 1, None, timeout=1).count == 1


def test_a_process_alone_in_slurm_or_anywhere_is_alone(slurm):
    assert find(None, None, None, timeout=1).count == 1
    slurm(1)
    assert find(None, None, None, timeout=1).count == 1


def test_processes_without_devices_get_one_sentence(monkeypatch):
    def no_gpu(_):
        raise AssertionError

    for name in ("ovenet_jax.run.processes.meet", "ovenet_jax.run.peers.watch", "jax.distributed.initialize"):
        monkeypatch.setattr(name, lambda *_, **__: None)
    monkeypatch.setattr("jax.devices", no_gpu)
    with pytest.raises(UserError, match="JAX cannot use a platform"):
        start("localhost:1", 2, 0, 1, TASK)
