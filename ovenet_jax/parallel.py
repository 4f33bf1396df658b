"""The device mesh, how arrays lie on it, and what processes tell each other."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ovenet_jax.errors import UserError


def create_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """These devices (default: all of all processes) as ('data', 'rows').

    A batch is split over 'data'; 'rows', for one image's rows, has size 1.
    """
    devices = jax.devices() if devices is None else devices
    axis_types = (AxisType.Auto,) * 2
    return jax.make_mesh((len(devices), 1), ("data", "rows"), axis_types=axis_types, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device: parameters, statistics, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The first axis split over 'data': images and labels."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_global(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows of a batch -> global arrays split over the mesh."""
    sharding = batch_sharded(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def check_divisible(mesh: Mesh, batch_size: int, key: str) -> None:
    """Raises UserError where a batch cannot be split evenly over the devices."""
    devices = mesh.shape["data"]
    if batch_size % devices:
        raise UserError(
            f"{key}={batch_size} cannot be split over {devices} devices; choose a multiple of {devices}, "
            f"for example --{key}={-(-batch_size // devices) * devices}."
        )


def to_local(mesh: Mesh, tree: Any) -> Any:
    """Replicated arrays of all processes -> the same on `mesh`, which holds devices of this process only."""

    def local(x: jax.Array) -> jax.Array:
        copies = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, replicated(mesh), copies)

    return jax.tree.map(local, tree)


def gather(value: Any) -> list[Any]:
    """What each process holds (numbers, strings, lists, dicts with string keys), on all of them in their order."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size)).ravel()
    padded = multihost_utils.process_allgather(np.pad(data, (0, sizes.max() - data.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(padded, sizes, strict=True)]
