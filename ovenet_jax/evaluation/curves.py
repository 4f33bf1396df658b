"""Where a network is right, and whether it knows: counts over a split that add up, by distance and by probability."""

from collections.abc import Mapping

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation.inference import Segmentation
from ovenet_jax.models import sampling
from ovenet_jax.models.predictions import ranking
from ovenet_jax.supervision.task import Task

DISTANCES = (1, 2, 4, 8, 16, 32, 64)  # pixels to the nearest boundary between classes, upper ends; and beyond
BINS = 20  # of probabilities

Curves = dict[
    str, np.ndarray
]  # "distance <prediction>", "probability" and "confidence": float64 [n, 3], see `counted`


def distance_bins(label: np.ndarray) -> np.ndarray:
    """Of each pixel of `label` [H, W] the index of its distance in DISTANCES: uint8 [H, W].

    The distance is to the nearest pixel that touches one of another class; ignored pixels are no class.
    """
    touching = np.zeros(label.shape, bool)
    for ahead, behind in (
        ((slice(1, None),), (slice(-1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(-1))),
    ):
        first, second = label[ahead], label[behind]
        differ = (first != second) & (first != IGNORE) & (second != IGNORE)
        touching[ahead] |= differ
        touching[behind] |= differ
    if not touching.any():
        return np.full(label.shape, len(DISTANCES), np.uint8)
    distance = cv2.distanceTransform((~touching).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.digitize(distance, DISTANCES).astype(np.uint8)


def counted(
    index: jax.Array, value: jax.Array, right: jax.Array, counts: jax.Array, length: int
) -> jax.Array:
    """float32 [length, 3]: in each bin how many there are, the sum of their `value`, and how many are `right`.

    index: int, value: float, right and counts (whether it counts at all): bool, all of one shape.
    """
    among = counts.ravel() & (
        index.ravel() == jnp.arange(length, dtype=index.dtype)[:, None]
    )  # for so few bins faster than a scatter
    sums = among.sum(-1), jnp.where(among, value.ravel(), 0).sum(-1), (among & right.ravel()).sum(-1)
    return jnp.stack([x.astype(jnp.float32) for x in sums], axis=-1)


def by_distance(class_map: jax.Array, label: jax.Array, bins: jax.Array) -> jax.Array:
    """Of class maps, labels and `distance_bins` [B, H, W]: see `counted`; the value is 0."""
    zero = jnp.zeros(label.shape, jnp.float32)
    return counted(bins, zero, class_map == label, label != IGNORE, len(DISTANCES) + 1)


def by_probability(probability: jax.Array, right: jax.Array, counts: jax.Array) -> jax.Array:
    """Of probabilities and whether what they speak of is so: see `counted`."""
    index = jnp.clip((probability * BINS).astype(jnp.int32), 0, BINS - 1)
    return counted(index, probability, right, counts, BINS)


def added(curves: Mapping[str, np.ndarray], more: Mapping[str, np.ndarray]) -> Curves:
    """The sums of both; a curve may stand in one alone."""
    return {
        key: np.add(curves.get(key, 0.0), more.get(key, 0.0), dtype=np.float64) for key in {**curves, **more}
    }


def near_boundaries(
    segmentation: Segmentation, label: jax.Array, bins: jax.Array, *, task: Task
) -> dict[str, jax.Array]:
    """The curves by distance of each image, where classes are regions that have boundaries; label, bins: [B, H, W]."""
    if not task.of_regions:
        return {}
    return {
        f"distance {name}": jax.vmap(by_distance)(task.class_map(x), label, bins)
        for name, x in segmentation.scores.items()
    }


def judge(
    segmentation: Segmentation, label: jax.Array, *, task: Task, logits: bool, grid_align_corners: bool
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Of each image, by its label [B, h, w] at the network's pixels: the curves by probability, the probability of the
    label, and the answer, both [B, h, w]."""
    assert segmentation.maps is not None
    scores = segmentation.maps[segmentation.answer]
    shares = task.probabilities(scores, logits)
    first = ranking(shares, task.class_map(scores), 1)
    (answer,), (probability,) = (x.transpose(3, 0, 1, 2) for x in first)
    curves = {"probability": jax.vmap(by_probability)(probability, answer == label, label != IGNORE)}
    known = jnp.where(label == IGNORE, 0, label).astype(jnp.int32)
    belief = jnp.take_along_axis(shares, known[..., None], axis=-1)[..., 0]
    if segmentation.offset is not None and segmentation.confidence is not None:
        positions = sampling.seed_positions(segmentation.offset)
        numbers = label[..., None].astype(jnp.float32)
        at_seed = sampling.sample(numbers, positions, align_corners=grid_align_corners, order=0)[..., 0]
        counts = (label != IGNORE) & (at_seed != IGNORE)
        confidence = segmentation.confidence[..., 0]
        curves["confidence"] = jax.vmap(by_probability)(confidence, at_seed == label, counts)
    return curves, belief, answer
