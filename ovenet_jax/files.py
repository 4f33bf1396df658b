"""Writes our own files atomically, and reads them checked.

A file or folder is written next to its target, under a hidden name that ends in `.incomplete`, flushed to the disk and
renamed; then its parent folder is flushed. After a crash the old content is there or the new. Errors are OSErrors that
name the file.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from ovenet_jax.errors import MEMORY, OPEN_FILES, PROCESSES, SHARED_MEMORY, UserError, cause_of, exit_code_of

# ---- writing ----


def write(file: Path, content: str | bytes) -> None:
    """Writes or replaces `file`, making its folders. Text is UTF-8; characters that it lacks are written as codes."""
    unfinished = incomplete(file, f".{os.getpid()}")
    try:
        make_folder(file.parent)
        unfinished.unlink(missing_ok=True)  # left by a killed process
        with unfinished.open("xb") as opened:
            opened.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            opened.flush()
            os.fsync(opened.fileno())
        unfinished.replace(file)
        flush(file.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def write_json(file: Path, content: Any) -> None:
    """Writes or replaces `file`, making its folders."""
    write(file, to_json(content, indent=2) + "\n")


def to_json(content: Any, indent: int | None = None) -> str:
    """To JSON, with null for NaN and infinity."""
    return json.dumps(finite(content), indent=indent, allow_nan=False)


def finite(content: Any) -> Any:
    """`content` after a round trip through JSON, with None for NaN and infinity."""
    return json.loads(json.dumps(content), parse_constant=lambda _: None)


def make_folder(folder: Path) -> None:
    """Makes `folder` and missing folders above it."""
    missing = list(takewhile(lambda above: not above.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        flush(made.parent)


def incomplete(path: Path, writer: str = "") -> Path:
    """The path at which the content of `path` is written until it is complete: next to it, with a name of bounded
    length that depends on `path` and `writer` alone."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return path.with_name(f".{path.name[:40]}.{digest}{writer}.incomplete")


@contextmanager
def new_folder(folder: Path, option: str) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `folder` at the end (unless it is empty), and removed on failure.
    option: the flag that sets `folder`, or "". Raises UserError: `folder` exists or cannot be written."""
    refuse_existing(folder, option)
    unfinished = incomplete(folder)
    with writing(folder, option):
        clear(unfinished)  # left by a killed process
        try:
            make_folder(unfinished)
            yield unfinished
            if any(unfinished.iterdir()):
                flush_all(unfinished)
                unfinished.rename(folder)
                flush(folder.parent)
        finally:
            clear(unfinished)


def clear(folder: Path) -> None:
    """Removes `folder`; of a link only the link itself."""
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(folder: Path, option: str) -> None:
    """Raises UserError where `folder` exists. option: the flag that sets it, or ""."""
    if folder.exists() or folder.is_symlink():
        another = option and f", or choose another {option}"
        raise UserError(f"{folder} exists already and is not overwritten; move it away{another}.")


@contextmanager
def writing(place: Path, option: str) -> Iterator[None]:
    """Turns an OSError in the `with` into a UserError that names `place`, or the other file that failed. Its exit code
    tells whether the same command can continue. option: the flag that sets `place`, or ""."""
    try:
        yield
    except OSError as error:
        cause = cause_of(error)
        if any(said in cause for said in (OPEN_FILES, MEMORY, SHARED_MEMORY, PROCESSES)):  # whatever the path
            raise
        reason, here = error.strerror or error, place.absolute()
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else here
        other = Path(named).absolute()
        if here.is_relative_to(other) or any(map(other.is_relative_to, (here, incomplete(here)))):
            sentence = f"{place} cannot be written ({reason}); fix that{option and f' or choose another {option}'}."
        else:
            sentence = f"{other} cannot be used ({reason}), so nothing was written at {place}."
        raise UserError(sentence, exit_code_of(cause)) from error


def flush_all(folder: Path) -> None:
    """Flushes everything in `folder` to the disk (fsync)."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def flush(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush a folder
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def is_inside(name: str) -> bool:
    """Whether `name` is a relative path that stays inside its folder."""
    path = PurePath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def at_home(path: str) -> str:
    """`path` with a leading ~ or ~NAME replaced by that user's home folder. Raises UserError where that is unknown: no
    such user, or neither HOME nor a user name, as in containers."""
    found = os.path.expanduser(path)  # noqa: PTH111  pathlib's raises
    if found.startswith("~"):
        raise UserError(f"{path}: there is no home folder {path.partition('/')[0]}; give the path without ~.")
    return found


# ---- reading ----

# A JSON schema: a type (float: any number), {key: schema} for required keys, {str: schema} for any keys, or [schema]
# for lists.
Form = type | Mapping[Any, "Form"] | Sequence["Form"]

KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number"}
KINDS |= {bool: "a truth value", type(None): "null"}


def read_json(file: Path, form: Form, remedy: str) -> Any:
    """The content of one of our JSON files. Raises UserError where it is missing, cannot be read, is damaged or not of
    this `form`, with the `remedy`: what to do then; OSError: a fault of the system."""
    try:
        return parse_json(file.read_bytes(), form)
    except OSError as error:
        if cause_of(error):
            raise
        raise UserError(f"{file} cannot be read ({error.strerror or error}); {remedy}.") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); {remedy}.") from error


def parse_json(data: str | bytes, form: Form) -> Any:
    """The content of JSON. Raises ValueError for other text, or JSON of another `form`."""
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(content, form, "it")
    return content


def _check(content: Any, form: Form, name: str) -> None:
    kind = form if isinstance(form, type) else type(form)
    fits = isinstance(content, (int, float) if kind is float else kind)
    if not fits:
        raise ValueError(f"{name} is {KINDS[type(content)]}, expected {KINDS[kind]}")
    if isinstance(form, dict):
        for key in content if str in form else form:
            if key not in content:
                raise ValueError(f"{name} has no key {key!r}")
            _check(content[key], form.get(key) or form[str], f"{name}[{key!r}]")
    if isinstance(form, list):
        for i, element in enumerate(content):
            _check(element, form[0], f"{name}[{i}]")
