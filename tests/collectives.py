"""What devices send one another in a compiled program, read from its HLO text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks import hlo


class Collective(NamedTuple):
    """One collective operation: the shapes of its results, and the groups of devices that take part together."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]


def collectives(program: str) -> Iterator[Collective]:
    """All of them in the text of a compiled program.

    Raises:
      ValueError: groups written in a form that is not known here.
    """
    computations, _ = hlo.read_computations(program)
    for instruction in (one for computation in computations.values() for one in computation.values()):
        kind = instruction.opcode.removesuffix("-start")
        if kind in hlo.COLLECTIVES:
            yield Collective(kind, tuple(shape.sizes for shape in instruction.shapes), _groups(instruction.rest))


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
