"""Checksums of the files in a folder, stored in it, to detect damage."""

import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ovenet_jax import files

FILE = "checksums.json"  # of each file, by its path in the folder, the CRC-32 of each block
BLOCK = 2**22  # bytes


def write(folder: Path) -> None:
    """Reads all files in `folder` and writes their checksums."""
    files.write_json(folder / FILE, _checksums(folder, ""))


def check(folder: Path, below: str) -> None:
    """Raises ValueError or OSError where files in folder/below are not as they were written. Checkpoints of earlier
    versions have no checksums: only Orbax checks these."""
    file = folder / FILE
    if file.exists():
        written, now = files.parse_json(file.read_bytes(), {str: [int]}), _checksums(folder, below)
        for path, checksums in written.items():
            if path.startswith(f"{below}/") and now.get(path) != checksums:
                raise ValueError(f"{path} is not as it was written")


def _checksums(folder: Path, below: str) -> dict[str, list[int]]:
    found = {}
    with ThreadPoolExecutor() as threads:
        for path in sorted(path for path in (folder / below).rglob("*") if path.is_file()):
            blocks = threads.map(partial(_checksum, path), range(0, path.stat().st_size, BLOCK))
            found[path.relative_to(folder).as_posix()] = [*blocks]
    return found


def _checksum(path: Path, start: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        return zlib.crc32(file.read(BLOCK))
