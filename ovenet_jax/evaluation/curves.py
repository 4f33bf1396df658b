"""Accuracy by distance to class boundaries, and calibration: counts of each image, which can be summed."""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation import inference, results
from ovenet_jax.evaluation.evaluator import Batch, Evaluator
from ovenet_jax.models import sampling
from ovenet_jax.supervision.task import Task

DISTANCES = (1, 2, 4, 8, 16, 32, 64)  # upper bin edges in pixels; a last bin holds the rest
BINS = 20  # of probabilities


class Curves:
    """An `Observer` that counts pixels in bins: "distance <prediction>", see `by_distance` (not for SegFix);
    "probability" of the final prediction and OVeNet's "confidence" (if a pass covers the image), `by_probability`."""

    def __init__(self, evaluator: Evaluator):
        align_corners = evaluator.config.model.get("offset", {}).get("grid_align_corners", True)
        self._task = evaluator.task
        evaluator.inference.programs += [_by_distance, _by_probability]
        self._by_probability = partial(_by_probability, task=self._task, align_corners=align_corners)

    def measure(self, batch: Batch) -> dict[str, jax.Array]:
        curves = self._by_probability(batch.segmentation, batch.network_label)
        if self._task.of_regions:
            of_images = [distance_bins(sample["label"]) for sample in batch.samples]
            bins = inference.on_canvases(of_images, batch.label.shape, 0)
            curves |= {f"distance {name}": _by_distance(x, batch.label, bins) for name, x in batch.class_maps.items()}
        return curves

    def found(self, _: list[dict], measured: dict[str, np.ndarray]) -> results.Evaluation:
        return results.Evaluation(sums={key: np.float64(x).sum(0) for key, x in measured.items()})


def distance_bins(label: np.ndarray) -> np.ndarray:
    """Per pixel of `label` [H, W] the bin of its distance to the nearest boundary pixel: uint8 [H, W].

    A boundary pixel has a 4-neighbour of another class; ignored pixels make no boundary.
    """
    touching = np.zeros(label.shape, bool)
    for ahead, behind in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        first, second = label[ahead], label[behind]
        differ = (first != second) & (first != IGNORE) & (second != IGNORE)
        touching[ahead] |= differ
        touching[behind] |= differ
    distance = cv2.distanceTransform((~touching).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    bins = np.digitize(np.arange(DISTANCES[-1] + 1), DISTANCES).astype(np.uint8)  # of whole pixels
    return bins[np.minimum(distance, DISTANCES[-1]).astype(np.uint8)]


def by_distance(class_map: jax.Array, label: jax.Array, bins: jax.Array) -> jax.Array:
    """Counts per bin of `distance_bins`, int32 [bins, 3]: number of pixels, 0 (unused), number of correct pixels.

    class_map, label, bins: uint8 [H, W].
    """
    count = len(DISTANCES) + 1
    cell = jnp.where(label == IGNORE, 2 * count, 2 * bins.astype(jnp.int32) + (class_map == label))
    wrong, right = jnp.bincount(cell.ravel(), length=2 * count + 1)[:-1].reshape(count, 2).T
    return jnp.stack([wrong + right, jnp.zeros_like(right), right], axis=-1)


def by_probability(probability: jax.Array, correct: jax.Array, valid: jax.Array) -> jax.Array:
    """Sums per bin of probability, float32 [BINS, 3]: number of pixels, sum of probabilities, number of correct pixels.

    correct, valid: bool, shaped like `probability`; only valid pixels are counted.
    """
    index = jnp.clip((probability * BINS).astype(jnp.int32), 0, BINS - 1)
    among = valid.ravel() & (index.ravel() == jnp.arange(BINS)[:, None])
    sums = among.sum(-1), jnp.where(among, probability.ravel(), 0).sum(-1), (among & correct.ravel()).sum(-1)
    return jnp.stack([x.astype(jnp.float32) for x in sums], axis=-1)


def calibration_error(bins: np.ndarray) -> float:
    """The expected calibration error of the `bins` of `by_probability`: the mean over pixels of the distance between
    their bin's mean probability and its share of correct pixels."""
    count, total, correct = bins.T
    return float(np.abs(total - correct).sum() / max(1, count.sum()))


_by_distance = jax.jit(jax.vmap(by_distance))  # of each image


@partial(jax.jit, static_argnames=("task", "align_corners"))
def _by_probability(
    segmentation: inference.Segmentation, label: jax.Array, *, task: Task, align_corners: bool
) -> dict[str, jax.Array]:
    """ "probability" and "confidence" of each image; label: [B, h, w] at the network's resolution."""
    scores = segmentation.maps[segmentation.answer]
    answer = task.class_map(scores)
    shares = task.probabilities(scores, segmentation.logits)
    probability = jnp.take_along_axis(shares, answer[..., None].astype(jnp.int32), axis=-1)[..., 0]
    curves = {"probability": jax.vmap(by_probability)(probability, answer == label, label != IGNORE)}
    if segmentation.offset is not None and segmentation.confidence is not None:
        positions = sampling.seed_positions(segmentation.offset)
        numbers = label[..., None].astype(jnp.float32)
        at_seed = sampling.sample(numbers, positions, align_corners=align_corners, order=0)[..., 0]
        counts = (label != IGNORE) & (at_seed != IGNORE)
        confidence = segmentation.confidence[..., 0]
        curves["confidence"] = jax.vmap(by_probability)(confidence, at_seed == label, counts)
    return curves
