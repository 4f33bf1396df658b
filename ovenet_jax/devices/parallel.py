"""The device mesh, how arrays are sharded over it, and communication between processes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ovenet_jax.errors import UserError
from ovenet_jax.models.layers import keep_layout
from ovenet_jax.tables import number_of


def devices(platform: str | None = None) -> list[jax.Device]:
    """All devices of all processes, of this platform or of the one that JAX prefers. Raises UserError where JAX cannot
    use any, as with JAX_PLATFORMS=cuda without a GPU."""
    try:
        return jax.devices(platform)
    except (RuntimeError, AssertionError) as error:  # the latter, without a message, of "cuda" alone
        reason = " ".join(str(error).split()) or "no NVIDIA GPU is visible"
        raise UserError(f"JAX cannot use a platform ({reason}); set JAX_PLATFORMS to another, as cpu.") from error


def devices_in_words() -> str:
    """As "8 x NVIDIA H200". Raises UserError as `devices`."""
    return f"{len(devices())} x {devices()[0].device_kind}"


def create_mesh(devices: Sequence[jax.Device] | None = None, sizes: Sequence[int] = (0, 1)) -> Mesh:
    """These devices (default: all of all processes) as a mesh ('data', 'rows') of `sizes`, as config.mesh gives them.

    A batch is split over 'data' and the rows of each image over 'rows'; 'data' 0: all remaining devices. The rows of
    one image never span processes. Raises UserError if the devices cannot form this mesh.
    """
    devices = jax.devices() if devices is None else devices
    written = f"config.mesh={tuple(sizes)}"
    data, rows = sizes[0] or len(devices) // sizes[1], sizes[1]
    if data * rows != len(devices):
        wanted = "choose sizes with that product, for example --config.mesh='(0, 1)'"
        raise UserError(f"{written} is not a mesh of all {number_of(len(devices), 'device')}; {wanted}.")
    per_process = len(devices) // len({device.process_index for device in devices})
    if per_process % rows:
        fault = f"splits the rows of an image over {rows} devices, but a process has {per_process}"
        raise UserError(f"{written} {fault}, and images stay within a process; choose a divisor of {per_process}.")
    return jax.make_mesh((data, rows), ("data", "rows"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device: parameters, statistics, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The first axis split over 'data': whole images."""
    return NamedSharding(mesh, PartitionSpec("data"))


def rows_sharded(mesh: Mesh) -> NamedSharding:
    """The first axis split over 'data' and the second over 'rows': images, labels and maps in training."""
    return NamedSharding(mesh, PartitionSpec("data", "rows"))


def row_layout(mesh: Mesh) -> Callable[..., jax.Array]:
    """The value of a model's attribute `lay_out` (see layers.keep_layout) when its images are split over `mesh`.

    Maps are sharded over 'rows' if every device gets the same number of rows, at least two after the layer's stride,
    and needs rows of its neighbours only; otherwise they are replicated over 'rows'. XLA's partitioner (jax 0.10.2)
    silently computes wrong gradients for convolutions from or to maps with fewer than two rows per device.
    """
    if (rows := mesh.shape["rows"]) == 1:
        return keep_layout

    def lay_out(x: jax.Array, reach: int = 0, stride: int = 1) -> jax.Array:
        each, rest = divmod(x.shape[1], rows * stride)
        split = rest == 0 and each >= 2 and each * stride >= reach
        return jax.lax.with_sharding_constraint(x, rows_sharded(mesh) if split else batch_sharded(mesh))

    return lay_out


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Replicates arrays, which are equal in all processes, over the mesh."""
    make = partial(jax.make_array_from_callback, sharding=replicated(mesh))
    return jax.tree.map(lambda x: make(x.shape, data_callback=x.__getitem__), jax.tree.map(np.asarray, tree))


def replicated_shapes(mesh: Mesh, tree: Any) -> Any:
    """The shapes and shardings of `replicate`'s result, for compilation."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), tree)


def to_global(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's images and labels of a batch -> global arrays split over the mesh."""
    return {key: jax.make_array_from_process_local_data(rows_sharded(mesh), x) for key, x in batch.items()}


def check_divisible(mesh: Mesh, batch_size: int, height: int, accumulate: int = 1, group: int = 1) -> None:
    """Raises UserError where config.batch_size or config.augment.crop's height cannot be split evenly over the mesh, or
    a batch into config.accumulate micro-batches of whole groups of `group` images."""
    data, rows = mesh.shape["data"], mesh.shape["rows"]
    if batch_size % data:
        groups = f"{data} devices" if rows == 1 else f"{data} times {rows} devices"
        wanted = f"a multiple of {data}, for example --config.batch_size={-(-batch_size // data) * data}"
        raise UserError(f"config.batch_size={batch_size} cannot be split over {groups}; choose {wanted}.")
    if accumulate > 1 and batch_size % (least := accumulate * data * group):
        groups = f" in the groups of {group} images that OHEM ranks together" if group > 1 else ""
        split = f"into config.accumulate={accumulate} micro-batches over {data} devices{groups}"
        helps = f"choose a multiple of {least}, or another number of micro-batches"
        raise UserError(f"config.batch_size={batch_size} cannot be split {split}; {helps}.")
    # The maps at strides 4 and 8 must be split over 'rows'; coarser ones are split if possible.
    if rows > 1 and height % (16 * rows):
        fault = f"{height}, cannot be split over {rows} devices, as config.mesh requires"
        raise UserError(f"The height of config.augment.crop, {fault}; choose a multiple of {16 * rows}.")


def to_local(mesh: Mesh, tree: Any) -> Any:
    """Replicated arrays of all processes -> the same on `mesh`, which holds devices of this process only."""

    def local(x: jax.Array) -> jax.Array:
        copies = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, replicated(mesh), copies)

    return jax.tree.map(local, tree)


def gather(value: Any) -> list[Any]:
    """All-gathers a value of numbers, strings, lists and dicts with string keys: the values of all processes, in their
    order. Arrays become lists if there are several processes."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value, default=np.ndarray.tolist).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size)).ravel()
    padded = multihost_utils.process_allgather(np.pad(data, (0, sizes.max() - data.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(padded, sizes, strict=True)]


@contextmanager
def all_or_none() -> Iterator[None]:
    """Context manager: a UserError raised inside the `with` in one process is raised in all of them."""
    own: tuple[str, int] | None = None
    try:
        yield
    except UserError as error:
        own = str(error), error.exit_code
    errors = gather(own)
    if own:
        raise UserError(*own)
    for index, other in enumerate(errors):
        if other:
            raise UserError(f"Process {index} says: {other[0]}", other[1])


def first_of(text: str) -> str:
    """The first non-empty `text` in the order of processes, or ""."""
    return next(filter(None, gather(text)), "")


def barrier() -> None:
    """Waits until every process has called it."""
    gather(None)


def say(text: str) -> None:
    """Prints `text` on process 0 only, and flushes."""
    if jax.process_index() == 0:
        print(text, flush=True)
