"""Concatenates the arrays of a training state into a few vectors, so that a step handles fewer buffers."""

from collections import defaultdict
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ovenet_jax.devices import parallel
from ovenet_jax.run.state import TrainState

ARRAYS_PER_VECTOR = 128  # XLA concatenates more in two passes


class Packing:
    """Arrays by name <-> vectors by part of the network and kind: "backbone.scale.0", "backbone.scale.1", ...

    Like names of arrays, those of vectors begin with the part of the network.

    Kernels [k, k, in, out] of convolutions are stored with `out` first, as GPUs read them, so that they and their
    gradients need no transposition. On CPUs, where vectors only take longer to compile, each array is its own vector.
    """

    def __init__(self, state: TrainState, platform: str):
        self._kernel_axes, count = ((0, 1, 2, 3), 1) if platform == "cpu" else ((3, 0, 1, 2), ARRAYS_PER_VECTOR)
        self._shapes = {name: x.shape for name, x in (state.params | state.statistics).items()}
        kinds: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._shapes):
            kinds[f"{name.partition('.')[0]}.{name.rpartition('.')[2]}"].append(name)
        self._members = {
            f"{kind}.{first // count}": names[first : first + count]
            for kind, names in kinds.items()
            for first in range(0, len(names), count)
        }

    def pack(self, tree: Any) -> Any:
        """Packs every dict of arrays in a tree, of all or some parts of the network."""
        return jax.tree.map(self._packed, tree, is_leaf=lambda x: isinstance(x, dict))

    def unpack(self, tree: Any) -> Any:
        """The inverse of `pack`."""
        return jax.tree.map(self._unpacked, tree, is_leaf=lambda x: isinstance(x, dict))

    def by_name(self, mesh: Mesh, packed: Any) -> Any:
        """The inverse of `pack`, copied via the host: safe from donation, and without compilation."""
        return parallel.replicate(mesh, self.unpack(jax.tree.map(np.array, jax.device_get(packed))))

    def _packed(self, arrays: Any) -> Any:
        if not isinstance(arrays, dict):
            return arrays
        vectors = {}
        for vector, names in self._members.items():
            if names[0] in arrays:
                flat = [x.transpose(self._order(x.ndim)).reshape(-1) for x in map(arrays.__getitem__, names)]
                vectors[vector] = flat[0].__array_namespace__().concat(flat)  # numpy's or JAX's
        return vectors

    def _unpacked(self, vectors: Any) -> Any:
        if not isinstance(vectors, dict):
            return vectors
        arrays = {}
        for vector, x in vectors.items():
            first = 0
            for name in self._members[vector]:
                shape, order = self._shapes[name], self._order(len(self._shapes[name]))
                flat = x[first : first + np.prod(shape, dtype=int)]
                first += flat.size
                arrays[name] = flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
        return arrays

    def _order(self, ndim: int) -> tuple[int, ...]:
        """The order of an array's axes in its vector."""
        return self._kernel_axes if ndim == 4 else tuple(range(ndim))
