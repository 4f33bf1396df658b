"""User errors, system faults (disk, memory ...), their messages, and exit codes."""

import atexit
import contextlib
import errno
import gc
import io
import multiprocessing
import os
import re
import resource
import select
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TextIO

EXIT_DONE, EXIT_INCOMPLETE = 0, 1  # incomplete: some inputs were skipped
EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 75  # interrupted: the same command continues (EX_TEMPFAIL)

# What ends a process from outside. Clusters and clouds announce a preemption with SIGTERM (Slurm with SIGUSR1, if a job
# asks for it); a closed terminal sends SIGHUP.
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

FAULTS_SHOWN = 20

# Functions that `run` calls last, with the exit code and the error message ("" if there is none).
at_the_end: list[Callable[[int, str], None]] = []

# Messages by errno, and by the signal that ended a data worker.
DISK = "the disk is full; free space"
OPEN_FILES = "too many files are open; raise the limit by `ulimit -n 65536`, or lower --config.data.workers"
MEMORY = "the machine's memory is used up; lower --config.data.workers or --config.batch_size"
SHARED_MEMORY = "/dev/shm is full; enlarge it (docker run --shm-size=8g), or set --config.data.workers=0"
PROCESSES = "no more processes or threads may be started; raise `ulimit -u`, or lower --config.data.workers"
CAUSES = {
    errno.ENOSPC: DISK,
    errno.EDQUOT: f"the quota is used up: {DISK}",
    errno.EROFS: "the file system is read-only; check how it is mounted",
    errno.EIO: "a disk has failed to read or write; check the system's log",
    errno.ESTALE: "the file server has lost a file (stale handle); check that it runs",
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: OPEN_FILES,
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: PROCESSES,
}
SIGNALS: dict[int, str] = {signal.SIGKILL: MEMORY, signal.SIGBUS: SHARED_MEMORY}


class UserError(Exception):
    """A mistake in the input (a folder, a file, a config value), not in the program.

    Its message is one sentence that names the thing, what was expected and what to do; a command prints it without a
    stack trace and ends with its exit code.
    """

    def __init__(self, message: str, exit_code: int = EXIT_USER_ERROR):
        super().__init__(message)
        self.exit_code = exit_code


def errno_of(error: BaseException) -> int:
    """The errno of an OSError, or that in the text of an error of TensorStore or ArrayRecord; 0 for other errors."""
    if marked := re.search(r"os_error_code='(\d+)'", str(error)):  # TensorStore's
        return int(marked[1])
    named = (number for number in CAUSES if f"() failed: {os.strerror(number)}; " in str(error))  # ArrayRecord's
    return next(named, getattr(error, "errno", None) or 0)


def cause_of(error: BaseException) -> str:
    """The message for the system fault or Ctrl-C among `error` and its chain of contexts; "" if there is none."""
    message = str(error)
    place = str(getattr(error, "filename", None) or "")
    if cause := CAUSES.get(errno_of(error)):
        shared = Path("/dev/shm")
        is_full = not place and shared.exists() and shutil.disk_usage(shared).free < 2**20  # bytes
        if cause == DISK and (is_full or str(shared) in place):
            cause = SHARED_MEMORY
        return f"{place}: {cause}" if place else cause
    if isinstance(error, KeyboardInterrupt):  # C++ libraries raise their own errors while handling it
        return "interrupted"
    if isinstance(error, MemoryError) or "failed to map segment" in message:  # a shared library
        return MEMORY
    if isinstance(error, RuntimeError) and "start new thread" in message:
        return PROCESSES
    if ended := re.search(r"Worker process was terminated .* exit code -(\d+)", message):  # grain's, for a signal
        number = int(ended[1])
        return f"a data worker was ended (signal {number}): {SIGNALS.get(number, 'see what it printed last')}"
    return cause_of(error.__context__) if error.__context__ else ""


def exit_code_of(cause: str) -> int:
    """Of an error with this result of `cause_of`: EXIT_INTERRUPTED for what may have passed at the next try."""
    return EXIT_INTERRUPTED if cause and CAUSES[errno.EROFS] not in cause else EXIT_USER_ERROR


class _Output(io.FileIO):
    """The stream that a command prints to. What it cannot write (full disk, closed pipe or terminal) is lost, with one
    warning on stderr; the command continues."""

    lost = False

    def write(self, data: Any, /) -> int:
        try:
            while (count := super().write(data)) is None:  # a full pipe that does not block
                select.select([], [self], [])
            return count
        except OSError as error:
            if not self.lost:
                said = f"Warning: what is printed is lost from here on ({error.strerror}); the command goes on.\n"
                with contextlib.suppress(OSError):
                    os.write(2, said.encode())
            self.lost = True
            return len(data)


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed, as by 2>&-
        return Path(os.devnull).open("w", errors="backslashreplace")
    try:
        output = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    except io.UnsupportedOperation:  # no file, but memory, as in a notebook
        return stream
    at_once = stream.line_buffering or getattr(stream, "write_through", False)  # to a terminal, or PYTHONUNBUFFERED
    return io.TextIOWrapper(output, stream.encoding, "backslashreplace", line_buffering=bool(at_once))


@contextlib.contextmanager
def on_interruption(handler: Callable) -> Iterator[None]:
    """Within the `with` INTERRUPTIONS call `handler`, but for those that are ignored: nohup ignores SIGHUP."""
    previous = [(n, signal.signal(n, handler)) for n in INTERRUPTIONS if signal.getsignal(n) != signal.SIG_IGN]
    try:
        yield
    finally:
        for number, before in previous:
            signal.signal(number, before)


def ending_at_once() -> contextlib.AbstractContextManager[None]:
    """Within the `with` Ctrl-C ends the process at once: an interrupted import of a C++ module may crash."""

    def leave(*_: Any) -> None:
        os.write(2, b"Error: interrupted; run the same command again to continue.\n")
        end_at_once(EXIT_INTERRUPTED)

    return on_interruption(leave)


def end_at_once(exit_code: int) -> NoReturn:
    """Ends this process without waiting for its threads (some wait minutes for other processes) or data workers."""
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(exit_code)


@on_interruption(signal.default_int_handler)
def run(command: Callable[[], int | None]) -> int:
    """Runs a command that returns its exit code (None: 0), prints user errors and system faults, and returns the exit
    code. First lifts the limit of open files to what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems have a lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sentence = ""
    with contextlib.redirect_stdout(_lasting(sys.stdout)), contextlib.redirect_stderr(_lasting(sys.stderr)):
        try:
            exit_code = command() or EXIT_DONE
        except SystemExit as end:  # absl's app.run ends with it
            if not isinstance(end.code, int | None):
                raise
            exit_code = end.code or EXIT_DONE
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, UserError):
                sentence, exit_code = str(error), error.exit_code
            elif isinstance(error, PermissionError) and error.filename:
                refused = f"{error.filename} cannot be used ({error.strerror})"
                sentence, exit_code = f"{refused}; ask for access to it, or choose another.", EXIT_USER_ERROR
            elif cause := cause_of(error):
                sentence, exit_code = f"{cause}; run the same command again to continue.", exit_code_of(cause)
            else:
                raise
            # Until the process ends, hides what is printed when objects that the error left half-made are deleted.
            sys.unraisablehook = lambda _: None
            warnings.filterwarnings("ignore", ".* was never awaited")
        finally:
            sys.stdout.flush()
        if sentence:
            print(f"Error: {sentence}", file=sys.stderr, flush=True)
        atexit.register(on_interruption(lambda *_: end_at_once(exit_code)).__enter__)  # JAX may wait in later hooks
        with on_interruption(lambda *_: end_at_once(exit_code)):
            for act in at_the_end:
                act(exit_code, sentence)
            gc.collect()  # frees memory shared with workers and closes iterators while that is possible
    return exit_code


def nearest(name: str, known: Mapping[str, str]) -> str:
    """The suggestion for an unknown `name`: " (did you mean X?)", or "". known: names -> the X of each."""
    found = get_close_matches(name, known, n=1)
    return f" (did you mean {known[found[0]]}?)" if found else ""


def listed(faults: Sequence[str]) -> str:
    """The first of many faults, a line each, and how many more there are."""
    rest = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN]) + rest
