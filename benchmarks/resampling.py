"""How certain a difference is: intervals over seeds and images at once, and an exact test of paired differences.

Seeds and images are two crossed samples, so each resample draws both, independently, with replacement, and every
network is given the same draw: the pigeonhole bootstrap (Owen, Annals of Applied Statistics 2007). Images are drawn in
blocks of neighbouring frames (Künsch, Annals of Statistics 1989), and blocks within strata, as runs are within tasks by
Agarwal et al. (NeurIPS 2021). Percentiles of few seeds are too narrow: intervals are Student's, with the bootstrap's
standard error (Hesterberg, The American Statistician 2015).
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000


class Draws(NamedTuple):
    """How often each resample has drawn each seed, [R, S], and each block of images, [R, B]."""

    seeds: np.ndarray
    blocks: np.ndarray


def draw(seeds: int, strata: Sequence[str], resamples: int = RESAMPLES, fixed_images: bool = False) -> Draws:
    """Always the same draws. `strata`: of each block; a resample has as many blocks of each as there are.

    fixed_images: every block once, so that only seeds are drawn.
    """
    generator = np.random.default_rng(0)
    names = np.array(strata)
    blocks = np.ones((resamples, len(names)), int)
    if not fixed_images:
        for name in sorted(set(strata)):
            (members,) = np.nonzero(names == name)
            blocks[:, members] = _counts(generator, len(members), resamples)
    return Draws(_counts(generator, seeds, resamples), blocks)


def _counts(generator: np.random.Generator, items: int, resamples: int) -> np.ndarray:
    """How often each of the items is drawn, when as many as there are are drawn with replacement, [R, items]."""
    return generator.multinomial(items, np.full(items, 1 / items), size=resamples)


def mean_ious(
    true: np.ndarray, correct: np.ndarray, predicted: np.ndarray, blocks: np.ndarray | None = None
) -> np.ndarray:
    """IoU of each class, of pixel counts in blocks of images.

    true [B, K], correct and predicted [S, B, K] for S seeds. blocks [R, B]: how often each block counts. Returns
    [R, S, K], or [S, K] without `blocks`; 0 for a class that never occurs.
    """
    if blocks is None:
        return mean_ious(true, correct, predicted, np.ones((1, len(true))))[0]
    true, correct, predicted = (
        np.einsum("rb,...bk->r...k", blocks, x.astype(float), optimize=True) for x in (true, correct, predicted)
    )
    return correct / np.maximum(1, true[:, None] + predicted - correct)


def over_seeds(values: np.ndarray, draws: Draws) -> np.ndarray:
    """Mean over the drawn seeds of a value [R, S, ...] of each resample and seed -> [R, ...]."""
    return np.einsum("rs,rs...->r...", draws.seeds, values) / draws.seeds.sum(1).reshape(-1, *[1] * (values.ndim - 2))


class Interval(NamedTuple):
    """An estimate and its interval; arrays of one shape, or numbers."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval(estimate: np.ndarray, resampled: np.ndarray, seeds: int, level: float = 0.95) -> Interval:
    """Student's interval of `seeds` - 1 degrees of freedom, with the standard error of `resampled` [R, ...].

    The variance is that of a sample, which resamples of n seeds show n - 1 of n parts of.
    """
    error = resampled.std(axis=0) * np.sqrt(seeds / (seeds - 1))
    reach = stats.t.ppf((1 + level) / 2, seeds - 1) * error
    return Interval(estimate, estimate - reach, estimate + reach)


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the mean of paired differences [S]: the share of all 2^S choices of signs with a mean as large."""
    signs = np.array(list(product((1, -1), repeat=len(differences))))
    means = np.abs(signs @ differences)
    return float(np.mean(means >= means[0] * (1 - 1e-9)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values (Scandinavian Journal of Statistics 1979), in the given order."""
    order = np.argsort(p_values)
    steps = [(len(p_values) - rank) * p_values[index] for rank, index in enumerate(order)]
    adjusted = np.minimum(1, np.maximum.accumulate(steps))
    return [float(adjusted[np.flatnonzero(order == index)[0]]) for index in range(len(p_values))]
