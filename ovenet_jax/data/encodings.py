"""How label files hold the label ids of a class table: as they are, as other numbers, as colours or in MATLAB files.

Data are prepared with label ids, whatever their files hold.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ovenet_jax.data.image_files import JPEG, LossyError, Read, encoded, read_image, read_label
from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.data.mat_file import read_array

LABEL_IDS, TRAIN_IDS = "label_ids", "train_ids"  # keys of ENCODINGS; the first is the usual one
CONTEXT_459 = json.loads((Path(__file__).parent / "context_459.json").read_bytes())  # numbers of the 59 classes


class Encoding(NamedTuple):
    """name: for messages. ids: class table -> {value in a file: label id}. read: a file's bytes -> its values, integers
    from 0 [H, W]; `Read.data` is a label PNG of these values, or b"". Raises ValueError: it cannot be read."""

    name: str
    ids: Callable[[Labels], Mapping[int, int]]
    read: Callable[[bytes], Read] = read_label


def read_ids(data: bytes, encoding: str, labels: Labels) -> Read:
    """The label ids, uint8 [H, W], of a label file's bytes in one of ENCODINGS. Raises ValueError: it cannot be read,
    or has values that stand for no label id."""
    read = ENCODINGS[encoding].read(data)
    ids = _table(encoding, labels).take(read.array, mode="clip")
    if ids.min(initial=0) < 0:
        raise ValueError(_unknown(read.array, ids < 0, encoding, labels))
    ids = ids.astype(np.uint8)
    if read.data and np.array_equal(ids, read.array):
        return read
    note = "; ".join(filter(None, (read.note, f"labels of {ENCODINGS[encoding].name}")))
    return Read(ids, encoded(ids), note, read.orientation)


@lru_cache(maxsize=8)  # of which the table of colours has up to 32 MB
def _table(encoding: str, labels: Labels) -> np.ndarray:
    """Lookup table, int16: value -> label id; -1 for values that stand for none, in the last place for all above."""
    ids = ENCODINGS[encoding].ids(labels)
    table = np.full(max(ids) + 2, -1, np.int16)
    table[list(ids)] = list(ids.values())
    return table


def _unknown(array: np.ndarray, where: np.ndarray, encoding: str, labels: Labels) -> str:
    """A sentence about the values that stand for no label id, and about encodings that would explain the whole file."""
    values, counts = np.unique(array[where], return_counts=True)
    if encoding == "colors":
        color = list(int(values[counts.argmax()]).to_bytes(3))
        return f"pixels of colours that are not in the class table: {counts.sum()}, most of them {color}"
    named = ", ".join(map(str, values[:20])) + (" ..." if len(values) > 20 else "")
    read_as = "" if encoding == LABEL_IDS else f", read as {ENCODINGS[encoding].name!r}"
    tables = {ENCODINGS[x].name: _table(x, labels) for x in (LABEL_IDS, TRAIN_IDS, "ids_from_0")}
    likely = [repr(name) for name, table in tables.items() if table.take(array, mode="clip").min() >= 0]
    hint = f"; the file looks like {' or '.join(likely)}" if likely else ""
    return f"label values that are not in the class table{read_as}: {named}{hint}"


def _read_colors(data: bytes) -> Read:
    """The colours of a PNG as red * 2**16 + green * 2**8 + blue, int32 [H, W]."""
    if data.startswith(JPEG):
        raise ValueError("a JPEG; labels must be PNG, which loses nothing")
    try:
        image = read_image(data)
    except LossyError as error:
        raise ValueError("16 bits or transparent pixels; save labels in colours as opaque 8-bit PNGs") from error
    return image._replace(array=image.array @ np.array((2**16, 2**8, 1), np.int32), data=b"")


def _read_mat(data: bytes, field: str) -> Read:
    """The whole numbers of a field of a MATLAB file, uint16 [H, W]."""
    array = read_array(data, field)
    with np.errstate(invalid="ignore"):  # numbers that are not finite
        values = np.ascontiguousarray(array, np.uint16)
    if not np.array_equal(values, array):
        raise ValueError(f"its field {field!r} holds other than whole numbers from 0 to 65535")
    return Read(values, b"")


def _of_colors(labels: Labels) -> dict[int, int]:
    of_color = dict.fromkeys(labels.ignored_colors or (), labels.void_id)
    of_color |= {color: ids[0] for color, ids in zip(labels.colors, labels.ids, strict=True)}
    return {int.from_bytes(bytes(color)): label_id for color, label_id in of_color.items()}


def _of_459(labels: Labels) -> dict[int, int]:
    """The 59 classes of PASCAL-Context by their names; the others are 0."""
    ids = dict(zip(labels.names, labels.ids, strict=True))
    return dict.fromkeys(range(460), 0) | {number: ids[name][0] for name, number in CONTEXT_459.items()}


ENCODINGS = {
    LABEL_IDS: Encoding("label ids", lambda x: {i: i for i in x.known_ids()}),
    TRAIN_IDS: Encoding("train ids", lambda x: {IGNORE: x.void_id} | {k: ids[0] for k, ids in enumerate(x.ids)}),
    "ids_from_0": Encoding(
        "ids minus 1 (255: none)", lambda x: {IGNORE: x.void_id} | {i - 1: i for i in sum(x.ids, ()) if i}
    ),
    "colors": Encoding("colours", _of_colors, _read_colors),
    "stuff": Encoding("ids in MATLAB files", lambda x: {i: i for i in x.known_ids()}, partial(_read_mat, field="S")),
    "context_459": Encoding("459 classes in MATLAB files", _of_459, partial(_read_mat, field="LabelMap")),
}
