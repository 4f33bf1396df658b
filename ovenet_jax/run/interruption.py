"""After one of errors.INTERRUPTIONS a training saves and exits, in all processes at the same step."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ovenet_jax import errors
from ovenet_jax.devices import parallel


@contextmanager
def interruption() -> Iterator[Event]:
    """Yields an event. Within the `with` errors.INTERRUPTIONS only set it, instead of ending the process."""
    event = Event()
    with errors.on_interruption(lambda *_: event.set()):
        yield event


class Agreement:
    """Tells all processes at the same step, one step late, whether any of them was interrupted.

    The reduction is queued behind the training step, so that no process waits for it. With one process the answer is
    immediate.
    """

    def __init__(self, mesh: Mesh, event: Event):
        self._event = event
        self._any = jax.jit(jnp.any, out_shardings=parallel.replicated(mesh))
        self._one_per_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._asked: jax.Array | None = None

    def reached(self) -> bool:
        """To be called by every process after every step."""
        if jax.process_count() == 1:
            return self._event.is_set()
        answer = self._asked
        mine = np.full(jax.local_device_count(), self._event.is_set())
        self._asked = self._any(jax.make_array_from_process_local_data(self._one_per_device, mine))
        return answer is not None and bool(answer)
