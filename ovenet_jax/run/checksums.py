"""Checksums of the files in a folder, stored in it, to detect damage."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from ovenet_jax import files

FILE = "xxh3.json"  # path in the folder -> 64-bit XXH3 of that file


def write(folder: Path) -> None:
    """Reads all files in `folder` and writes their checksums."""
    files.write_json(folder / FILE, _checksums(folder, ""))


def check(folder: Path, below: str) -> None:
    """Raises ValueError or OSError where files in folder/below are not as they were written. Checkpoints of earlier
    versions have no checksum file; Orbax alone checks those."""
    file = folder / FILE
    if file.exists():
        written, now = files.parse_json(file.read_bytes(), {str: str}), _checksums(folder, below)
        for path, checksum in written.items():
            if path.startswith(f"{below}/") and now.get(path) != checksum:
                raise ValueError(f"{path} is not as it was written")


def _checksums(folder: Path, below: str) -> dict[str, str]:
    paths = sorted(path for path in (folder / below).rglob("*") if path.is_file())
    with ThreadPoolExecutor() as threads:
        return {p.relative_to(folder).as_posix(): x for p, x in zip(paths, threads.map(_checksum, paths), strict=True)}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_64).hexdigest()
