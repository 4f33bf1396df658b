"""The published losses as pure functions of arrays.

Labels are [B, H, W] integers with `IGNORE` where nothing is known; logits [B, h, w, K] are resized to the label's
size first. The mean over zero pixels is 0. (In the published code it is NaN; the thesis code then drops the term of
S_s, with the same effect.)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.models import contracts, layers, sampling
from ovenet_jax.models.ovenet import OVeNetOutput
from ovenet_jax.models.segfix import SegFixOutput
from ovenet_jax.segfix.labels import boundary_and_direction

# (output, label, batch_labels=None) -> terms, of which "total" is minimised
Loss = Callable[..., dict[str, jax.Array]]
ClassWeights = Sequence[float] | jax.Array | None


class Ohem(NamedTuple):
    """Online hard example mining: at least `keep` pixels, and all whose true-class probability is below `threshold`.

    Pixels are ranked within each group of `group` images; the published code ranks within the 2 images of one GPU.
    `softmax` False: the scores are probabilities and are ranked without softmax (thesis). `aux_over_all`: the auxiliary
    loss (without OHEM) is divided by the number of all pixels instead of the summed weights of the valid ones
    (HRNet-OCR and OVeNet; not openseg and OCNet).
    """

    threshold: float
    keep: int
    group: int
    softmax: bool
    aux_over_all: bool


def cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    *,
    class_weights: ClassWeights = None,
    align_corners: bool,
    batch_labels: jax.Array | None = None,
) -> jax.Array:
    """Mean over the valid pixels, weighted by the weight of their class (divided by the summed weights).

    `batch_labels`: labels [A, B, H, W] of all micro-batches, one of which is `label`. The divisor is then the mean of
    the micro-batches' summed weights, so that the mean of their losses is the loss of the whole batch.
    """
    loss, weight, _ = pixel_losses(logits, label, class_weights, align_corners)
    weights = weight[None] if batch_labels is None else _weight(batch_labels, class_weights, loss.dtype)
    return _ratio(loss.sum(), weights.sum() / len(weights))


def ohem_cross_entropy(
    logits: jax.Array, label: jax.Array, ohem: Ohem, *, class_weights: ClassWeights = None, align_corners: bool
) -> jax.Array:
    """Unweighted mean, over hard pixels, of the class-weighted losses, averaged over the groups of images. Raises
    ValueError: the batch size is not a multiple of the group size."""
    loss, _, probability = pixel_losses(logits, label, class_weights, align_corners, softmax=ohem.softmax)
    groups, rest = divmod(label.shape[0], ohem.group)
    if rest:
        raise ValueError(f"OHEM ranks pixels in groups of {ohem.group} images; {len(label)} images do not divide")
    per_group = [x.reshape(groups, -1) for x in (loss, probability, label != IGNORE)]

    def hard_mean(loss, probability, valid):
        _, bound = ohem_bound(probability, valid, ohem)
        hard = valid & (probability < bound)
        return _ratio(jnp.where(hard, loss, 0).sum(), hard.sum())

    return jax.vmap(hard_mean)(*per_group).mean()


def ohem_bound(probability: jax.Array, valid: jax.Array, ohem: Ohem) -> tuple[jax.Array, jax.Array]:
    """The true class's probability at rank `keep` of the valid pixels, and the bound below which pixels are hard."""
    ranked = jnp.sort(jnp.where(valid, probability, jnp.inf), axis=None)
    at_keep = ranked[jnp.clip(valid.sum() - 1, 0, jnp.maximum(ohem.keep, 1))]
    return at_keep, jnp.maximum(at_keep, ohem.threshold)


def rmi_loss(
    logits: jax.Array, label: jax.Array, *, align_corners: bool, batch_labels: jax.Array | None = None
) -> jax.Array:
    """Half the binary cross entropy, summed over classes, plus half the lower bound of region mutual information.

    The bound is log det(C) / 18, averaged over images and summed over classes. Labels and probabilities are max-pooled
    by 3; C is the covariance of 3x3 regions of labels, given those of probabilities. The published code inverts
    covariances in float64; here C is that of a regression's residuals, the same but precise in float32. `batch_labels`:
    see cross_entropy.

    Source: Zhao et al., "Region Mutual Information Loss for Semantic Segmentation", NeurIPS 2019, in openseg's form
    (`H_48_D_4_RMI.json`).
    """
    logits = layers.resize_bilinear(layers.at_least_float32(logits), label.shape[1:3], align_corners=align_corners)
    known = (label != IGNORE)[..., None]
    labels = jax.nn.one_hot(jnp.where(label == IGNORE, -1, label), logits.shape[-1], dtype=logits.dtype)
    entropy = jnp.where(known, optax.sigmoid_binary_cross_entropy(logits, labels), 0).sum()
    count = known.sum() + 1 if batch_labels is None else ((batch_labels != IGNORE).sum() + 1) / len(batch_labels)

    true, found = _regions(labels), _regions(jnp.where(known, jax.nn.sigmoid(logits), 0) + 1e-6)
    with jax.default_matmul_precision("highest"):
        covariance = partial(jnp.einsum, "bnki,bnkj->bkij")
        small = 1e-3 * jnp.eye(9, dtype=logits.dtype)
        slopes = jnp.linalg.solve(covariance(found, found) + small, covariance(found, true))
        slopes = jax.lax.stop_gradient(slopes)  # they minimise the covariance below, whose gradient by them is 0
        rest = true - jnp.einsum("bnki,bkij->bnkj", found, slopes)
        uncertain = covariance(rest, rest) + 1e-3 * jnp.einsum("bkji,bkjl->bkil", slopes, slopes) + small
    rmi = 0.5 * jnp.linalg.slogdet(uncertain)[1].mean(0).sum() / 9
    return 0.5 * entropy / count + 0.5 * rmi


def _regions(x: jax.Array) -> jax.Array:
    """The centred 3x3 regions of maps [B, H, W, K] max-pooled by 3: [B, N, K, 9]."""
    x = nnx.max_pool(x, (3, 3), strides=(3, 3), padding=((1, 1), (1, 1)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    regions = jnp.stack([x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=-1)
    regions = regions.reshape(len(x), height * width, -1, 9)
    return regions - regions.mean(1, keepdims=True)


def segmentation_loss(
    logits: contracts.Logits,
    label: jax.Array,
    *,
    aux_weight: float,
    class_weights: ClassWeights = None,
    ohem: Ohem | None = None,
    rmi: bool = False,
    align_corners: bool,
    batch_labels: jax.Array | None = None,
) -> jax.Array:
    """L(S) = aux_weight * L(aux) + L(main); with `rmi`, L(main) is rmi_loss. Source: the criteria of HRNet-OCR, OVeNet
    and openseg.

    `batch_labels`: see cross_entropy; the other means have the same number of terms in every micro-batch.
    """
    options: dict[str, Any] = {"class_weights": class_weights, "align_corners": align_corners}
    if rmi:
        main = rmi_loss(logits.main, label, align_corners=align_corners, batch_labels=batch_labels)
    elif ohem is None:
        main = cross_entropy(logits.main, label, batch_labels=batch_labels, **options)
    else:
        main = ohem_cross_entropy(logits.main, label, ohem, **options)
    if logits.aux is None:
        return main
    if ohem is not None and ohem.aux_over_all:
        aux = pixel_losses(logits.aux, label, **options)[0].mean()
    else:
        aux = cross_entropy(logits.aux, label, batch_labels=batch_labels, **options)
    return aux_weight * aux + main


def confidence_loss(
    offset: jax.Array, confidence: jax.Array, label: jax.Array, *, grid_align_corners: bool, include_ignored: bool
) -> jax.Array:
    """Supervises F by whether a pixel and its seed carry the same label: mean of -log(F), or -log(1 - F), over pixels.

    offset [B, h, w, 2] and confidence [B, h, w, 1] are resized to the label's size, never with aligned corners;
    labels are read nearest. As published, ignored pixels count as class 0, as pixel and as seed; with
    `include_ignored` False pairs with an ignored pixel have no loss (the divisor stays H * W). The published sum over
    the 2 images of a GPU is this mean times 2.
    """
    size = label.shape[1:]
    offset = layers.resize_bilinear(layers.at_least_float32(offset), size, align_corners=False)
    confidence = layers.resize_bilinear(layers.at_least_float32(confidence), size, align_corners=False)[..., 0]
    positions = sampling.pixel_grid(size, offset.dtype) + offset
    labels = label[..., None].astype(jnp.int32)
    seed = sampling.sample(labels, positions, align_corners=grid_align_corners, order=0)[..., 0]
    loss = -jnp.log(jnp.where(_target(seed) == _target(label), confidence, 1 - confidence) + 1e-7)
    if not include_ignored:
        loss = jnp.where((label == IGNORE) | (seed == IGNORE), 0, loss)
    return loss.mean()


def ovenet_loss(
    output: OVeNetOutput,
    label: jax.Array,
    *,
    confidence_weight: float,
    include_ignored: bool,
    grid_align_corners: bool,
    **options,
) -> dict[str, jax.Array]:
    """OVeNet's terms and their sum: 0.5 L(S_i) + 0.5 L(S_s) + L(S_f) + confidence_weight * L_conf.

    `options` are those of segmentation_loss. Returns scalars: initial, seed, fused, confidence, total.
    """
    terms = {name: segmentation_loss(getattr(output, name), label, **options) for name in output.predictions}
    settings = {"grid_align_corners": grid_align_corners, "include_ignored": include_ignored}
    terms["confidence"] = confidence_weight * confidence_loss(output.offset, output.confidence, label, **settings)
    total = 0.5 * terms["initial"] + 0.5 * terms["seed"] + terms["fused"] + terms["confidence"]
    return {**terms, "total": total}


def enet_weights(pixels: Sequence[int]) -> tuple[float, ...]:
    """A weight for each class from its number of pixels: 1 / ln(1.02 + its share), from 1.42 for all of the pixels to
    50.5 for none. Source: Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time Semantic
    Segmentation", 2016."""
    shares = np.asarray(pixels) / max(1, sum(pixels))
    return tuple((1 / np.log(1.02 + shares)).tolist())


def segfix_loss(output: SegFixOutput, label: jax.Array, *, align_corners: bool, **_: Any) -> dict[str, jax.Array]:
    """SegFix's terms and their sum for a label of segfix/labels.py's training classes. Source: openseg's SegFix loss.

    Both terms are cross entropies, with class weights of 1 minus the class's share in the batch; the direction's covers
    only pixels predicted as boundary. Returns scalars: boundary, direction, total.
    """
    boundary, direction = boundary_and_direction(label, output.direction.shape[-1])
    resize = partial(layers.resize_bilinear, size=boundary.shape[1:3], align_corners=align_corners)
    predicted = jax.nn.softmax(resize(output.boundary), axis=-1)[..., 1] > 0.5
    direction = jnp.where(predicted & (boundary != IGNORE), direction, IGNORE)
    terms = {}
    for name, part in (("boundary", boundary), ("direction", direction)):
        scores = getattr(output, name)
        weights = rarity(part, scores.shape[-1])
        terms[name] = cross_entropy(scores, part, class_weights=weights, align_corners=align_corners)
    return {**terms, "total": terms["boundary"] + terms["direction"]}


def rarity(label: jax.Array, num_classes: int) -> jax.Array:
    """1 minus each class's share of the valid pixels, [K] float32."""
    counts = jnp.stack([(label == k).sum() for k in range(num_classes)]).astype(jnp.float32)
    return 1 - _ratio(counts, counts.sum())


def pixel_losses(
    logits: jax.Array, label: jax.Array, class_weights: ClassWeights, align_corners: bool, softmax: bool = True
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Per pixel [B, H, W]: weighted cross entropy, class weight (both 0 where ignored), true class's probability.

    `softmax` False: the scores are probabilities; as published, cross entropy treats them as logits all the same.
    """
    logits = layers.resize_bilinear(layers.at_least_float32(logits), label.shape[1:3], align_corners=align_corners)
    # The true class's score as a masked sum, because the gradient of a gather would be a scatter.
    own_class = jnp.arange(logits.shape[-1]) == _target(label)[..., None]
    own = jnp.sum(jnp.where(own_class, logits, 0), axis=-1)
    top, total = _top_and_sum(logits)
    loss = top - own + jnp.log(total)
    weight = _weight(label, class_weights, logits.dtype)
    return weight * loss, weight, jnp.exp(-loss) if softmax else own


@jax.custom_gradient
def _top_and_sum(x: jax.Array) -> Any:
    """The largest of scores [..., K], a constant to gradients, and the sum of exp(score - largest): [...] each.

    GPUs take both in one pass: then XLA resizes scores where they are read instead of storing them at full size.
    """

    def one_pass(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        none = tuple(np.array([np.finfo(x.dtype).min, 0], x.dtype))
        return jax.lax.reduce((x, jnp.ones_like(x)), none, joined, (x.ndim - 1,))

    def joined(a, b):
        top = jnp.maximum(a[0], b[0])
        return top, a[1] * jnp.exp(a[0] - top) + b[1] * jnp.exp(b[0] - top)

    def two_passes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        top = x.max(-1)
        return top, jnp.exp(x - top[..., None]).sum(-1)

    top, total = jax.lax.platform_dependent(x, cpu=two_passes, default=one_pass)
    return (top, total), lambda gradients: gradients[1][..., None] * jnp.exp(x - top[..., None])


def _target(label: jax.Array) -> jax.Array:
    return jnp.where(label == IGNORE, 0, label).astype(jnp.int32)


def _weight(label: jax.Array, class_weights: ClassWeights, dtype: jnp.dtype) -> jax.Array:
    """The weight of every pixel's class, 0 where ignored."""
    weight = 1.0 if class_weights is None else jnp.asarray(class_weights, dtype)[_target(label)]
    return jnp.where(label == IGNORE, 0.0, weight)


def _ratio(total: jax.Array, count: jax.Array) -> jax.Array:
    return total / jnp.where(count > 0, count, 1)
