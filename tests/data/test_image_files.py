"""Odd image files: read where nothing is lost, refused in a sentence where something would be; for prediction nearly
all are read, with a note on what is lost."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ovenet_jax.data import image_files
from ovenet_jax.data.image_files import (
    PNG,
    decode_image,
    decode_label,
    image_size,
    oriented_like,
    read_any_image,
    read_header,
    read_image,
    read_label,
    write_picture,
)
from tests import trees

SIZE = (6, 8)
IDS = trees.ids(SIZE, range(16))
RGB = trees.image(SIZE)


def png(depth, color, rows, *between, size=SIZE):
    """A PNG of this bit depth and colour type from the bytes of its rows, with chunks (kind, content) in between."""
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    header = struct.pack(">II5B", size[1], size[0], depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *between, (b"IDAT", pixels), (b"IEND", b"")]
    return PNG + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def jpeg(array, *flags):
    return cv2.imencode(".jpg", array, flags)[1].tobytes()


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def oriented(picture, kind, orientation):
    """The file of a picture whose EXIF says that it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(picture, kind, exif=exif)


def cmyk():
    """A JPEG whose header says four channels; nothing else of it is looked at."""
    return jpeg(RGB).replace(b"\xff\xc0\x00\x11\x08\x00\x06\x00\x08\x03", b"\xff\xc0\x00\x11\x08\x00\x06\x00\x08\x04")


PALETTE_COLORS = np.random.default_rng(0).integers(0, 256, (16, 3), np.uint8)
PALETTE = (b"PLTE", PALETTE_COLORS.tobytes())
PACKED = IDS[:, ::2] << 4 | IDS[:, 1::2]  # two indices a byte
GREY_PNG = png(8, 0, IDS)
PALETTE_PNG = png(8, 3, IDS, PALETTE)
TRANSPARENT = (b"tRNS", bytes(3))  # the first three colours are transparent
OPAQUE = np.dstack([RGB, np.full(SIZE, 255, np.uint8)])
DEEP = (RGB.astype(np.uint16) << 8) + 7
HALF_TRANSPARENT = Image.fromarray(np.dstack([RGB, np.where(IDS > 7, 255, 0)]).astype(np.uint8))
ON_WHITE = np.where((IDS > 7)[..., None], RGB, 255)
PICTURE = Image.fromarray(RGB)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (GREY_PNG, ""),
        (PALETTE_PNG, image_files.PALETTE_LABEL),
        (png(4, 3, PACKED, PALETTE), image_files.PALETTE_LABEL),
        (png(8, 3, IDS, PALETTE, TRANSPARENT), image_files.PALETTE_LABEL),
        (PALETTE_PNG + b"\n", image_files.PALETTE_LABEL),
        (png(4, 0, PACKED), image_files.SHALLOW_LABEL),
        (png(16, 0, IDS.astype(">u2").view(np.uint8)), image_files.DEEP_LABEL),
    ],
    ids=["grey", "palette", "palette of 4 bits", "transparent palette", "newline behind", "4 bits", "16 bits"],
)
def test_labels_of_any_depth_keep_their_ids(data, note):
    read = read_label(data)
    np.testing.assert_array_equal(read.array, IDS)
    assert read.note == note
    assert (read.data == data) == (not note)
    np.testing.assert_array_equal(decode_label(read.data), IDS)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (png(16, 0, (20 * IDS.astype(int)).astype(">u2").view(np.uint8)), "label value 300; ids end at 255"),
        (png(8, 2, RGB.reshape(6, -1)), "3 channels; expected a label with one channel of ids"),
        (png(8, 6, OPAQUE.reshape(6, -1)), "an alpha channel; expected a label with one channel of ids"),
        (png(8, 4, np.dstack([IDS, IDS]).reshape(6, -1)), "an alpha channel; expected a label"),
        (png(8, 0, IDS, (b"tRNS", bytes(2))), "an alpha channel; expected a label"),
        (jpeg(IDS), "a JPEG; labels must be PNG, which loses nothing"),
        (b"", "does not decode as an image"),
        (GREY_PNG[:-20], "does not decode as an image"),
        (PALETTE_PNG[:-20], "does not decode as an image"),
    ],
    ids=["values", "colour", "alpha", "grey and alpha", "transparent id", "JPEG", "empty", "cut off",
         "palette cut off"],
)  # fmt: skip
def test_labels_that_would_lose_something_are_refused(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_label(data)


@pytest.mark.parametrize(
    ("data", "pixels", "note"),
    [
        (png(8, 2, RGB.reshape(6, -1)), RGB, ""),
        (GREY_PNG, np.dstack([IDS] * 3), image_files.GREY_IMAGE),
        (png(4, 0, PACKED), np.dstack([IDS * 17] * 3), image_files.GREY_IMAGE),
        (PALETTE_PNG, PALETTE_COLORS[IDS], image_files.PALETTE_IMAGE),
        (png(8, 6, OPAQUE.reshape(6, -1)), RGB, image_files.OPAQUE_IMAGE),
    ],
    ids=["colour", "grey", "grey of 4 bits", "palette", "opaque alpha"],
)
def test_images_are_read_as_rgb_where_that_is_exact(data, pixels, note):
    read = read_image(data)
    np.testing.assert_array_equal(read.array, pixels)
    np.testing.assert_array_equal(decode_image(data), pixels)
    assert (read.data, read.note) == (data, note)


def test_a_grey_image_whose_transparent_value_never_occurs_is_read():
    assert 251 not in IDS
    read = read_image(png(8, 0, IDS, (b"tRNS", bytes([0, 251]))))
    np.testing.assert_array_equal(read.array, np.stack([IDS] * 3, axis=-1))


@pytest.mark.parametrize("flags", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)], ids=["baseline", "progressive"])
def test_jpegs_are_read_and_those_cut_off_refused(flags):
    data = jpeg(np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8), *flags)
    np.testing.assert_array_equal(read_image(data).array, Image.open(io.BytesIO(data)))
    assert read_image(jpeg(IDS)).note == image_files.GREY_IMAGE
    for end in (-1, len(data) // 2, 40, 3):
        with pytest.raises(ValueError, match="does not decode as an image"):
            read_image(data[:end])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (png(16, 2, np.repeat(RGB, 2, -1).reshape(6, -1)), "16 bits per channel; save it with 8"),
        (png(16, 0, IDS.astype(">u2").view(np.uint8)), "16 bits per channel; save it with 8"),
        (png(8, 3, IDS, PALETTE, TRANSPARENT), "transparent pixels; save it without an alpha channel"),
        (png(8, 6, np.dstack([RGB, IDS]).reshape(6, -1)), "transparent pixels"),
        (png(8, 0, IDS, (b"tRNS", bytes([0, int(IDS[0, 0])]))), "transparent pixels"),
        (cmyk(), "CMYK, which has no exact RGB; save it as RGB"),
        (png(8, 2, RGB.reshape(6, -1), size=(30_000, 40_000)), "40000x30000 pixels; more than .* are not read"),
        (png(8, 2, RGB.reshape(6, -1), size=(2**30, 0)), "does not decode as an image"),
        (png(8, 2, RGB.reshape(6, -1), size=(1, 2**22)), "does not decode as an image"),
        (PNG + b"\x7f\xff\xff\xf0" + GREY_PNG[len(PNG) + 4 :], "does not decode as an image"),
        (GREY_PNG.replace(GREY_PNG[33:41], b"\x7f\xff\xff\xf0IDAT"), "does not decode as an image"),
        (b"GIF89a" + bytes(40), "does not decode as an image"),
        (b"\xff\xd8\xff", "does not decode as an image"),
        (PNG, "does not decode as an image"),
        (b"", "does not decode as an image"),
    ],
    ids=["16 bits", "16 bits grey", "palette alpha", "alpha", "grey alpha", "CMYK", "bomb", "no rows", "too wide",
         "endless header", "endless pixels", "GIF", "JPEG head", "PNG head", "empty"],
)  # fmt: skip
def test_images_that_would_lose_something_are_refused(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_image(data)


def test_what_stands_behind_the_end_of_a_png_without_pixels_is_not_looked_for():
    """OpenCV would go on to read chunks, and allocate what their lengths say."""
    behind = struct.pack(">I4s", 2**30, b"IDAT")
    with pytest.raises(ValueError, match="does not decode as an image"):
        read_header(GREY_PNG.replace(b"IDAT", b"IDOT") + behind)


FAR = jpeg(RGB)
FAR = FAR[:2] + 3 * (b"\xff\xe1\xff\xff" + bytes(2**16 - 3)) + FAR[2:]  # three full segments before the header


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (GREY_PNG, SIZE),
        (jpeg(RGB), SIZE),
        (FAR, SIZE),
        (b"no", (0, 0)),
        (png(8, 0, IDS, size=(10_000, 10_001)), (0, 0)),
        (png(8, 0, IDS, size=(10_000, 10_000)), (10_000, 10_000)),
    ],
    ids=["PNG", "JPEG", "far header", "no image", "too large", "largest"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_only_the_header_is_read_for_the_size_of_an_image(tmp_path, data, size):
    (tmp_path / "image").write_bytes(data)
    assert image_size(tmp_path / "image") == size


def test_an_image_that_is_not_there_has_no_size(tmp_path):
    assert image_size(tmp_path / "nowhere") == (0, 0)


def test_a_large_jpeg_of_many_scans_is_refused():
    data = jpeg(RGB).replace(struct.pack(">HH", *SIZE), struct.pack(">HH", 9000, 10_000), 1)
    assert read_header(data + 10 * image_files.JPEG_SCAN).size == (9000, 10_000)
    with pytest.raises(ValueError, match="12 scans of 10000x9000 pixels; so many would take minutes"):
        read_header(data + 11 * image_files.JPEG_SCAN)


@pytest.mark.parametrize("read", [image_files.read_image, image_files.read_label])
def test_a_palette_png_with_a_damaged_byte_is_refused(read):
    start = PALETTE_PNG.index(b"IDAT") + 10
    damaged = PALETTE_PNG[:start] + bytes([PALETTE_PNG[start] ^ 0x10]) + PALETTE_PNG[start + 1 :]
    with pytest.raises(ValueError, match="does not decode as an image"):
        read(damaged)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_its_exif_turns_is_noted_and_its_label_is_oriented_like(kind, orientation):
    data = oriented(PICTURE, kind, orientation)
    image = read_image(data)
    np.testing.assert_array_equal(image.array, ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert image.note == (image_files.TURNED_IMAGE if orientation > 1 else "")
    label = oriented_like(read_label(GREY_PNG), image)
    marked = Image.fromarray(IDS)
    marked.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(label.array, ImageOps.exif_transpose(marked))
    np.testing.assert_array_equal(decode_label(label.data), label.array)
    assert label.note == (image_files.TURNED_LABEL if orientation > 1 else "")


@pytest.mark.parametrize("orientation", range(5, 9))
def test_a_label_of_the_size_of_a_turned_image_is_upright_already(orientation):
    image = read_image(oriented(PICTURE, "png", orientation))
    upright = read_label(cv2.imencode(".png", IDS.T)[1].tobytes())
    assert oriented_like(upright, image) is upright


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_orientation_that_libraries_read_differently_is_refused(kind):
    entry = struct.pack(">HHHIII", 1, 0x0112, 4, 1, 6, 0)  # as a number of 32 bits; the standard has 16
    with pytest.raises(ValueError, match="ambiguous EXIF orientation; save the image upright"):
        read_image(saved(PICTURE, kind, exif=b"Exif\0\0MM\0*" + struct.pack(">I", 8) + entry))


# ---- to predict ----


@pytest.mark.parametrize(
    ("data", "pixels", "note"),
    [
        (saved(PICTURE, "bmp"), RGB, ""),
        (saved(PICTURE, "tiff"), RGB, ""),
        (saved(PICTURE, "tiff", compression="tiff_lzw"), RGB, ""),
        (saved(PICTURE, "webp", lossless=True), RGB, ""),
        (saved(PICTURE.quantize(48), "gif"), np.array(PICTURE.quantize(48).convert("RGB")), ""),
        (saved(PICTURE, "png"), RGB, ""),
        (cv2.imencode(".png", DEEP[..., ::-1])[1].tobytes(), RGB, image_files.DEEP_IMAGE),
        (cv2.imencode(".tif", DEEP[..., ::-1])[1].tobytes(), RGB, image_files.DEEP_IMAGE),
        (cv2.imencode(".png", DEEP[..., 0])[1].tobytes(), RGB[..., :1], image_files.DEEP_IMAGE),
        (cv2.imencode(".tif", DEEP[..., 0])[1].tobytes(), RGB[..., :1], image_files.DEEP_IMAGE),
        (saved(PICTURE.convert("CMYK"), "tiff"), RGB, image_files.CMYK_IMAGE),
        (saved(HALF_TRANSPARENT, "png"), ON_WHITE, image_files.TRANSPARENT_IMAGE),
        (saved(HALF_TRANSPARENT, "webp", lossless=True, exact=True), ON_WHITE, image_files.TRANSPARENT_IMAGE),
        (saved(HALF_TRANSPARENT, "tiff"), ON_WHITE, image_files.TRANSPARENT_IMAGE),
        (saved(PICTURE.convert("RGBA"), "tiff"), RGB, ""),
        (png(8, 3, IDS, PALETTE, TRANSPARENT), np.where((IDS > 2)[..., None], PALETTE_COLORS[IDS], 255),
         image_files.TRANSPARENT_IMAGE),
        (saved(PICTURE, "tiff", save_all=True, append_images=[PICTURE]), RGB, image_files.SEVERAL_IMAGES),
        (oriented(PICTURE, "tiff", 6), np.rot90(RGB, -1), image_files.TURNED_IMAGE),
        (oriented(HALF_TRANSPARENT, "png", 3), ON_WHITE[::-1, ::-1],
         f"{image_files.TURNED_IMAGE}; {image_files.TRANSPARENT_IMAGE}"),
    ],
    ids=["bmp", "tif", "lzw", "webp", "gif", "png", "16 bits png", "16 bits tif", "16 bits grey png",
         "16 bits grey tif", "cmyk", "transparent png", "transparent webp", "transparent tif", "opaque",
         "transparent palette", "pages", "turned tif", "turned and transparent"],
)  # fmt: skip
def test_what_people_have_is_read_to_predict_and_said_where_something_is_lost(data, pixels, note):
    read = read_any_image(data)
    np.testing.assert_array_equal(read.array, np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    assert read.note == note


def test_an_animated_png_is_noted_wherever_it_is_read():
    data = saved(PICTURE, "png", save_all=True, append_images=[PICTURE.rotate(180)])
    for read in (read_image(data), read_any_image(data)):
        np.testing.assert_array_equal(read.array, RGB)
        assert read.note == image_files.SEVERAL_IMAGES
    label = Image.fromarray(IDS)
    data = saved(label, "png", save_all=True, append_images=[label.rotate(180)])
    assert read_label(data).note == image_files.SEVERAL_IMAGES


def test_a_cmyk_jpeg_is_read_to_predict():
    data = saved(PICTURE.convert("CMYK"), "jpeg", quality=100)
    with pytest.raises(ValueError, match="CMYK"):
        read_image(data)
    read = read_any_image(data)
    assert read.note == image_files.CMYK_IMAGE
    assert np.abs(read.array.astype(int) - RGB).max() <= 2  # the rounding of the JPEG


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "does not decode as an image"),
        (b"GIF89a" + bytes(40), "does not decode as an image"),
        (saved(PICTURE, "tiff")[:60], "does not decode as an image"),
        (saved(PICTURE, "webp")[:40], "does not decode as an image"),
        (saved(Image.fromarray(RGB[..., 0].astype(np.float32)), "tiff"), "more than 16 bits per channel"),
        (saved(Image.new("1", (9000, 9000)), "tiff", compression="group4"), "9000x9000 pixels; more than"),
    ],
    ids=["empty", "gif", "tif cut off", "webp cut off", "float", "bomb"],
)
def test_what_cannot_be_read_to_predict_is_named(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_any_image(data)


# ---- written ----


def test_a_picture_is_written_whole_with_its_folders_and_nothing_else(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "picture.png"
    write_picture(path, picture)
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], picture)
    write_picture(path, 255 - picture)  # over the old one
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], 255 - picture)
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(OSError, match=r"picture\.png"):
        write_picture(tmp_path / "picture.png", np.zeros((2, 2, 3), np.uint8))
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_a_label_map_is_written_as_one_channel(tmp_path):
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    write_picture(tmp_path / "label.png", label)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "label.png"), cv2.IMREAD_UNCHANGED), label)


def test_a_jpeg_is_written_with_the_parameters_of_opencv(tmp_path):
    write_picture(tmp_path / "coarse.jpg", RGB, (cv2.IMWRITE_JPEG_QUALITY, 5))
    write_picture(tmp_path / "fine.jpg", RGB, (cv2.IMWRITE_JPEG_QUALITY, 100))
    difference = [np.abs(np.int16(RGB) - Image.open(tmp_path / f"{name}.jpg")).mean() for name in ("coarse", "fine")]
    assert difference[1] < 1 < difference[0]
