"""Image files: which are refused, which are rewritten without loss, how they are decoded, and written.

Everything that can be read off a file's header is checked there, before any memory is spent on its pixels. A file
that ends too early does not decode (OpenCV 5 stops there and returns nothing).
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ovenet_jax import files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
HEAD = 2**16  # bytes, which hold the header of most files
MAX_PIXELS = 2**28  # of an image; more is taken for a decompression bomb

PNG = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3  # PNG's colour types
WITH_ALPHA = (4, 6)
CHANNELS = {GREY: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers whose segment holds the size

# Notes: how a file was taken that is not what most are.
GREY_IMAGE = "grey images, read with three equal channels"
PALETTE_IMAGE = "palette images, read in their colours"
OPAQUE_IMAGE = "images with an alpha channel, which is opaque all over and left out"
TURNED_IMAGE = "images turned as their EXIF says; their labels must be turned alike, which nothing checks"
PALETTE_LABEL = "palette labels, kept as their indices in 8 bits"
DEEP_LABEL = "16-bit labels, kept in 8 bits, which hold all their values"
SHALLOW_LABEL = "labels of fewer than 8 bits, kept in 8 bits"


class Read(NamedTuple):
    """array: pixels, or label ids. data: the file as `decode_image` or `decode_label` takes it. note: what is to be
    said about it, "" if nothing."""

    array: np.ndarray
    data: bytes
    note: str = ""


class Header(NamedTuple):
    """size: (H, W). depth: bits of a channel, or of a palette's index. alpha: a channel of its own, or a colour or
    colours of a palette that are transparent."""

    size: tuple[int, int]
    depth: int
    channels: int
    palette: bool = False
    alpha: bool = False


def read_header(data: bytes) -> Header:
    """The header of a PNG or JPEG file.

    Raises:
      ValueError: it is neither, or too large to be an image.
    """
    try:
        header = _png_header(data) if data.startswith(PNG) else _jpeg_header(data)
    except (struct.error, IndexError, KeyError):
        raise ValueError("does not decode as an image") from None
    height, width = header.size
    if height * width > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels; more than {MAX_PIXELS} are not read")
    return header


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, read off its first bytes; (0, 0) if that cannot be."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            try:
                return read_header(head).size
            except ValueError:
                return read_header(head + file.read()).size
    except (OSError, ValueError):
        return 0, 0


def _png_header(data: bytes) -> Header:
    width, height, depth, color = struct.unpack_from(">II2B", data, 16)
    alpha = color in WITH_ALPHA or any(kind == b"tRNS" for kind, _ in _png_chunks(data))
    return Header((height, width), depth, CHANNELS[color], color == PALETTE, alpha)


def _jpeg_header(data: bytes) -> Header:
    if not data.startswith(b"\xff\xd8"):
        raise KeyError("no JPEG")
    at = 2
    while data[at + 1] not in JPEG_FRAMES:
        # markers may be preceded by any number of bytes 0xff
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    depth, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
    return Header((height, width), depth, channels)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk: its kind, and the whole of it, that is length, kind, content and checksum."""
    at = len(PNG)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + 12 + length]
        at += 12 + length


def read_image(data: bytes) -> Read:
    """A file of any origin -> uint8 RGB [H, W, 3].

    Raises:
      ValueError: it does not decode, or not without loss.
    """
    header = read_header(data)
    if header.depth > 8:
        raise ValueError(f"{header.depth} bits per channel; save it with 8")
    if header.channels == 4 and not header.alpha:
        raise ValueError("CMYK, which has no exact RGB; save it as RGB")
    if header.alpha and _decode(data, cv2.IMREAD_UNCHANGED)[..., -1].min() < 255:
        raise ValueError("transparent pixels; save it without an alpha channel")
    note = ""
    if b"Exif" in data[:HEAD] and not np.array_equal(
        decode_image(data), _decode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    ):
        note = TURNED_IMAGE
    elif header.alpha:
        note = OPAQUE_IMAGE
    elif header.palette:
        note = PALETTE_IMAGE
    elif header.channels == 1:
        note = GREY_IMAGE
    return Read(decode_image(data), data, note)


def read_label(data: bytes) -> Read:
    """A file of any origin -> uint8 label ids [H, W].

    Raises:
      ValueError: it does not decode, or holds something else than one channel of ids from 0 to 255.
    """
    if not data.startswith(PNG):
        read_header(data)
        raise ValueError("a JPEG; labels must be PNG, which loses nothing")
    header = read_header(data)
    if header.alpha and not header.palette:
        raise ValueError("an alpha channel; expected a label with one channel of ids")
    if header.channels > 1:
        raise ValueError(f"{header.channels} channels; expected a label with one channel of ids")
    if header.depth == 8 and not header.palette:
        return Read(decode_label(data), data)
    values = _decode(_indices_as_grey(data) if header.palette else data, cv2.IMREAD_UNCHANGED)
    if header.depth == 16:
        note = DEEP_LABEL
        if values.max() > 255:
            raise ValueError(f"label value {values.max()}; ids end at 255")
    else:
        note = PALETTE_LABEL if header.palette else SHALLOW_LABEL
        values = values // (255 // (2**header.depth - 1))  # OpenCV spreads them over 0 to 255
    label = values.astype(np.uint8)
    return Read(label, encoded(label), note)


def _indices_as_grey(data: bytes) -> bytes:
    """A palette PNG as the grey PNG of its indices: the compressed pixels of both are the same."""
    kept = [PNG]
    for kind, chunk in _png_chunks(data):
        if kind == b"IHDR":
            header = chunk[4:17] + bytes([GREY]) + chunk[18:-4]
            chunk = chunk[:4] + header + struct.pack(">I", zlib.crc32(header))
        if kind not in (b"PLTE", b"tRNS"):
            kept.append(chunk)
    return b"".join(kept)


def decode_image(data: bytes) -> np.ndarray:
    """JPEG or PNG bytes, as `read_image` has found them to be sound, -> uint8 RGB [H, W, 3].

    Raises:
      ValueError: the bytes do not decode.
    """
    return _decode(data, cv2.IMREAD_COLOR_RGB)


def decode_label(data: bytes) -> np.ndarray:
    """PNG bytes, as `read_label` returns them, -> uint8 label ids [H, W].

    Raises:
      ValueError: the bytes do not decode, or hold other than one 8-bit channel.
    """
    label = _decode(data, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        channels = 1 if label.ndim == 2 else label.shape[2]
        raise ValueError(f"expected a label with one 8-bit channel, got {channels} of {label.dtype}")
    return label


def _decode(data: bytes, flags: int) -> np.ndarray:
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # of sizes that it does not take
        array = None
    if array is None:
        raise ValueError("does not decode as an image")
    return array


# ---- written ----


def write_picture(path: Path, picture: np.ndarray, parameters: Sequence[int] = ()) -> None:
    """Writes an image, uint8 RGB [H, W, 3], or one channel, uint8 or uint16 [H, W], as .png or .jpg. parameters:
    OpenCV's, of its encoder.

    Raises:
      ValueError: another kind of array.
      OSError: the file system refuses.
    """
    kinds = {2: (np.uint8, np.uint16), 3: (np.uint8,)}
    if picture.dtype not in kinds.get(picture.ndim, ()) or picture.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"{path}: a picture is uint8 [h, w, 3] or [h, w], not {picture.dtype} {list(picture.shape)}"
        )
    files.write(path, encoded(picture, path.suffix, parameters))


def encoded(picture: np.ndarray, suffix: str = ".png", parameters: Sequence[int] = ()) -> bytes:
    """What `write_picture` writes."""
    in_order = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, in_order, parameters)[1].tobytes()
