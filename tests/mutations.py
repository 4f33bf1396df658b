"""Files that are damaged at random, one parser after another: python -m tests.mutations PARSER COUNT [SEED].

Each is answered in a sentence or read as something sound. What ends the process, takes more than 10 s or makes it
larger than 1 GB is a fault of the parser.
"""

import faulthandler
import io
import pickle
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from scipy import io as matlab

from ovenet_jax.data.encodings import read_ids
from ovenet_jax.data.folder import read_classes
from ovenet_jax.data.image_files import read_any_image, read_image, read_label
from ovenet_jax.data.labels import OFFICIAL, Labels
from ovenet_jax.data.lists import read_list
from ovenet_jax.errors import UserError
from ovenet_jax.segfix.files import read_offsets
from ovenet_jax.segfix.instances import read_list as read_instances
from ovenet_jax.weights import pth_file
from ovenet_jax.weights.torch_weights import read_file

SECONDS, MEGABYTES = 10, 1024
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
RNG = np.random.default_rng(0)
SIZE = (6, 8)
RGB = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
IDS = (np.arange(48).reshape(SIZE) % 16).astype(np.uint8)


class Parser(NamedTuple):
    """seeds: sound files. read: what is done with one; whether that is sound. refuses: how it may be refused."""

    seeds: list[bytes]
    read: Callable[[Path], bool]
    refuses: type[Exception] | tuple[type[Exception], ...] = ValueError


def encoded(suffix: str, array: np.ndarray, *flags: int) -> bytes:
    return cv2.imencode(suffix, array, flags)[1].tobytes()


def saved(kind: str, picture: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(kind, Image.fromarray(RGB), exif=exif)


def palette() -> Image.Image:
    picture = Image.fromarray(IDS).convert("P")
    picture.putpalette(RNG.integers(0, 256, 48).astype(np.uint8).tobytes())
    return picture


def checkpoint(zipped: bool) -> bytes:
    """A .pth file without PyTorch: two tensors over one storage."""
    storage = "(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI48\n" + ("tQ" if zipped else "NtQ")
    shape = "I0\n(I6\nI8\nt(I8\nI1\ntI00\nccollections\nOrderedDict\n)R"
    tensor = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{shape}tR"
    names = pickle.dumps({"best": np.float64(0.5), "epoch": 7}, 2)[:-1]
    content = names + f"Vstate_dict\n(Vbn1.weight\n{tensor}Vbn1.bias\n{tensor}ds.".encode()
    numbers = np.arange(48, dtype="<f4").tobytes()
    if zipped:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as made:
            for name, data in (("data.pkl", content), ("byteorder", b"little"), ("data/0", numbers)):
                made.writestr(f"archive/{name}", data)
        return file.getvalue()
    head = [pickle.dumps(x, 2) for x in (pth_file.MAGIC, 1001, {"little_endian": True})]
    return b"".join([*head, content, pickle.dumps(["0"], 2), (48).to_bytes(8, "little"), numbers])


def mat(fields: dict, compressed: bool = True) -> bytes:
    file = io.BytesIO()
    matlab.savemat(file, fields, do_compression=compressed)
    return file.getvalue()


def is_image(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def is_state(state: dict[str, np.ndarray]) -> bool:
    return all(value.copy().nbytes < 10**6 for value in state.values())


CLASSES = b"""classes:
  - {name: sky, color: [70, 130, 180], ids: [0]}
  - {name: road, color: [128, 64, 128], ids: [1, 2]}
ignored: [255]
"""
EXAMPLE = Image.fromarray(RGB)
CLEAR = Image.fromarray(np.dstack([RGB, IDS * 16]))
PNGS = [
    encoded(".png", RGB), encoded(".png", RGB.astype(np.uint16) * 257), encoded(".png", IDS), turned("png"),
    saved("png", CLEAR), saved("png", palette()), saved("png", palette(), transparency=3, bits=4),
]  # fmt: skip
JPEGS = [
    encoded(".jpg", RGB), encoded(".jpg", RGB, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), turned("jpeg"),
    encoded(".jpg", IDS), saved("jpeg", EXAMPLE.convert("CMYK")),
]  # fmt: skip
OTHERS = [
    saved("webp", EXAMPLE, lossless=True), saved("webp", CLEAR), saved("bmp", EXAMPLE), saved("bmp", palette()),
    saved("tiff", EXAMPLE), saved("tiff", EXAMPLE, compression="tiff_lzw"), turned("tiff"), saved("gif", palette()),
    saved("gif", palette(), save_all=True, append_images=[palette().rotate(90)]),
    saved("tiff", CLEAR, compression="tiff_deflate"), encoded(".tif", RGB.astype(np.uint16) * 257),
]  # fmt: skip
OFFSETS = [encoded(".png", np.hstack([IDS, IDS])), encoded(".png", np.hstack([IDS] * 3).astype(np.uint16))]
SHIFTS, STUFF = {"mat": np.ones((*SIZE, 2), np.int8)}, {"names": np.array(["sky"], object), "S": IDS.astype(float)}

PARSERS = {
    "png": Parser(PNGS, lambda file: is_image(read_image(file.read_bytes()).array)),
    "jpeg": Parser(JPEGS, lambda file: is_image(read_image(file.read_bytes()).array)),
    "label": Parser(PNGS, lambda file: read_label(file.read_bytes()).array.ndim == 2),
    "any": Parser([*PNGS, *JPEGS, *OTHERS], lambda file: is_image(read_any_image(file.read_bytes()).array)),
    "pth": Parser([checkpoint(True), checkpoint(False)], lambda file: is_state(read_file(file)), UserError),
    "yaml": Parser([CLASSES], lambda file: isinstance(read_classes(file)[0], Labels), UserError),
    "list": Parser([b"images/a.png labels/a.png\n", b"images/b.png\tlabels/b.png 3\r\n"], lambda file: bool(
        read_list(file, file.parent)
    )),
    "offsets": Parser(OFFSETS, lambda file: read_offsets(file, SIZE).offset.shape == (*SIZE, 2)),
    "mat": Parser([mat(SHIFTS)], lambda file: read_offsets(file, SIZE).offset.shape == (*SIZE, 2)),
    "mat_labels": Parser([mat(STUFF), mat(STUFF, compressed=False)], lambda file: (
        read_ids(file.read_bytes(), "stuff", OFFICIAL["coco_stuff"]).array.dtype == np.uint8
    )),
    "instances": Parser([b"masks/0.png 24 0.9\nmasks/1.png 26 0.5\n"], lambda file: all(
        file.parent / name for name in read_instances(file)
    )),
}  # fmt: skip


def mutated(data: bytes, seeds: list[bytes], rng: np.random.Generator) -> bytes:
    """With up to four places changed: bits, bytes, numbers, and pieces cut out, repeated or taken from another file."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at, length = (int(rng.integers(0, len(changed) + 1)), int(rng.integers(1, 1 + min(64, len(changed) or 1))))
        other = seeds[rng.integers(len(seeds))]
        start = int(rng.integers(0, len(other)))
        number = NUMBERS[rng.integers(len(NUMBERS))].to_bytes(4, ("big", "little")[rng.integers(2)])
        match rng.integers(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(changed):
                changed[at] = int(rng.integers(256))
            case 2:
                changed[at : at + 4] = number
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length] * int(rng.integers(1, 9))
            case 5:
                changed[at : at + length] = other[start : start + length]
            case 6 if rng.integers(4) == 0:
                del changed[at:]
    return bytes(changed)


def cases(parser: Parser, count: int, seed: int) -> Iterator[bytes]:
    rng = np.random.default_rng(seed)
    yield from parser.seeds
    for i in range(count):
        yield mutated(parser.seeds[i % len(parser.seeds)], parser.seeds, rng)


def main(name: str, count: int, seed: int = 0) -> None:
    """Prints how many were read, and how many refused."""
    cv2.setNumThreads(1)
    parser, outcomes = PARSERS[name], {True: 0, False: 0}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ("val.mat" if name == "mat" else "val.lst")
        for number, data in enumerate(cases(parser, count, seed)):
            file.write_bytes(data)
            if number % 16 == 0:
                faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                sound = parser.read(file)
                assert sound, f"case {number} of seed {seed} is read as something else"
                outcomes[True] += 1
            except parser.refuses as error:
                assert len(str(error)) < 2000, f"case {number} of seed {seed} is refused in {len(str(error))} letters"
                outcomes[False] += 1
    status = Path("/proc/self/status").read_text()  # the module `resource` counts what the parent process had, too
    megabytes = int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024
    assert megabytes < MEGABYTES, f"{megabytes:.0f} MB"
    print(f"{name}: {outcomes[True]} read, {outcomes[False]} refused, {megabytes:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
