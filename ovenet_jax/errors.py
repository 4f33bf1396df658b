"""The one exception that means: the user can mend this; and how many faults are told at once."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in the input (a folder, a file, a config value), not in the program.

    Its message is one sentence that names the thing, what was expected and what to do; `main.py`
    prints it without a stack trace and exits with code 2.
    """


FAULTS_SHOWN = 20


def listed(faults: Sequence[str]) -> str:
    """The first of many faults, a line each, and how many more there are."""
    rest = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN]) + rest
