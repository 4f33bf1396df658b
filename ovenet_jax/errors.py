"""What the user can mend, what the machine does to a command, how it is said, and how a command ends."""

import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, TextIO

# Done. Something was named and left out. The user can mend it. Interrupted: the same command goes on (EX_TEMPFAIL).
EXIT_DONE, EXIT_INCOMPLETE, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 75

FAULTS_SHOWN = 20

came_to_its_end = Event()  # the command of `run`

# What the machine does, and what helps: by the number of a system's error, or of the signal that ended a data worker.
DISK = "the disk is full; free space"
OPEN_FILES = "too many files are open; raise the limit by `ulimit -n 65536`, or lower --config.data.workers"
MEMORY = "the machine's memory is used up; lower --config.data.workers or --config.batch_size"
SHARED_MEMORY = "/dev/shm is full; enlarge it (docker run --shm-size=8g), or set --config.data.workers=0"
PROCESSES = "no more processes or threads may be started; raise `ulimit -u`, or lower --config.data.workers"
CAUSES = {
    errno.ENOSPC: DISK,
    errno.EDQUOT: f"the quota is used up: {DISK}",
    errno.EROFS: "the file system can only be read; see why it was mounted so",
    errno.EIO: "a disk does not answer any more; look into the system's log",
    errno.ESTALE: "the file server has lost a file; see that it runs",
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


def cause_of(error: BaseException) -> str:
    """What the machine has done and what helps, where that is why a command fails; "" where it is something else."""
    said = str(error)
    if isinstance(error, OSError):
        cause, place = CAUSES.get(error.errno or 0, ""), str(error.filename or "")
        if cause == DISK and "/dev/shm" in place:
            cause = SHARED_MEMORY
        return f"{place}: {cause}" if cause and place else cause
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, RuntimeError) and "start new thread" in said:
        return PROCESSES
    if ended := re.search(r"Worker process was terminated .* exit code (-?\d+)", said):  # grain's
        number = -int(ended[1])
        helps = SIGNALS.get(number, f"if that was for want of memory: {MEMORY}; or: {SHARED_MEMORY}")
        return f"a process that reads data was ended ({'exit code' if number < 0 else 'signal'} {abs(number)}): {helps}"
    return ""


class _Output(io.FileIO):
    """Where a command prints. What cannot be written there, on a full disk or into a closed pipe or terminal, is lost,
    which is said once on stderr; the command goes on."""

    lost = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not self.lost:
                said = f"Warning: what is printed is lost from here on ({error.strerror}); the command goes on.\n"
                with contextlib.suppress(OSError):
                    os.write(2, said.encode())
            self.lost = True
            return len(data)


def _lasting(stream: TextIO) -> TextIO:
    try:
        output = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    except io.UnsupportedOperation:  # no file, but memory, as in a notebook
        return stream
    return io.TextIOWrapper(output, stream.encoding, stream.errors, line_buffering=bool(stream.line_buffering))


def run(command: Callable[[], int | None]) -> int:
    """Runs a command that returns its exit code, None for 0; says what the user can mend, and how it ended."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores the second
            signal.signal(number, signal.default_int_handler)
    with contextlib.redirect_stdout(_lasting(sys.stdout)), contextlib.redirect_stderr(_lasting(sys.stderr)):
        try:
            return _run(command)
        finally:
            sys.stdout.flush()


def _run(command: Callable[[], int | None]) -> int:
    exit_code = EXIT_INTERRUPTED
    try:
        try:
            ended = command() or EXIT_DONE
        except SystemExit as end:  # which absl's app.run ends with
            if not isinstance(end.code, int | None):
                raise
            ended = end.code or EXIT_DONE
        came_to_its_end.set()
        return ended
    except UserError as error:
        sentence, exit_code = str(error), error.exit_code
    except KeyboardInterrupt:
        sentence = "interrupted; the same command goes on with what is not finished."
    except Exception as error:
        if not (cause := cause_of(error)):
            raise
        sentence = f"{cause}. After that the same command goes on."
    sys.stdout.flush()
    print(f"Error: {sentence}", file=sys.stderr, flush=True)
    return exit_code


def listed(faults: Sequence[str]) -> str:
    """The first of many faults, a line each, and how many more there are."""
    rest = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN]) + rest
