"""The one way to write and read our own files: whole or not at all, and on the disk before they are found.

A file or folder is made beside its place, under a hidden name that ends in `.incomplete`, flushed to the disk and
renamed; then the folder it stands in is flushed. Whoever looks, after whatever sudden end, finds all of the old or all
of the new. What goes wrong is an OSError that names the file.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from ovenet_jax.errors import UserError

# ---- writing ----


def write(file: Path, content: str | bytes) -> None:
    """Writes or replaces `file`, making its folders."""
    unfinished = incomplete(file, f".{os.getpid()}")
    try:
        make_folder(file.parent)
        unfinished.unlink(missing_ok=True)  # of one that was killed
        with unfinished.open("xb") as opened:
            opened.write(content.encode() if isinstance(content, str) else content)
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
    """As JSON, which has no NaN and no infinity: null in their place."""
    return json.dumps(finite(content), indent=indent, allow_nan=False)


def finite(content: Any) -> Any:
    """`content` with None for every number in it that is not finite."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def make_folder(folder: Path) -> None:
    """Makes `folder` and those above it, where they are not there yet."""
    missing = list(takewhile(lambda above: not above.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        flush(made.parent)


def incomplete(path: Path, writer: str = "") -> Path:
    """Where the content of `path` is written until it is complete, the same in all processes that name no `writer`:
    beside it, under a name that is never too long and no other path's."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return path.with_name(f".{path.name[:40]}.{digest}{writer}.incomplete")


@contextmanager
def new_folder(folder: Path, option: str) -> Iterator[Path]:
    """Where to write what becomes `folder` at the end, unless it is left empty; work that fails or is interrupted
    leaves nothing. Raises UserError where `folder`, which the flag `option` chooses, exists or cannot be written."""
    refuse_existing(folder, option)
    unfinished = incomplete(folder)
    with writing(folder, option):
        clear(unfinished)  # of one that was killed
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
    """Removes `folder`, or a link in its place, and not what that leads to."""
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(folder: Path, option: str) -> None:
    """Raises UserError where `folder`, which the flag `option` chooses, is there already."""
    if folder.exists() or folder.is_symlink():
        helps = f"move it away, or choose another {option}"
        raise UserError(f"{folder} exists already and is not overwritten; {helps}.")


OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)  # wherever is written


@contextmanager
def writing(place: Path, option: str) -> Iterator[None]:
    """Raises UserError where what is done meanwhile cannot be written at `place`, which the flag `option` chooses, or
    meets a file elsewhere that cannot be used."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_THE_MACHINE or "/dev/shm" in str(error.filename):
            raise
        reason, here = error.strerror or error, place.absolute()
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else here
        other = Path(named).absolute()
        if here.is_relative_to(other) or any(map(other.is_relative_to, (here, incomplete(here)))):
            sentence = f"{place} cannot be written ({reason}); free or choose another {option}."
        else:
            sentence = f"{other} cannot be used ({reason}), so nothing was written at {place}."
        raise UserError(sentence) from error


def flush_all(folder: Path) -> None:
    """Has the disk keep all that stands in `folder` by now, whoever wrote it."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def flush(path: Path) -> None:
    """Has the disk keep the content of a file, or which names there are in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush a folder
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def is_inside(name: str) -> bool:
    """Whether a path of this name under a folder is in it."""
    path = PurePath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def at_home(path: str) -> str:
    """`path`, whose leading ~ or ~NAME is replaced by that user's home folder. Raises UserError where there is no such
    user, or HOME is not set where the user has no name, as in containers."""
    found = os.path.expanduser(path)  # noqa: PTH111  pathlib's raises
    if found.startswith("~"):
        raise UserError(f"{path}: there is no home folder {path.partition('/')[0]}; give the path without ~.")
    return found


# ---- reading ----

# What JSON must be: a type (float: any number); a dict of the keys that must be there and the form of what each holds,
# or {str: form} for any keys; or a list of the one form of its elements.
Form = type | Mapping[Any, "Form"] | Sequence["Form"]

KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number"}
KINDS |= {bool: "a truth value", type(None): "null"}


def read_json(file: Path, form: Form, remedy: str) -> Any:
    """The content of one of our JSON files. Raises UserError where it is missing, cannot be read, is damaged or not of
    this `form`, with the `remedy`: what to do then."""
    try:
        return parse_json(file.read_bytes(), form)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error}); {remedy}.") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); {remedy}.") from error


def parse_json(data: str | bytes, form: Form) -> Any:
    """What these characters hold. Raises ValueError where that is no JSON, or none of this `form`."""
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
