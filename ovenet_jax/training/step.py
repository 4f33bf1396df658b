"""One training step: a pure function of arrays, jitted by its caller."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ovenet_jax.models import parameters
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.run.state import TrainState, without
from ovenet_jax.supervision.losses import Loss
from ovenet_jax.supervision.measures import Measure
from ovenet_jax.training.packing import Packing


def frozen_parts(config: Any) -> tuple[str, ...]:
    """The parts of an OVeNet that training does not change, by `config` (a ConfigDict)."""
    return ("backbone", "head") if config.get("freeze_base") else ()


def train_step(
    state: TrainState,
    image: jax.Array,
    label: jax.Array,
    *,
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    measure: Measure,
    normalisation: Normalisation,
    seed: int,
    frozen: Sequence[str] = (),
    precision: str = "float32",
    accumulate: int = 1,
    group: int = 1,
    ema: float = 0.0,
    packing: Packing | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of SGD on image [B, H, W, C], uint8 RGB or uint16, and label uint8 [B, H, W] -> state, scalar measures.

    loss, measure: functions of an output, its label, and the labels [A, B, H, W] of all micro-batches; see
      supervision/task.py.
    frozen: parts of the network ("backbone", "head") whose parameters and statistics do not change.
    precision: the network's type; the state, losses and measures stay float32.
    accumulate: number of micro-batches for gradient accumulation. Each has BatchNorm statistics and dropout of its
      own; the running statistics are updated after each.
    group: neighbouring images that stay in one micro-batch, since their pixels are ranked together (OHEM).
    ema: decay of the averages, if the state has any.
    packing: how the arrays of the state are packed; None: they are not.
    """
    params, statistics = state.params, state.statistics
    if packing:
        params, statistics = packing.unpack((params, statistics))
    images, labels = (_micro_batches(x, accumulate, group) for x in (image, label))
    dropout_keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step), accumulate)

    def add_micro_batch(total, micro_batch):
        gradients, statistics = total
        image, label, dropout_key = micro_batch
        image = normalisation(image).astype(precision)
        (terms, output, statistics), added = loss_and_gradients(
            graphdef, params, statistics, image, label, partial(loss, batch_labels=labels), dropout_key, frozen
        )
        measured = {f"loss_{name}": value for name, value in terms.items()}
        with jax.named_scope("measures"):
            measured |= measure(jax.lax.optimization_barrier(output), label, labels)  # else resized scores are stored
        return (jax.tree.map(jnp.add, gradients, added), statistics), measured

    initial = jax.tree.map(jnp.zeros_like, without(params, frozen)), statistics
    micro_batches = images, labels, dropout_keys
    if accumulate == 1:  # no loop: inside one XLA convolves fourteen times slower on a CPU
        (gradients, statistics), measured = add_micro_batch(initial, jax.tree.map(lambda x: x[0], micro_batches))
    else:
        (gradients, statistics), measured = jax.lax.scan(add_micro_batch, initial, micro_batches)
    with jax.named_scope("optimizer"):
        if packing:
            gradients, statistics = packing.pack((gradients, statistics))
        gradients = jax.tree.map(lambda x: x / accumulate, gradients)
        trained = without(state.params, frozen)
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        params = state.params | optax.apply_updates(trained, updates)
    averages = moving_average(state.ema, (params, statistics), ema, state.step) if ema else None
    measured = {name: value.mean() for name, value in measured.items()}
    with jax.named_scope("measures"):  # one vector: separate norms would be one or two GPU kernels each
        measured["parameter_norm"] = jnp.linalg.norm(jnp.concatenate([x.ravel() for x in params.values()]))
    return TrainState(state.step + 1, params, statistics, opt_state, averages), measured


def loss_and_gradients(
    graphdef: nnx.GraphDef,
    params: Arrays,
    statistics: Arrays,
    image: jax.Array,
    label: jax.Array,
    loss: Loss,
    dropout_key: jax.Array,
    frozen: Sequence[str] = (),
) -> tuple[tuple[dict[str, jax.Array], Any, Arrays], Arrays]:
    """((loss terms, model output, new BatchNorm statistics), gradients) in training mode on a normalised image.

    The parts named in `frozen` run in evaluation mode, with their stored statistics, and have no gradients.
    """

    def forward(trained):
        model = parameters.merge(graphdef, params | trained, statistics)
        model.train()
        for part in frozen:
            getattr(model, part).eval()
        output = model(image, nnx.Rngs(dropout=dropout_key))
        with jax.named_scope("loss"):
            terms = loss(output, label)
        return terms["total"], (terms, output, parameters.statistics_of(model))

    (_, results), gradients = jax.value_and_grad(forward, has_aux=True)(without(params, frozen))
    return results, gradients


def moving_average(average: Any, latest: Any, decay: float, step: jax.Array) -> Any:
    """decay * average + (1 - decay) * latest of each array, where the decay is at most (1 + step) / (10 + step).

    So initial values fade quickly. Source: TensorFlow's ExponentialMovingAverage, with `num_updates`.
    """
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, latest)


def _micro_batches(x: jax.Array, count: int, group: int) -> jax.Array:
    """[B, ...] -> [count, B / count, ...], interleaved by groups, so that images stay on their devices."""
    if count == 1:
        return x[None]
    groups = x.reshape(-1, count, group, *x.shape[1:])
    return groups.swapaxes(0, 1).reshape(count, -1, *x.shape[1:])
