"""Image files: which are refused, which are rewritten without loss, how they are decoded, and written.

Everything that can be read off a file's header is checked there, before any memory is spent on its pixels. A file
that ends too early does not decode (OpenCV 5 stops there and returns nothing). To train and to test with, images are
JPEGs and PNGs that have an exact RGB; to predict, Pillow reads what else people have.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from ovenet_jax import files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
PREDICTED_SUFFIXES = (*IMAGE_SUFFIXES, ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
HEAD = 2**16  # bytes, which hold the header of most files
MAX_PIXELS = 10**8  # of an image, which is decoded within 1 GB; more is taken for a decompression bomb
PILLOW_PIXELS = MAX_PIXELS // 2  # the same, for Pillow takes more
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

JPEG, JPEG_SCAN = b"\xff\xd8", b"\xff\xda"
MAX_SCANS = 10  # of the largest image, each of which is a pass over it; smaller ones may have more
PNG = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3  # PNG's colour types
WITH_ALPHA = (4, 6)
CHANNELS = {GREY: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers whose segment holds the size

# Notes: how a file was taken that is not what most are.
GREY_IMAGE = "grey images, read with three equal channels"
PALETTE_IMAGE = "palette images, read in their colours"
OPAQUE_IMAGE = "images with an alpha channel, which is opaque all over and left out"
TURNED_IMAGE = "images turned as their EXIF says"
TURNED_LABEL = "labels turned with their images, whose stored pixels they lie on"
PALETTE_LABEL = "palette labels, kept as their indices in 8 bits"
DEEP_LABEL = "16-bit labels, kept in 8 bits, which hold all their values"
SHALLOW_LABEL = "labels of fewer than 8 bits, kept in 8 bits"
DEEP_IMAGE = "images of 16 bits per channel, of which the upper 8 are taken"
CMYK_IMAGE = "CMYK images, whose colours are converted without their profile"
CLEAR_IMAGE = "images with transparent pixels, taken in front of white"
MOVING_IMAGE = "files of several images, of which the first is taken"

EXIF_ORIENTATION, TIFF_BITS = 0x0112, 258  # tags
# How EXIF turns stored pixels: whether rows are reversed, and columns, and then both exchanged.
ORIENTATIONS = {
    1: (False, False, False), 2: (False, True, False), 3: (True, True, False), 4: (True, False, False),
    5: (False, False, True), 6: (True, False, True), 7: (True, True, True), 8: (False, True, True),
}  # fmt: skip


class Read(NamedTuple):
    """array: pixels, or label ids. data: the file as `decode_image` or `decode_label` takes it. note: what is to be
    said about it, "" if nothing. orientation: by which of ORIENTATIONS the stored pixels were turned."""

    array: np.ndarray
    data: bytes
    note: str = ""
    orientation: int = 1


class LossyError(ValueError):
    """An image without an exact RGB of 8 bits."""


class Header(NamedTuple):
    """size: (H, W). depth: bits of a channel, or of a palette's index. alpha: a channel of its own, or a colour or
    colours of a palette that are transparent."""

    size: tuple[int, int]
    depth: int
    channels: int
    palette: bool = False
    alpha: bool = False


def read_header(data: bytes) -> Header:
    """The header of a PNG or JPEG file, which can be decoded within what that says.

    Raises:
      ValueError: it is neither, is damaged, or too large to be an image.
    """
    try:
        header = _png_header(data) if data.startswith(PNG) else _jpeg_header(data)
    except (struct.error, IndexError, KeyError):
        raise ValueError("does not decode as an image") from None
    height, width = header.size
    if height * width > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels; more than {MAX_PIXELS} are not read")
    scans = 1 if data.startswith(PNG) else data.count(JPEG_SCAN)
    if height * width * scans > MAX_PIXELS * MAX_SCANS:
        raise ValueError(f"{scans} scans of {width}x{height} pixels; so many would take minutes")
    return header


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, read off its first bytes; (0, 0) if that cannot be, or it is too large."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if head.startswith(PNG):
                width, height = struct.unpack_from(">II", head, 16)
                return (height, width) if height * width <= MAX_PIXELS else (0, 0)
            try:
                return _jpeg_header(head).size
            except (struct.error, IndexError):
                return _jpeg_header(head + file.read()).size
    except (OSError, struct.error, IndexError, KeyError):
        return 0, 0


def _png_header(data: bytes) -> Header:
    kinds = [kind for kind, _ in _png_chunks(data)]
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") != 1:
        raise KeyError("no header, or two")
    width, height, depth, color = struct.unpack_from(">II2B", data, 16)
    alpha = color in WITH_ALPHA or b"tRNS" in kinds
    return Header((height, width), depth, CHANNELS[color], color == PALETTE, alpha)


def _jpeg_header(data: bytes) -> Header:
    if not data.startswith(JPEG):
        raise KeyError("no JPEG")
    at = 2
    while data[at + 1] not in JPEG_FRAMES:
        # markers may be preceded by any number of bytes 0xff
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    depth, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
    return Header((height, width), depth, channels)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk up to the last: its kind, and the whole of it, that is length, kind, content and checksum."""
    at, kind = len(PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data) or (kind == b"IHDR" and length != 13):
            raise IndexError("it ends too early")  # whoever trusts that length reserves memory for it
        yield kind, data[at : at + 12 + length]
        at += 12 + length


def read_image(data: bytes) -> Read:
    """A file of any origin -> uint8 RGB [H, W, 3].

    Raises:
      ValueError: it does not decode, or (LossyError) not without loss.
    """
    header = read_header(data)
    if header.depth > 8:
        raise LossyError(f"{header.depth} bits per channel; save it with 8")
    if header.channels == 4 and not header.alpha:
        raise LossyError("CMYK, which has no exact RGB; save it as RGB")
    if header.alpha and _alpha(data).min() < 255:
        raise LossyError("transparent pixels; save it without an alpha channel")
    array, orientation, note = decode_image(data), 1, ""
    if b"Exif" in data or b"eXIf" in data:
        orientation = _orientation(data, array)
    if orientation != 1:
        note = TURNED_IMAGE
    elif header.alpha:
        note = OPAQUE_IMAGE
    elif header.palette:
        note = PALETTE_IMAGE
    elif header.channels == 1:
        note = GREY_IMAGE
    return Read(array, data, note, orientation)


def _alpha(data: bytes) -> np.ndarray:
    """How opaque each pixel of a PNG is, uint8 [H, W]."""
    array = _decode(data, cv2.IMREAD_UNCHANGED)
    if array.ndim == 3:
        return array[..., -1]
    return np.array(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3]  # a grey one, with one colour transparent


def _orientation(data: bytes, image: np.ndarray) -> int:
    """How `image`, decoded from `data`, was turned."""
    stored, kinds, contents = cv2.imdecodeWithMetadata(
        np.frombuffer(data, np.uint8), flags=cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
    exif = Image.Exif()
    with suppress(Exception):  # whatever a damaged one makes Pillow raise: it turns nothing, or is not clear
        exif.load(contents[list(kinds).index(cv2.IMAGE_METADATA_EXIF)].tobytes())
    said = exif.get(EXIF_ORIENTATION)
    orientation = said if isinstance(said, int) and said in ORIENTATIONS else 1
    if not np.array_equal(turned(stored, orientation), image):
        raise ValueError("it is not clear how its EXIF turns it; save it upright")
    return orientation


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, ...] as EXIF's orientation turns them."""
    rows, columns, exchanged = ORIENTATIONS[orientation]
    array = array[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(array.swapaxes(0, 1) if exchanged else array)


def turned_alike(label: Read, image: Read) -> Read:
    """The label of an image, turned with it where it lies on the image's stored pixels: where their sizes agree.

    One that has the size of the turned image alone was drawn on that.
    """
    exchanged = ORIENTATIONS[image.orientation][-1]
    stored = image.array.shape[1::-1] if exchanged else image.array.shape[:2]
    if image.orientation == 1 or label.array.shape != stored:
        return label
    array = turned(label.array, image.orientation)
    return Read(array, encoded(array), "; ".join(filter(None, (label.note, TURNED_LABEL))))


def read_any_image(data: bytes) -> Read:
    """As `read_image` or, to predict only, what that refuses: other formats, and images without an exact RGB.

    Raises:
      ValueError: it does not decode.
    """
    if data.startswith((PNG, JPEG)):
        with suppress(LossyError):
            return read_image(data)
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as picture:
            if picture.width * picture.height > PILLOW_PIXELS:
                raise ValueError(f"{picture.width}x{picture.height} pixels; more than {PILLOW_PIXELS} are not read")
            bits = getattr(picture, "tag_v2", {}).get(TIFF_BITS, 8)
            deep = np.max(bits) > 8 or (data.startswith(PNG) and read_header(data).depth > 8)
            array, notes = _in_rgb(picture, deep)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise ValueError("does not decode as an image") from error
    return Read(array, data, "; ".join(notes))


def _in_rgb(picture: Image.Image, deep: bool) -> tuple[np.ndarray, list[str]]:
    """uint8 RGB [H, W, 3], and what is to be said of it. deep: whether channels have more than 8 bits."""
    notes = [MOVING_IMAGE] if getattr(picture, "is_animated", False) else []
    if picture.mode in ("I", "F") and picture.format != "PNG":
        raise ValueError("more than 16 bits per channel; save it with 8")
    if deep:
        notes.append(DEEP_IMAGE)
    if picture.getexif().get(EXIF_ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
        notes.append(TURNED_IMAGE)
    if picture.mode.startswith("I"):
        return np.dstack([np.asarray(picture).astype(np.uint16) >> 8] * 3).astype(np.uint8), notes
    if picture.mode == "CMYK":
        notes.append(CMYK_IMAGE)
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        alpha = clear.getchannel("A")
        if np.asarray(alpha).min() < 255:
            notes.append(CLEAR_IMAGE)
            picture = Image.new("RGB", clear.size, "white")
            picture.paste(clear, mask=alpha)
    return np.array(picture.convert("RGB")), notes


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
    read_header(data)
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
        raise ValueError(f"{path}: a picture is uint8 [h, w, 3] or [h, w], not {picture.dtype} {list(picture.shape)}")
    files.write(path, encoded(picture, path.suffix, parameters))


def encoded(picture: np.ndarray, suffix: str = ".png", parameters: Sequence[int] = ()) -> bytes:
    """What `write_picture` writes."""
    in_order = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, in_order, parameters)[1].tobytes()
