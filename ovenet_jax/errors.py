"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in the input (a folder, a file, a config value), not in the program.

    Its message is one sentence that names the thing, what was expected and what to do; `main.py`
    prints it without a stack trace and exits with code 2.
    """
