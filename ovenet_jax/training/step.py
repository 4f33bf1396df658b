"""One training step: a pure function of arrays, jitted by its caller."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.layers import resize_bilinear
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.predictions import class_maps
from ovenet_jax.models.segfix import SegFixOutput
from ovenet_jax.models.zoo import is_segfix
from ovenet_jax.run.state import TrainState, without
from ovenet_jax.segfix.labels import boundary_and_direction
from ovenet_jax.training.losses import Ohem, ovenet_loss, segfix_loss, segmentation_loss

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Loss = Callable[..., dict[str, jax.Array]]  # (model output, label, among=None) -> terms, with "total"
BASE = ("backbone", "head")  # the parts of an OVeNet that config.freeze_base freezes


def create_loss(config: "ConfigDict") -> Loss:
    """The loss that `config.loss` describes, for the kind of output that `config.model` gives.

    SegFix has its own, which weights classes by their rarity in the batch.

    Raises:
      UserError: weights for another number of classes, or a batch that OHEM cannot rank in groups; either for SegFix.
    """
    if is_segfix(config.model):
        if config.loss.class_weights or config.loss.ohem.on:
            raise UserError(
                "config.loss.class_weights and config.loss.ohem are not for SegFix; leave them out."
            )
        return partial(_segfix_loss, align_corners=config.model.align_corners)
    options = {
        "aux_weight": config.loss.aux_weight,
        "class_weights": config.loss.class_weights or None,
        "align_corners": config.model.align_corners,
    }
    weights = config.loss.class_weights
    if weights and len(weights) != config.model.num_classes:
        raise UserError(
            f"config.loss.class_weights has {len(weights)} entries for config.model.num_classes="
            f"{config.model.num_classes}; give one weight per class, or () for none."
        )
    if config.loss.ohem.on:
        probabilities = "offset" in config.model and not config.model.offset.logits
        ohem = Ohem(
            config.loss.ohem.threshold,
            config.loss.ohem.keep,
            config.loss.ohem.group,
            softmax=config.loss.ohem.softmax_again or not probabilities,
            aux_over_all=config.loss.ohem.aux_over_all,
        )
        if config.batch_size % ohem.group:
            raise UserError(
                f"OHEM ranks pixels in groups of config.loss.ohem.group={ohem.group} images, which "
                f"config.batch_size={config.batch_size} must be a multiple of."
            )
        options["ohem"] = ohem
    if "offset" not in config.model:
        return lambda output, label, among=None: {
            "total": segmentation_loss(output, label, among=among, **options)
        }
    return partial(
        ovenet_loss,
        confidence_weight=config.loss.confidence_weight,
        include_ignored=config.loss.include_ignored,
        grid_align_corners=config.model.offset.grid_align_corners,
        **options,
    )


def _segfix_loss(
    output: SegFixOutput,
    label: jax.Array,
    among: jax.Array | None = None,  # noqa: ARG001  there is one micro-batch
    *,
    align_corners: bool,
) -> dict[str, jax.Array]:
    truth = boundary_and_direction(label, output.direction.shape[-1])
    return segfix_loss(output, *truth, align_corners=align_corners)


def ranked_together(config: "ConfigDict") -> int:
    """How many neighbouring images of a batch OHEM ranks together, as `config.loss` says; 1 without it."""
    return config.loss.ohem.group if config.loss.ohem.on else 1


def train_step(
    state: TrainState,
    image: jax.Array,
    label: jax.Array,
    *,
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    normalisation: Normalisation,
    align_corners: bool,
    seed: int,
    frozen: Sequence[str] = (),
    precision: str = "float32",
    accumulate: int = 1,
    group: int = 1,
    ema: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of SGD on image uint8 [B, H, W, 3] and label uint8 [B, H, W] -> new state, scalar measures.

    frozen: parts of the network ("backbone", "head") that stay as they are, parameters and statistics.
    precision: what the network computes in; the state, losses and measures are float32 all the same.
    accumulate: micro-batches that take turns, for the update of the whole batch in less memory. BatchNorm normalises
      each by itself, one after the other updates the running statistics, and dropout draws anew for each.
    group: neighbouring images that stay in one micro-batch, since their pixels are ranked together (OHEM).
    ema: decay of the averages, if the state has any.
    """
    trained = without(state.params, frozen)
    images, labels = (_micro_batches(x, accumulate, group) for x in (image, label))
    dropout_keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step), accumulate)

    def add_micro_batch(total, micro_batch):
        gradients, statistics = total
        image, label, dropout_key = micro_batch
        image = normalisation(image).astype(precision)
        (terms, output, statistics), more = loss_and_gradients(
            graphdef, state.params, statistics, image, label, partial(loss, among=labels), dropout_key, frozen
        )
        measures = {f"loss_{name}": value for name, value in terms.items()}
        measures |= measures_of(output, label, labels, align_corners)
        return (jax.tree.map(jnp.add, gradients, more), statistics), measures

    nothing = jax.tree.map(jnp.zeros_like, trained), state.statistics
    micro_batches = images, labels, dropout_keys
    if accumulate == 1:  # without a loop, in which XLA convolves fourteen times slower on a CPU
        (gradients, statistics), measures = add_micro_batch(
            nothing, jax.tree.map(lambda x: x[0], micro_batches)
        )
    else:
        (gradients, statistics), measures = jax.lax.scan(add_micro_batch, nothing, micro_batches)
    gradients = jax.tree.map(lambda x: x / accumulate, gradients)
    with jax.named_scope("optimizer"):
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        params = state.params | optax.apply_updates(trained, updates)
    averages = moving_average(state.ema, (params, statistics), ema, state.step) if ema else None
    measures = {name: value.mean() for name, value in measures.items()}
    measures["parameter_norm"] = optax.global_norm(params)
    return TrainState(state.step + 1, params, statistics, opt_state, averages), measures


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
    """decay * average + (1 - decay) * latest of each array; before `decay` counts, (1 + step) / (10 + step) does.

    So the initial values are soon forgotten. Source: TensorFlow's ExponentialMovingAverage, with `num_updates`.
    """
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, latest)


def _micro_batches(x: jax.Array, count: int, group: int) -> jax.Array:
    """[B, ...] -> [count, B / count, ...], dealt out in turn by groups: images stay on the devices they are on."""
    if count == 1:
        return x[None]
    groups = x.reshape(-1, count, group, *x.shape[1:])
    return groups.swapaxes(0, 1).reshape(count, -1, *x.shape[1:])


@jax.named_scope("measures")
def measures_of(
    output: Any, label: jax.Array, labels: jax.Array, align_corners: bool
) -> dict[str, jax.Array]:
    """Pixel accuracy of each prediction; for OVeNet mean confidence and mean offset length in label pixels; for SegFix
    those of its offsets.

    `labels` are those of all micro-batches: the mean of their measures is that of the batch.
    """
    valid = label != IGNORE
    valid_pixels = jnp.maximum((labels != IGNORE).sum(), 1) / labels.shape[0]
    measures = {}
    resize = partial(resize_bilinear, size=label.shape[1:3], align_corners=align_corners)
    maps = class_maps({k: resize(x) for k, x in output.predictions.items()})
    if isinstance(output, SegFixOutput):
        return _offset_measures(maps["offset"], *boundary_and_direction(label, output.direction.shape[-1]))
    for name, class_map in maps.items():
        correct = (class_map == label) & valid
        measures[f"accuracy_{name}"] = correct.sum() / valid_pixels
    if hasattr(output, "offset"):
        height, width = label.shape[1:3]
        pixels = output.offset * jnp.array([(width - 1) / 2, (height - 1) / 2])
        measures["confidence"] = output.confidence.mean()
        measures["offset_length"] = jnp.linalg.norm(pixels, axis=-1).mean()
    return measures


def _offset_measures(
    offset_class: jax.Array, boundary: jax.Array, direction: jax.Array
) -> dict[str, jax.Array]:
    """As `metrics.offset_scores`, of the maps of a batch [B, H, W]."""
    true, found = boundary == 1, (offset_class > 0) & (boundary != IGNORE)
    both = true & found
    right = both & (offset_class - 1 == direction)
    return {
        "boundary_f": 2 * both.sum() / jnp.maximum(true.sum() + found.sum(), 1),
        "direction_accuracy": right.sum() / jnp.maximum(both.sum(), 1),
    }
