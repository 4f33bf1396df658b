"""Image files: checks, lossless rewriting, decoding and writing.

Everything that a file's header says is checked before any memory is spent on its pixels. A file that ends too early
does not decode (OpenCV 5 stops there and returns nothing). Training and evaluation accept JPEGs and PNGs that convert
to 8-bit RGB without loss; prediction also accepts what Pillow reads.
"""

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from ovenet_jax import files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CHANNEL_SUFFIXES = (*IMAGE_SUFFIXES, ".tif", ".tiff", ".npy")  # of images whose channels are named
PREDICTED_SUFFIXES = (*IMAGE_SUFFIXES, ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MAX_PIXELS = 10**8  # of an image, which is decoded within 1 GB; larger ones are rejected as decompression bombs
PILLOW_PIXELS = MAX_PIXELS // 2  # the same for Pillow, which needs more memory per pixel
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

JPEG, JPEG_SCAN = b"\xff\xd8", b"\xff\xda"
MAX_SCANS = 10  # scans of an image of MAX_PIXELS, each a pass over it; smaller images may have more
PNG = b"\x89PNG\r\n\x1a\n"
PALETTE = 3  # PNG's colour types
WITH_ALPHA = (4, 6)
CHANNELS = {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers whose segment holds the size

# Notes on files that were read in an unusual way.
GREY_IMAGE = "grey images, read with three equal channels"
PALETTE_IMAGE = "palette images, read in their colours"
OPAQUE_IMAGE = "images with a fully opaque alpha channel, which is dropped"
TURNED_IMAGE = "images turned as their EXIF says"
TURNED_LABEL = "labels turned with their images, as the EXIF of these says"
PALETTE_LABEL = "palette labels, kept as their indices in 8 bits"
DEEP_LABEL = "16-bit labels, kept in 8 bits, which hold all their values"
SHALLOW_LABEL = "labels of fewer than 8 bits, kept in 8 bits"
DEEP_IMAGE = "16-bit images, reduced to their upper 8 bits"
CMYK_IMAGE = "CMYK images, whose colours are converted without their profile"
TRANSPARENT_IMAGE = "images with transparent pixels, taken in front of white"
SEVERAL_IMAGES = "files of several images, of which the first is taken"

EXIF_ORIENTATION, TIFF_BITS, TIFF_CHANNELS, TIFF_PLANES, TIFF_EXTRA = 0x0112, 258, 277, 284, 338  # tags


class Read(NamedTuple):
    """array: pixels, or label ids. data: a file for `decode_image` or `decode_label`. note: a message for the
    user, or "". orientation: the EXIF orientation, 1 to 8, by which the stored pixels were turned."""

    array: np.ndarray
    data: bytes
    note: str = ""
    orientation: int = 1


class LossyError(ValueError):
    """An image that cannot be converted to 8-bit RGB without loss."""


class Header(NamedTuple):
    """size: (H, W). depth: bits of a channel, or of a palette's index. alpha: has an alpha channel, or transparent
    colours. several: holds more than one image."""

    size: tuple[int, int]
    depth: int
    channels: int
    palette: bool = False
    alpha: bool = False
    several: bool = False


def read_header(data: bytes) -> Header:
    """The header of a PNG or JPEG file, checked to be safe to decode. Raises ValueError: it is neither, is damaged, or
    too large to be an image."""
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
    """(H, W) of a PNG or JPEG file, of which only the header is read; (0, 0) if it cannot be read or is too large."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            return (picture.height, picture.width) if picture.height * picture.width <= MAX_PIXELS else (0, 0)
    except Exception:  # whatever a damaged file makes Pillow raise
        return 0, 0


def _png_header(data: bytes) -> Header:
    kinds = list(_png_chunks(data))
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") != 1 or b"IDAT" not in kinds:  # decoders would search behind IEND
        raise KeyError("no header, or two, or no pixels")
    width, height, depth, color = struct.unpack_from(">II2B", data, 16)
    alpha = color in WITH_ALPHA or b"tRNS" in kinds
    return Header((height, width), depth, CHANNELS[color], color == PALETTE, alpha, b"acTL" in kinds)


def _jpeg_header(data: bytes) -> Header:
    if not data.startswith(JPEG):
        raise KeyError("no JPEG")
    at = 2
    while data[at + 1] not in JPEG_FRAMES:
        # markers may be preceded by any number of bytes 0xff
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    depth, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
    return Header((height, width), depth, channels)


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """The kind of each chunk up to the last."""
    at, kind = len(PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data) or (kind == b"IHDR" and length != 13):
            raise IndexError("it ends too early")  # a decoder that trusts the length would allocate memory for it
        yield kind
        at += 12 + length


def read_image(data: bytes, channels: Sequence[str] = ()) -> Read:
    """A file of any origin -> uint8 RGB [H, W, 3], or what `read_channels` reads. Raises ValueError: it does not
    decode; LossyError: not without loss."""
    if channels:
        return read_channels(data, channels)
    header, otherwise = read_header(data), "or name the channels of own images in classes.yaml"
    if header.depth > 8:
        raise LossyError(f"{header.depth} bits per channel; save it with 8, {otherwise}")
    if header.channels == 4 and not header.alpha:
        raise LossyError("CMYK, which has no exact RGB; save it as RGB")
    if header.alpha and _by_pillow(data, "RGBA")[..., 3].min() < 255:
        raise LossyError(f"transparent pixels; save it without an alpha channel, {otherwise}")
    array, orientation = decode_image(data), 1
    if b"Exif" in data or b"eXIf" in data:
        orientation = _orientation(data, array)
    notes = {
        TURNED_IMAGE: orientation != 1,
        OPAQUE_IMAGE: header.alpha,
        PALETTE_IMAGE: header.palette,
        GREY_IMAGE: header.channels == 1 and not header.palette,
        SEVERAL_IMAGES: header.several,
    }
    return Read(array, data, "; ".join(note for note, applies in notes.items() if applies), orientation)


def _orientation(data: bytes, image: np.ndarray) -> int:
    """How `image`, decoded from `data`, was turned."""
    stored, kinds, contents = cv2.imdecodeWithMetadata(
        np.frombuffer(data, np.uint8), flags=cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
    exif = Image.Exif()
    with suppress(Exception):  # damaged EXIF counts as upright; if OpenCV turns the image, it is refused below
        exif.load(contents[list(kinds).index(cv2.IMAGE_METADATA_EXIF)].tobytes())
    found = exif.get(EXIF_ORIENTATION)
    orientation = found if isinstance(found, int) and found in range(1, 9) else 1
    if not np.array_equal(oriented(stored, orientation), image):
        raise ValueError("ambiguous EXIF orientation; save the image upright")
    return orientation


def oriented(array: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, ...] as EXIF's orientation turns them."""
    picture = Image.fromarray(array)
    picture.getexif()[EXIF_ORIENTATION] = orientation
    return np.array(ImageOps.exif_transpose(picture))


def oriented_like(label: Read, image: Read) -> Read:
    """The label of an image, turned as its image is if it has the size of the stored image.

    A label that its own EXIF has turned, or that has only the size of the turned image, is upright already.
    """
    stored = image.array.shape[1::-1] if image.orientation > 4 else image.array.shape[:2]
    if image.orientation == 1 or label.orientation != 1 or label.array.shape != stored:
        return label
    array = oriented(label.array, image.orientation)
    return Read(array, encoded(array), "; ".join(filter(None, (label.note, TURNED_LABEL))))


def read_any_image(data: bytes, channels: Sequence[str] = ()) -> Read:
    """Like `read_image`, but also accepts other formats and lossy conversions; for prediction only. Raises ValueError:
    it does not decode."""
    if channels or data.startswith((PNG, JPEG)):
        with suppress(LossyError):
            return read_image(data, channels)
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as picture:
            if picture.width * picture.height > PILLOW_PIXELS:
                raise ValueError(f"{picture.width}x{picture.height} pixels; more than {PILLOW_PIXELS} are not read")
            bits = getattr(picture, "tag_v2", {}).get(TIFF_BITS, 8)
            deep = np.max(bits) > 8 or (data.startswith(PNG) and read_header(data).depth > 8)
            array, notes = in_rgb(picture, deep)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise ValueError("does not decode as an image") from error
    return Read(array, data, "; ".join(notes))


def in_rgb(picture: Image.Image, deep: bool = False) -> tuple[np.ndarray, list[str]]:
    """uint8 RGB [H, W, 3], upright, and the notes on it. deep: whether channels have more than 8 bits. Raises
    ValueError: more than 16, or a mode that Pillow does not convert; OSError: its file is cut off."""
    notes = [SEVERAL_IMAGES] if getattr(picture, "is_animated", False) else []
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
        picture = picture.convert("RGBA")
        if np.asarray(picture.getchannel("A")).min() < 255:
            notes.append(TRANSPARENT_IMAGE)
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB")), notes


def read_channels(data: bytes, names: Sequence[str]) -> Read:
    """A .npy, or a PNG, JPEG or TIFF of three or four channels -> uint16 [H, W, C] with C = len(names), and
    `data` as .npy. Raises ValueError: it does not decode, or has another number of channels."""
    try:
        if not data.startswith(b"\x93NUMPY"):
            np.save(file := io.BytesIO(), _as_stored(data))
            data = file.getvalue()
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # whatever a damaged file makes the libraries raise
        neither = "neither a .npy of numbers nor an upright, interleaved PNG, JPEG or TIFF in RGB or RGBA"
        raise ValueError(f"{neither}; save it as .npy, (H, W, C)") from error
    return Read(in_channels(array, names), data)


def in_channels(array: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """uint8 or uint16 [H, W, C] -> uint16 with C = len(names). Raises ValueError: anything else, or too many pixels."""
    if array.dtype not in (np.uint8, np.uint16) or array.shape[2:] != (len(names),) or not array.size:
        wanted = f"uint8 or uint16 [height, width, {len(names)}], the channels {', '.join(names)}"
        raise ValueError(f"{array.dtype} {list(array.shape)}; classes.yaml names {wanted}")
    if array[..., 0].size > MAX_PIXELS:
        raise ValueError(f"{array.shape[1]}x{array.shape[0]} pixels; more than {MAX_PIXELS} are not read")
    return array.astype(np.uint16, copy=False)


def _as_stored(data: bytes) -> np.ndarray:
    """The 3 or 4 channels of a PNG, JPEG or TIFF, colours first: uint8 or uint16 [H, W, C]. Raises any Exception."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as picture:
        tags = getattr(picture, "tag_v2", {})  # of TIFF
        count = tags[TIFF_CHANNELS] if tags else read_header(data).channels
        upright, pixels = picture.getexif().get(EXIF_ORIENTATION, 1) == 1, picture.width * picture.height
        deep = np.max(tags.get(TIFF_BITS, 8)) > 8
        mixed = deep and tags.get(TIFF_PLANES) == 2  # OpenCV mixes up channels of 16 bits that are stored apart
        in_rgb = picture.mode in ("RGB", "RGBA") and count in (3, 4)
        if not upright or mixed or not in_rgb or pixels > PILLOW_PIXELS:
            raise ValueError(f"{picture.mode}, {count} channels, {pixels} pixels")
        if tags.get(TIFF_EXTRA) == (2,) and not deep:  # OpenCV multiplies the others by an alpha of 8 bits
            return np.asarray(picture)
    array = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    return array[..., [2, 1, 0, 3][:count]]


def read_label(data: bytes) -> Read:
    """A file of any origin -> uint8 label ids [H, W]. Raises ValueError: it does not decode, or holds anything other
    than one channel of ids from 0 to 255."""
    header = read_header(data)
    if not data.startswith(PNG):
        raise ValueError("a JPEG; labels must be PNG, which loses nothing")
    if header.alpha and not header.palette:
        raise ValueError("an alpha channel; expected a label with one channel of ids")
    if header.channels > 1:
        raise ValueError(f"{header.channels} channels; expected a label with one channel of ids")
    several = SEVERAL_IMAGES if header.several else ""
    if header.depth == 8 and not header.palette:
        return Read(decode_label(data), data, several)
    if header.palette:
        note, values = PALETTE_LABEL, _by_pillow(data, "P")
    elif header.depth == 16:
        note, values = DEEP_LABEL, _decode(data, cv2.IMREAD_UNCHANGED)
        if values.max() > 255:
            raise ValueError(f"label value {values.max()}; ids end at 255")
    else:  # OpenCV would rescale the values to 0 to 255
        note, values = SHALLOW_LABEL, _decode(data, cv2.IMREAD_UNCHANGED) // (255 // (2**header.depth - 1))
    label = values.astype(np.uint8)
    return Read(label, encoded(label), "; ".join(filter(None, (note, several))))


def _by_pillow(data: bytes, mode: str) -> np.ndarray:
    """The pixels of a PNG in Pillow's `mode`, uint8 [H, W] or [H, W, C]; "P": the indices of a palette PNG."""
    try:
        Image.open(io.BytesIO(data)).verify()  # the checksums of all chunks; after that nothing else can be read
        return np.array(Image.open(io.BytesIO(data)).convert(mode))
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise ValueError("does not decode as an image") from error


def decode_image(data: bytes) -> np.ndarray:
    """JPEG or PNG bytes that `read_image` has accepted -> uint8 RGB [H, W, 3]. Raises ValueError: no image."""
    return _decode(data, cv2.IMREAD_COLOR_RGB)


def decode_label(data: bytes, bits: int = 8) -> np.ndarray:
    """PNG bytes, as `read_label` returns them, -> uint8 label ids [H, W]; with 16 `bits` uint16. Raises ValueError:
    they do not decode, or hold other than one channel of so many bits."""
    label = _decode(data, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != f"uint{bits}":
        channels = 1 if label.ndim == 2 else label.shape[2]
        raise ValueError(f"expected one {bits}-bit channel, got {channels} of {label.dtype}")
    return label


def _decode(data: bytes, flags: int) -> np.ndarray:
    read_header(data)
    with suppress(cv2.error):  # unsupported sizes
        if (array := cv2.imdecode(np.frombuffer(data, np.uint8), flags)) is not None:
            return array
    raise ValueError("does not decode as an image")


# ---- written ----


def write_picture(path: Path, picture: np.ndarray, parameters: Sequence[int] = ()) -> None:
    """Writes an image, uint8 RGB [H, W, 3], or one channel, uint8 or uint16 [H, W], as .png or .jpg. parameters:
    for cv2.imencode. Raises OSError: the file system refuses."""
    files.write(path, encoded(picture, path.suffix, parameters))


def encoded(picture: np.ndarray, suffix: str = ".png", parameters: Sequence[int] = ()) -> bytes:
    """What `write_picture` writes."""
    in_order = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, in_order, parameters)[1].tobytes()
