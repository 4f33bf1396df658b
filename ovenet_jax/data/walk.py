"""Recursive listing of image, label and offset files.

Hidden files and folders (leading dot) are skipped: file managers, notebooks and archives leave them. Links to folders
are followed. Other files are counted and named.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ovenet_jax.errors import UserError

Note = tuple[str, str]  # a message about files of one kind, and an example


def walk(folder: Path, suffixes: Sequence[str], end: str = "") -> tuple[list[Path], list[Note]]:
    """The files under `folder` called *<end><suffix>, suffixes in small or capital letters, in the order of their
    paths; and a note for each of the others. Raises UserError: a folder cannot be read, or a link points to a folder
    that contains it."""
    found: list[Path] = []
    left_out: list[Note] = []
    for file in sorted(_files(folder)):
        if file.suffix.lower() not in suffixes:
            kind = f"files {file.suffix or 'without a suffix'} left out (only {', '.join(suffixes)} are read)"
            left_out.append((kind, str(file)))
        elif not file.stem.endswith(end):
            left_out.append((f"files whose names do not end in {end} left out", str(file)))
        else:
            found.append(file)
    return found, left_out


def _files(folder: Path, above: tuple[Path, ...] = (), link: Path | None = None) -> Iterator[Path]:
    link = folder if folder.is_symlink() else link  # the last on the way here
    try:
        above = (*above, folder.resolve(strict=True))
        if link and above[-1] in above[:-1]:
            raise UserError(f"{link} is a link to {link.resolve()}, which contains it; remove the link.")
        entries = [(Path(entry), entry.is_dir()) for entry in os.scandir(folder) if entry.name[0] != "."]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); mend it or move it away.") from error
    for path, is_folder in entries:
        if is_folder:
            yield from _files(path, above, link)
        else:
            yield path


def counted(notes: Iterable[Note]) -> list[dict]:
    """Each note once, with the number of its files and the first of them, as an inventory keeps it."""
    files: dict[str, list[str]] = {}
    for note, file in notes:
        files.setdefault(note, []).append(file)
    return [{"note": note, "files": len(of_note), "first": of_note[0]} for note, of_note in files.items()]


def said(notes: Sequence[Mapping]) -> list[str]:
    """A line for each of the notes that `counted` returns."""
    return [f"{n['note']}: {n['files']}; the first: {n['first']}" for n in notes]
