"""Reads the arrays in a `.pth` file, which anyone may have made, without PyTorch and without running code from it.

PyTorch's loader for weights (weights_only) accepts files that crash the process or take any amount of memory. Here only
the globals in KNOWN are resolved, to our own functions; every other one becomes a placeholder, `Foreign`. No array is
larger than the file.

Source: PyTorch's serialization, both the zip files (since 1.6) and the consecutive pickles of earlier versions.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of files before 1.6
MOST_READS = 2**21  # of the unpickler; the pickle of the largest published file takes at most a quarter of them
MOST_CLASSES = 1000  # classes and functions that a file may name
TYPES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": ml_dtypes.bfloat16, "Long": "<i8", "Int": "<i4",
    "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip


class _Storage(NamedTuple):
    """A storage in the file, by its key, with its number of values; tensors are views of it."""

    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Foreign:
    """Placeholder for any other object in a file, such as what a training checkpoint holds beside its arrays. Each
    class in a file gets its own subclass with its `name`; the object's content is dropped."""

    name = ""

    def __init__(self, *_: Any):
        pass

    def __call__(self, *_: Any) -> "Foreign":
        return self

    def __setitem__(self, *_: Any) -> None:
        pass

    append = extend = __call__


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("tensor without storage")
    sides, steps = tuple(shape), tuple(strides)
    numbers = (start, *sides, *steps)
    if len(sides) != len(steps) or len(sides) > 8 or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("invalid tensor shape")
    return _Tensor(storage, start, sides, steps)


KNOWN: dict[str, Any] = {
    "collections.OrderedDict": lambda: OrderedDict(),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    **{f"torch.{name}Storage": np.dtype(kind) for name, kind in TYPES.items()},
}


def _with_plain_keys(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    """Rejects keys other than str and int: nested tuples could take exponential time to hash. keys: on the stack."""

    def checked(unpickler: Any) -> None:
        if not all(type(key) in (str, int) for key in unpickler.stack[keys]):
            raise ValueError("keys of another kind")
        load(unpickler)

    return checked


class _Stream(io.BytesIO):
    """Ends after MOST_READS, so that a short file cannot make any number of objects."""

    left = MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ValueError("too many objects")
        return super().read(size)


class _Unpickler(pickle._Unpickler):
    """The unpickler in Python: that in C reserves memory by sizes that a file names. Frames are no more than hints. The
    state of objects (BUILD) is left out, since that of a NumPy type could end the process."""

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: pickle._Unpickler.dispatch[pickle.POP[0]]}
    dispatch[pickle.FRAME[0]] = methodcaller("read", 8)
    for code in (pickle.BYTEARRAY8, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):
        del dispatch[code[0]]
    for code, keys in (
        (pickle.SETITEM, slice(-2, -1)),
        (pickle.SETITEMS, slice(0, None, 2)),
        (pickle.DICT, slice(0, None, 2)),
    ):
        dispatch[code[0]] = _with_plain_keys(dispatch[code[0]], keys)

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.types: dict[str, np.dtype] = {}  # of storages
        self.classes = dict(KNOWN)

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self.classes:
            if len(self.classes) > MOST_CLASSES:
                raise ValueError("too many classes")
            self.classes[full] = type("Foreign", (Foreign,), {"name": full})
        return self.classes[full]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or (type(key), type(count)) != (str, int) or any(view):
            raise ValueError("a storage of another kind")
        self.types[key] = dtype
        return _Storage(key, dtype, count)


def read(path: Path) -> Any:
    """The content of the file, with numpy arrays for its tensors (bfloat16: of ml_dtypes) down to the second level of
    its dicts, and `Foreign` for other objects. A damaged file may raise any Exception."""
    data = path.read_bytes()
    content, bytes_of = _read_zip(data) if data.startswith(b"PK") else _read_pickles(data)
    left = 4 * len(data)  # total bytes of arrays, which may share a storage

    def resolved(value: Any, depth: int) -> Any:
        nonlocal left
        if isinstance(value, _Tensor):
            value = _array(value, bytes_of)
            left -= value.nbytes
            if left < 0:
                raise ValueError("more numbers than the file holds")
        if isinstance(value, dict) and depth:
            return {key: resolved(one, depth - 1) for key, one in dict.items(value)}
        return value

    return resolved(content, depth=2)


def _read_zip(data: bytes) -> tuple[Any, Callable[[str], bytes]]:
    file = zipfile.ZipFile(io.BytesIO(data))
    names = {info.filename.partition("/")[2]: info for info in file.infolist()}
    stored = all(info.compress_type == zipfile.ZIP_STORED for info in names.values())
    if not stored or sum(info.file_size for info in names.values()) > len(data):
        raise ValueError("compressed")
    if "byteorder" in names and file.read(names["byteorder"]) != b"little":
        raise ValueError("the other byte order")
    content = _Unpickler(_Stream(file.read(names["data.pkl"]))).load()
    return content, cache(lambda key: file.read(names[f"data/{key}"]))


def _read_pickles(data: bytes) -> tuple[Any, Callable[[str], bytes]]:
    stream = _Stream(data)
    if _Unpickler(stream).load() != MAGIC:
        raise ValueError("no PyTorch file")
    _version, _system = (_Unpickler(stream).load() for _ in range(2))
    unpickler = _Unpickler(stream)
    content, keys = unpickler.load(), _Unpickler(stream).load()
    at = stream.tell()
    storages: dict[str, bytes] = {}
    for key in keys:
        if type(key) is not str:
            raise ValueError("a storage of another kind")
        (count,) = struct.unpack_from("<Q", data, at)
        end = at + 8 + count * unpickler.types[key].itemsize
        storages[key] = data[at + 8 : end]
        at = end
    return content, storages.__getitem__


def _array(tensor: _Tensor, bytes_of: Callable[[str], bytes]) -> np.ndarray:
    storage, count = tensor.storage, math.prod(tensor.shape)
    if not count:
        return np.zeros(tensor.shape, storage.dtype)
    end = tensor.start + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)) + 1
    if count > storage.length or end > storage.length:
        raise ValueError("tensor exceeds its storage")
    numbers = np.frombuffer(bytes_of(storage.key), storage.dtype, storage.length)
    strides = [step * storage.dtype.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.start :], tensor.shape, strides, writeable=False)
