import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ovenet_jax.errors import DISK, EXIT_INTERRUPTED, SHARED_MEMORY, UserError, cause_of, listed, run
from tests.places import ROOT


def ends(error: BaseException):
    raise error


def interrupted_import():
    """As of a module of C++."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as interruption:
        raise ImportError("Encountered an error while initializing the extension.") from interruption


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (lambda: ends(SystemExit(1)), 1, ""),  # which absl's app.run ends with
        (lambda: ends(UserError("no such folder.")), 2, "Error: no such folder.\n"),
        (lambda: ends(UserError("saved; go on.", EXIT_INTERRUPTED)), 75, "Error: saved; go on.\n"),
        (lambda: ends(KeyboardInterrupt()), 75, "Error: interrupted; run the same command again"),
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), 75, "Error: interrupted; run the same command again"),
        (lambda: interrupted_import(), 75, "Error: interrupted; run the same command again"),
        (
            lambda: ends(PermissionError(13, "Permission denied", "a/b")),
            2,
            "Error: a/b cannot be used (Permission denied)",
        ),
        (
            lambda: ends(OSError(errno.EROFS, "Read-only file system", "a/b")),
            2,
            "Error: a/b: the file system is read-only; check how it is mounted",
        ),
    ],
    ids=["done", "incomplete", "exit", "mistake", "saved", "interrupted", "preempted", "import", "access", "read-only"],
)
def test_a_command_ends_with_its_code_and_one_sentence(command, code, said, capsys, monkeypatch):
    heard = []
    monkeypatch.setattr("ovenet_jax.errors.at_the_end", [lambda *end: heard.append(end)])
    assert run(command) == code
    ((exit_code, sentence),) = heard
    assert exit_code == code and bool(sentence) == bool(said)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(said)
    assert told.err.count("\n") == bool(said)


IMPORTS = """
import os, signal, sys
from ovenet_jax.errors import ending_at_once, run

signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background may ignore it

def command():
    with ending_at_once():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            print("caught")

sys.exit(run(command))
"""


def test_an_interruption_among_imports_ends_the_process_at_once():
    ended = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (EXIT_INTERRUPTED, "")
    assert ended.stderr == "Error: interrupted; run the same command again to continue.\n"


TWICE = """
import atexit, os, signal, sys
from ovenet_jax import errors

signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

if "exiting" in sys.argv:
    atexit.register(interrupt)
else:
    errors.at_the_end.append(interrupt)
sys.exit(errors.run(interrupt if "interrupted" in sys.argv else lambda: print("done")))
"""


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        ([], 0, 0),
        (["exiting"], 0, 0),
        (["interrupted"], EXIT_INTERRUPTED, 1),
        (["interrupted", "exiting"], EXIT_INTERRUPTED, 1),
    ],
)
def test_an_interruption_at_the_end_of_a_command_changes_nothing(arguments, code, lines):
    ended = subprocess.run([sys.executable, "-c", TWICE, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (code, "" if lines else "done\n")
    assert ended.stderr.count("\n") == lines


def test_a_closed_terminal_that_nohup_ignores_does_not_end_a_command():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_no_mistake_of_the_user_keeps_its_stack_trace():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)
    with pytest.raises(PermissionError):
        run(lambda: ends(PermissionError(1, "Operation not permitted")))
    with pytest.raises(SystemExit, match="some text"):  # Python prints it and ends with 1
        run(lambda: ends(SystemExit("some text")))


def test_of_many_faults_the_first_are_named_and_the_rest_counted():
    assert listed(["a", "b"]) == "\n  a\n  b"
    assert listed([str(i) for i in range(23)]).endswith("\n  19\n  and 3 more")


ENDED = "Worker process was terminated unexpectedly with exit code {}. Search the logs above."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "/data/x: the disk is full; free space"),
        (OSError(errno.ENOSPC, "No space left on device", "/dev/shm/psm_1"), "/dev/shm/psm_1: /dev/shm is full;"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x"), "/data/x: the quota is used up: the disk is full;"),
        (OSError(errno.EIO, "Input/output error", "/data/x"), "/data/x: a disk has failed to read or write; check"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open; raise the limit by `ulimit -n"),
        (MemoryError(), "the machine's memory is used up; lower --config.data.workers"),
        (ImportError("libvpx.so: failed to map segment from shared object"), "the machine's memory is used up; lower"),
        (RuntimeError("can't start new thread"), "no more processes or threads may be started; raise `ulimit -u`"),
        (RuntimeError(f"open() failed: {os.strerror(errno.ESTALE)}; opening a"), "the file server has lost a file"),
        (RuntimeError(ENDED.format(-9)), "a data worker was ended (signal 9): the machine's memory"),
        (RuntimeError(ENDED.format(-7)), "a data worker was ended (signal 7): /dev/shm is full"),
        (RuntimeError(ENDED.format(-11)), "a data worker was ended (signal 11): see what it printed last"),
    ],
)  # fmt: skip
def test_what_the_machine_does_is_told_with_what_helps(error, said, capsys):
    assert cause_of(error).startswith(said)
    assert run(lambda: ends(error)) == EXIT_INTERRUPTED
    assert f"Error: {said}" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="has no /dev/shm")
@pytest.mark.parametrize(("free", "cause"), [(0, SHARED_MEMORY), (2**30, DISK)])
def test_semaphores_that_find_no_space_are_told_from_a_full_disk(monkeypatch, free, cause):
    """Their error names no file."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert cause_of(OSError(errno.ENOSPC, "No space left on device")) == cause


MISTAKE = """
import sys
from ovenet_jax.errors import UserError, run

def command():
    print("begins caf\\udce9")  # as in names of files: any bytes make one
    raise UserError("no such folder caf\\udce9.")

sys.exit(run(command))
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_without_stdout_or_stderr_ends_with_its_code(closed):
    shell = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, MISTAKE]
    ended = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "" if closed.startswith(">") else "begins caf\\udce9\n")
    assert ended.stderr == ("" if "2" in closed else "Error: no such folder caf\\udce9.\n")


def test_the_cause_is_found_behind_what_it_leads_to():
    """As when grain cannot start a process, and fails to end it."""
    with pytest.raises(AssertionError) as failure:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        finally:
            raise AssertionError("can only join a started process")
    assert cause_of(failure.value).startswith("too many files are open")
    assert cause_of(ValueError("Error writing [os_error_code='28']")) == "the disk is full; free space"


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), RuntimeError("a bug"), ValueError(), RuntimeError(ENDED.format(1))]
)
def test_other_errors_are_not_the_machines(error):
    """A worker with an exit code has raised an error, and printed its stack trace."""
    assert cause_of(error) == ""


HALF_MADE = """
import sys
from ovenet_jax.errors import run

class Half:
    def __del__(self):
        raise AttributeError("half made")

async def begun():
    pass

def command():
    half, coroutine = Half(), begun()
    half.itself = half
    if sys.argv[1:]:
        raise OSError(24, "Too many open files")

sys.exit(run(command))
"""


def test_objects_that_a_fault_has_left_half_made_say_nothing():
    ended, whole = (
        subprocess.run([sys.executable, "-c", HALF_MADE, *fault], cwd=ROOT, capture_output=True, text=True)
        for fault in (["fault"], [])
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (EXIT_INTERRUPTED, 1)
    assert ended.stderr.startswith("Error: too many files are open; ")
    assert "AttributeError: half made" in whole.stderr and "was never awaited" in whole.stderr


def test_a_command_may_open_as_many_files_as_the_system_allows():
    code = "import resource as r; from ovenet_jax import errors; r.setrlimit(r.RLIMIT_NOFILE, (64, 128)); "
    code += "errors.run(lambda: print(r.getrlimit(r.RLIMIT_NOFILE)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "(128, 128)\n"


PRINTS = "import sys; from ovenet_jax import errors; sys.exit(errors.run(lambda: print('x' * 10_000) or print('y')))"


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


FULL = Path("/dev/full")
FULL_DISK = pytest.param(
    lambda: FULL.open("w"), id="full disk", marks=pytest.mark.skipif(not FULL.exists(), reason=f"has no {FULL}")
)


@pytest.mark.parametrize("opened", [FULL_DISK, pytest.param(closed_pipe, id="closed pipe")])
def test_output_that_cannot_be_written_does_not_end_a_command(opened):
    with opened() as output:
        both = [subprocess.run([sys.executable, "-c", PRINTS], cwd=ROOT, stdout=output, stderr=stderr, text=True)
                for stderr in (subprocess.PIPE, output)]  # fmt: skip
    assert [result.returncode for result in both] == [0, 0]
    assert both[0].stderr.startswith("Warning: what is printed is lost from here on (")
    assert both[0].stderr.count("\n") == 1


def test_a_slow_reader_delays_a_command_and_loses_nothing():
    """Of a pipe that does not block, as some programs set those that they read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(
        [sys.executable, "-c", PRINTS.replace("10_000", "1_000_000")], cwd=ROOT, stdout=writing
    ) as program:
        os.close(writing)
        with os.fdopen(reading) as output:
            assert len(output.read()) == 1_000_003
    assert program.returncode == 0


def test_characters_that_an_output_does_not_know_are_printed_by_their_codes():
    """As in names of files: any bytes make one."""
    code = "import sys; from ovenet_jax import errors; sys.exit(errors.run(lambda: print('caf\\u00e9 caf\\udce9')))"
    variables = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "caf\\xe9 caf\\udce9\n", "")
