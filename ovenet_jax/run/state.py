"""What training changes: the network, its optimizer, the position in the data."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ovenet_jax.models import parameters
from ovenet_jax.models.parameters import Arrays


class TrainState(NamedTuple):
    """The network and all that training changes; `step` is also the position in the data.

    `ema`: moving averages of parameters and statistics, if they are kept.
    """

    step: jax.Array
    params: Arrays
    statistics: Arrays
    opt_state: optax.OptState
    ema: tuple[Arrays, Arrays] | None = None

    @property
    def evaluated(self) -> tuple[Arrays, Arrays]:
        """The parameters and statistics that are tested and used: the moving averages if they are kept."""
        return self.ema or (self.params, self.statistics)


def init_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, frozen: Sequence[str] = (), ema: float = 0.0
) -> TrainState:
    """The state before the first step, on the host; the optimizer skips the parts named in `frozen`."""
    _, params, statistics = parameters.split(model)
    # All of an optimizer's state is 0 at first; zeros of numpy need no compilation for each shape.
    described = jax.eval_shape(optimizer.init, without(params, frozen))
    opt_state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), described)
    # Copies, because the training step donates its buffers.
    averages = jax.tree.map(np.array, (params, statistics)) if ema else None
    return jax.device_get(TrainState(jnp.zeros((), jnp.int32), params, statistics, opt_state, averages))


def without(params: Arrays, frozen: Sequence[str]) -> Arrays:
    """`params` without the parts of the network that are named in `frozen`."""
    return {name: value for name, value in params.items() if name.partition(".")[0] not in frozen}
