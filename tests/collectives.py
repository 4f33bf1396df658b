"""What devices send one another in a compiled program, read from its HLO text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_KINDS = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
_CALL = re.compile(rf"= (?P<results>.+?) (?P<kind>{_KINDS})(?:-start)?\((?P<rest>.*)")
_SHAPE = re.compile(r"\b(?P<type>[a-z]+\d*)\[(?P<dims>[\d,]*)\]")


class Collective(NamedTuple):
    """One collective operation: the shapes of its results, and the groups of devices that take part together."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]


def collectives(hlo: str) -> Iterator[Collective]:
    """All of them in the text of a compiled program.

    Raises:
      ValueError: groups written in a form that is not known here.
    """
    for line in hlo.splitlines():
        if call := _CALL.search(line):
            shapes = tuple(_numbers(shape["dims"]) for shape in _SHAPE.finditer(call["results"]))
            yield Collective(call["kind"], shapes, _groups(call["rest"]))


def _groups(text: str) -> tuple[tuple[int, ...], ...]:
    """{{0,1},{2,3}}, or [2,2]<=[4] with T(1,0), or mesh['a'=2,'b'=2] with device_ids=(...) and {'a'}."""
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", text):
        return tuple(_numbers(group) for group in re.findall(r"\{([\d,]*)\}", found[1]))
    if found := re.search(r"replica_groups=(\[[\d,]*\]<=\[[\d,]*\](?:T\([\d,]*\))?)", text):
        return tuple(map(tuple, _iota(found[1]).tolist()))
    pattern = r"replica_groups=mesh\[(?P<mesh>[^\]]*)\](?:, device_ids=\((?P<ids>[^ ]*)\))? \{(?P<axes>[^}]*)\}"
    if found := re.search(pattern, text):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found["mesh"])}
        ids = _iota(found["ids"]) if found["ids"] else np.arange(math.prod(sizes.values()))
        ids = ids.reshape(tuple(sizes.values()))
        axes = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", found["axes"])]
        ids = np.moveaxis(ids, axes, range(-len(axes), 0))
        return tuple(map(tuple, ids.reshape(-1, math.prod(ids.shape[-len(axes) :])).tolist()))
    raise ValueError(f"groups of devices in an unknown form: {text[:200]}")


def _iota(text: str) -> np.ndarray:
    """[2,4]<=[4,2]T(1,0): the numbers from 0 in shape [4, 2], its axes in that order, then in shape [2, 4]."""
    shape, source, order = re.match(r"\[([\d,]*)\](?:<=\[([\d,]*)\])?(?:T\(([\d,]*)\))?", text).groups()
    ids = np.arange(math.prod(_numbers(shape))).reshape(_numbers(source or shape))
    return ids.transpose(_numbers(order) if order else None).reshape(_numbers(shape))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
