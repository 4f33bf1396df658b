"""Reads one array of numbers from an untrusted MATLAB 5 file.

SciPy's reader is compiled code that trusts the file: a single wrong byte can end the process (SciPy 1.17). This one
only raises, and unpacks no more than one array of the expected size at a time.

Source: "MAT-File Format", The MathWorks.
"""

import math
import struct
import zlib

import numpy as np

LITTLE_ENDIAN = b"\x00\x01IM"  # version and byte order, at the end of the file's header of 128 bytes
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15  # types of elements
TYPES = {
    INT8: "i1", 2: "u1", 3: "<i2", 4: "<u2", INT32: "<i4", UINT32: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"
}  # fmt: skip
NUMERIC = range(6, 16)  # classes of arrays: double, single, and integers of 8 to 64 bits
COMPLEX_OR_LOGICAL = 0x0A00  # flags of arrays
HEAD = 1024  # upper bound of the bytes before an array's numbers: their kind, size and name
MAX_COUNT = 2**24  # largest number of elements if the shape is not known beforehand


def read_array(data: bytes, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The array `name` in a file's bytes, with its own dtype. shape: the expected one; None: any matrix. Raises
    ValueError: the file has no such array of real numbers, or is damaged."""
    if data[124:128] != LITTLE_ENDIAN:
        raise ValueError("no MATLAB file of version 5 (.mat of versions 5 to 7, not 7.3)")
    names = []
    try:
        at = 128
        while at < len(data):
            kind, start, end = _tag(data, at)
            if end > len(data):
                raise IndexError("it ends too early")
            found, array = _matrix(kind, data[start:end], name, shape)
            if array is not None:
                return array
            names.append(found)
            at = end
    except (struct.error, zlib.error, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"a damaged MATLAB file ({error})") from error
    raise ValueError(f"no field {name!r}; it has {', '.join(names) or 'none'}")


def _tag(data: bytes, at: int) -> tuple[int, int, int]:
    """Type of the element at `at`, a multiple of 8 bytes, start and end of its content."""
    kind, size = struct.unpack_from("<II", data, at)
    start = at + 8
    if kind >> 16:  # the short form: up to four bytes, behind type and size in two bytes each
        kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
    return kind, start, start + size


def _matrix(kind: int, content: bytes, name: str, shape: tuple[int, ...] | None) -> tuple[str, np.ndarray | None]:
    """The name of the array in an element of the file and, if it is `name`, the array, of the expected shape."""
    inflater = zlib.decompressobj() if kind == COMPRESSED else None
    if inflater:
        content = inflater.decompress(content, HEAD + 8 * (math.prod(shape) if shape else MAX_COUNT))
        kind, content = struct.unpack_from("<I", content)[0], content[8:]
    if kind != MATRIX:
        raise IndexError(f"an element of type {kind}")
    _, start, end = _tag(content, 0)
    (flags,) = struct.unpack_from("<I", content, start)
    _, start, end = _tag(content, end + -end % 8)
    its_shape = struct.unpack_from(f"<{(end - start) // 4}i", content, start)
    _, start, end = _tag(content, end + -end % 8)
    found = content[start:end].decode("ascii")
    if found != name:
        return found, None
    if flags & 0xFF not in NUMERIC or flags & COMPLEX_OR_LOGICAL:
        raise ValueError(f"its field {name!r} holds no real numbers")
    is_matrix = len(its_shape) == 2 and min(its_shape) > 0 and math.prod(its_shape) <= MAX_COUNT
    if not (its_shape == shape if shape else is_matrix):
        expected = list(shape) if shape else f"rows and columns, and no more than {MAX_COUNT} numbers"
        raise ValueError(f"its field {name!r} has the size {list(its_shape)}; expected {expected}")
    kind, start, end = _tag(content, end + -end % 8)
    dtype, count = np.dtype(TYPES[kind]), math.prod(its_shape)
    if end - start != count * dtype.itemsize:
        raise IndexError(f"{end - start} bytes for {count} numbers of {dtype.itemsize}")
    if end > len(content) or (inflater and not inflater.eof):
        raise IndexError("its data have another length")
    return found, np.frombuffer(content, dtype, count, start).reshape(its_shape, order="F")
