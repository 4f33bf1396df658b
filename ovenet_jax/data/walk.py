"""The one walk over the folders in which people keep images, labels and offsets.

Names that begin with a dot are left alone, of files and of folders: they are what file managers, notebooks and archives
leave. Links to folders are followed. Files of other suffixes than those asked for are counted and named.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ovenet_jax.errors import UserError

Note = tuple[str, str]  # what is to be said of files of this kind, and one of them


class Found(NamedTuple):
    """Files in the order of their paths: those asked for, and each of the others behind what is to be said of it."""

    files: list[Path]
    left_out: list[Note]


def walk(folder: Path, suffixes: Sequence[str], end: str = "") -> Found:
    """The files under `folder` whose suffix, in small or capital letters, is one of these and follows on `end`.

    Raises:
      UserError: a folder cannot be read, or a link leads back to one that it stands in.
    """
    found = Found([], [])
    for file in sorted(file for file in _files(folder, ()) if file.stem.endswith(end)):
        if file.suffix.lower() in suffixes:
            found.files.append(file)
        else:
            kind = f"files {file.suffix or 'without a suffix'} left out, where {', '.join(suffixes)} are read"
            found.left_out.append((kind, str(file)))
    return found


def _files(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    try:
        above = (*above, folder.resolve(strict=True))
        if above[-1] in above[:-1]:
            raise UserError(f"{folder} is a link to {above[-1]}, which it stands in; remove the link.")
        entries = [(Path(entry), entry.is_dir()) for entry in os.scandir(folder) if entry.name[0] != "."]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); mend or remove it.") from error
    for path, is_folder in entries:
        if is_folder:
            yield from _files(path, above)
        else:
            yield path


def counted(notes: Iterable[Note]) -> list[dict]:
    """Each note once, with how many files it is about and the first of them, as an inventory keeps it."""
    files: dict[str, list[str]] = {}
    for note, file in notes:
        files.setdefault(note, []).append(file)
    return [{"note": note, "files": len(of_note), "first": of_note[0]} for note, of_note in files.items()]


def said(notes: Sequence[Mapping]) -> list[str]:
    """A line for each of the notes that `counted` returns."""
    return [f"{n['files']} {n['note']}; the first: {n['first']}" for n in notes]
