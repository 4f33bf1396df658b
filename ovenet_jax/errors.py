"""What the user can mend, how it is said, and how a command ends."""

import sys
from collections.abc import Callable, Sequence

# Done. Something was named and left out. The user can mend it. Interrupted: the same command goes on (EX_TEMPFAIL).
EXIT_DONE, EXIT_INCOMPLETE, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 75

FAULTS_SHOWN = 20


class UserError(Exception):
    """A mistake in the input (a folder, a file, a config value), not in the program.

    Its message is one sentence that names the thing, what was expected and what to do; a command prints it without a
    stack trace and ends with its exit code.
    """

    def __init__(self, message: str, exit_code: int = EXIT_USER_ERROR):
        super().__init__(message)
        self.exit_code = exit_code


def run(command: Callable[[], int | None]) -> int:
    """Runs a command that returns its exit code, None for 0; says what the user can mend, and how it ended."""
    try:
        return command() or EXIT_DONE
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Error: interrupted; the same command starts again what was not finished.", file=sys.stderr)
        return EXIT_INTERRUPTED


def listed(faults: Sequence[str]) -> str:
    """The first of many faults, a line each, and how many more there are."""
    rest = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN]) + rest
