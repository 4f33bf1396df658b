"""Offsets and ground truth as files: our own form, and the published one.

Ours is a greyscale PNG of several maps, each of the image's size: lossless, as small as the published form, and read by
one call of OpenCV or any other library.

| holds | bits | maps |
|---|---|---|
| ground truth | 8 | distance above direction, see ground_truth.py |
| boundary offsets | 8 | rows + 128, beside it columns + 128, in pixels |
| seed offsets | 16 | rows + 32768, columns + 32768, in pixels, and confidence * 255, side by side |

The published form is MATLAB's: `mat` [H, W, 2] (row, column) of offsets; `depth`, `dir_deg`, `deg_reduce` of the ground
truth. Nothing in a file is executed; from a .mat only the array `mat` is read.
"""

import contextlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy import io

from ovenet_jax import files
from ovenet_jax.data import image_files, mat_file
from ovenet_jax.segfix import ground_truth

OFFSET_SUFFIXES = (".png", ".mat")
MAX_OFFSET = 2**15  # pixels
PNG_PARAMETERS = (cv2.IMWRITE_PNG_COMPRESSION, 6)  # OpenCV's default is faster, but files are more than twice as large


class Offsets(NamedTuple):
    """offset: in pixels, (row, column), [H, W, 2]: integers, or float32 where a .mat holds fractions.

    confidence: None for boundary offsets, which are 0 where nothing is refined and may be scaled. For seed offsets,
    which point to one pixel: the confidence that both belong to the same object, float32 [H, W], 0 to 1.
    """

    offset: np.ndarray
    confidence: np.ndarray | None = None


def write_offsets(path: Path, offsets: Offsets) -> None:
    """Writes integer offsets, by the suffix of `path`: .png, or .mat for those of boundaries. Raises ValueError: this
    form cannot hold them; OSError: the file system refuses."""
    offset, confidence = offsets
    is_mat = path.suffix == ".mat"
    if is_mat and confidence is not None:
        raise ValueError(f"{path}: a .mat holds no confidence; write a .png")
    kind = np.iinfo(np.int8 if confidence is None else np.int16)
    if offset.min(initial=0) < kind.min or offset.max(initial=0) > kind.max:
        fault = f"offsets from {offset.min()} to {offset.max()} pixels"
        raise ValueError(f"{path}: {fault}; this form holds {kind.min} to {kind.max}")
    if is_mat:
        _write_mat(path, {"mat": offset.astype(np.int8)})
    else:
        rows_columns = np.moveaxis(offset.astype(np.int32) - kind.min, -1, 0)
        sure = [] if confidence is None else [np.rint(confidence * 255)]
        image_files.write_picture(path, np.hstack([*rows_columns, *sure]).astype(f"uint{kind.bits}"), PNG_PARAMETERS)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Context manager: adds the file's path to ValueErrors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_offsets(path: Path, size: tuple[int, int]) -> Offsets:
    """Reads any offset file of an image of `size` (H, W); its kind is known by its content. Raises ValueError: it
    holds no offsets, or those of another size, or is damaged; OSError: the file system refuses."""
    with named(path):
        data = path.read_bytes()
        return Offsets(_mat_offset(data, size)) if path.suffix.lower() == ".mat" else _png_offsets(data, size)


def _png_offsets(data: bytes, size: tuple[int, int]) -> Offsets:
    header = image_files.read_header(data)
    bits, count = (8, 2) if header.depth == 8 else (16, 3)
    if header.size != (size[0], count * size[1]):
        (height, width), (found_height, found_width) = size, header.size
        wanted = f"{count} maps of {width}x{height}, side by side"
        raise ValueError(f"{found_width}x{found_height} pixels; expected {wanted}")
    rows, columns, *confidence = np.split(image_files.decode_label(data, bits), count, axis=1)
    offset = np.moveaxis(np.stack([rows, columns]).astype(np.int32) - 2 ** (bits - 1), 0, -1)
    return Offsets(offset, *(x.astype(np.float32) / 255 for x in confidence))


def _mat_offset(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Integers or float32 [H, W, 2], in MATLAB's order."""
    offset = mat_file.read_array(data, "mat", (*size, 2))
    if not (offset.min(initial=0) >= -MAX_OFFSET and offset.max(initial=0) <= MAX_OFFSET):  # nan is neither
        raise ValueError(f"its field 'mat' has values beyond {MAX_OFFSET} pixels, or none")
    if offset.dtype.kind == "f":
        return offset.astype(np.float32 if np.any(offset % 1) else np.int32)
    return offset


def write_ground_truth(path: Path, truth: ground_truth.GroundTruth) -> None:
    """Writes it as .png or .mat. Raises OSError: the file system refuses."""
    if path.suffix == ".mat":
        _write_mat(path, {"depth": truth.distance, "dir_deg": truth.direction, "deg_reduce": 2})
    else:
        image_files.write_picture(path, np.vstack(truth), PNG_PARAMETERS)


def read_ground_truth(path: Path) -> ground_truth.GroundTruth:
    """Reads what `write_ground_truth` wrote as .png. Raises ValueError: it holds no ground truth, or is damaged;
    OSError: the file system refuses."""
    with named(path):
        picture = image_files.decode_label(path.read_bytes())
        if len(picture) % 2:
            raise ValueError(f"{len(picture)} rows, which are not 2 maps of one size")
        return ground_truth.GroundTruth(*np.split(picture, 2))


def _write_mat(path: Path, fields: dict) -> None:
    content = BytesIO()
    io.savemat(content, fields, do_compression=True)
    files.write(path, content.getvalue())
