"""What every benchmark leaves: one table on the screen, and its numbers as JSON."""

import argparse
import re
from pathlib import Path
from typing import Any

from ovenet_jax import files


def parser(benchmark: str, description: str) -> argparse.ArgumentParser:
    """For a benchmark's arguments, with --json among them."""
    result = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    result.add_argument("--json", default=json_file(benchmark), help="file for the numbers of the table")
    return result


def json_file(benchmark: str) -> str:
    """Where the numbers go unless --json says otherwise."""
    return f"runs/benchmarks/{benchmark}.json"


class Table:
    """Rows appear, and are kept in the file, as they come.

    `columns`: titles, and how their values are formatted, such as "11.1f" or "20s". `circumstances` go into the file
    alone.
    """

    def __init__(self, columns: dict[str, str], file: str, **circumstances: Any):
        self._columns, self._file = columns, Path(file)
        self._content = {**circumstances, "rows": []}
        print("".join(_title(*column) for column in columns.items()), flush=True)

    def row(self, *values: Any) -> None:
        """One value per column; None where there is none."""
        print("".join(map(_cell, values, self._columns.values())), flush=True)
        self._content["rows"].append(dict(zip(self._columns, values, strict=True)))
        files.write_json(self._file, self._content)


def _title(title: str, form: str) -> str:
    return title.ljust(_width(form)) if form.endswith("s") else title.rjust(_width(form))


def _cell(value: Any, form: str) -> str:
    return " " * _width(form) if value is None else format(value, form)


def _width(form: str) -> int:
    return int(re.search(r"\d+", form)[0])
