"""Comparison of runs: intervals over repetitions, paired differences over images, and the HTML page.

Intervals are Student's t confidence intervals of 95 % of a mean over independent runs (random seeds) or images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from ovenet_jax.data.labels import Labels
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation.inspection import Inspected
from ovenet_jax.evaluation.page import html
from ovenet_jax.evaluation.results import Evaluation
from ovenet_jax.evaluation.run_page import learning_curves
from ovenet_jax.supervision.measures import class_scores

LEVEL = 0.95


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """{"mean", "margin"}: the interval is mean plus or minus margin, which is None for a single value."""
    count = len(values)
    margin = stats.t.ppf((1 + LEVEL) / 2, count - 1) * stats.sem(values) if count > 1 else None
    return {"mean": np.mean(values, dtype=np.float64) if count else None, "margin": margin}


def numbers(groups: Mapping[str, Sequence[Evaluation]], classes: Labels) -> dict:
    """IoU per class and mIoU of each group of runs that differ in their random seed, and the paired differences of all
    later groups from the first. Raises UserError if runs were evaluated on other images."""
    first = next(iter(groups))
    names = [image.name for image in groups[first][0].images]
    for title, evaluations in groups.items():
        if any([image.name for image in one.images] != names for one in evaluations):
            fault = f"{title} was evaluated on other images than {first}"
            raise UserError(f"{fault}; only runs on the same split can be compared.")
    result: dict = {"groups": {}, "differences": {}}
    for title, evaluations in groups.items():
        found = [class_scores(evaluation.matrices[evaluation.answer]) for evaluation in evaluations]
        iou = np.array([one["iou"] for one in found])
        result["groups"][title] = {
            "runs": len(found),
            "miou": interval([one["miou"] for one in found if one["miou"] is not None]),
            "iou": {name: interval(iou[:, k].tolist()) for k, name in enumerate(classes.names)},
        }
    base, *others = (image_scores(evaluations) for evaluations in groups.values())
    for title, other in zip(list(groups)[1:], others, strict=True):
        difference = other - base
        result["differences"][title] = interval(difference[np.isfinite(difference)].tolist())
    return result


def image_scores(evaluations: Sequence[Evaluation]) -> np.ndarray:
    """Each image's mIoU, averaged over random seeds; nan where nothing is labelled."""
    return np.mean(np.array([[image.miou for image in one.images] for one in evaluations], np.float64), axis=0)


def most_different(groups: Mapping[str, Sequence[Evaluation]], count: int) -> list[int]:
    """The numbers of the images on which the groups' scores lie furthest apart."""
    found = np.array([image_scores(evaluations) for evaluations in groups.values()])
    spread = np.nan_to_num(found.max(0) - found.min(0))
    return np.argsort(-spread, kind="stable")[:count].tolist()


def page(
    found: Mapping, views: Mapping[str, list[Inspected]], logs: Mapping[str, list[Path]], classes: Labels, split: str
) -> str:
    """The page of `numbers`. views: the same inspected images for each group. logs: group -> metrics.jsonl of its runs;
    their total loss and final mIoU are shown."""
    charts: dict[str, list[dict]] = {}
    for title, group in logs.items():
        for chart, lines in (item for file in group for item in learning_curves(file)[0].items()):
            charts.setdefault(chart, []).append(lines[-1] | {"name": title})
    base, *others = (np.array([iou["mean"] for iou in x["iou"].values()]) for x in found["groups"].values())
    return html(
        "comparison.html.j2",
        classes,
        views,
        charts,
        headline=[(title, group["miou"]) for title, group in found["groups"].items()],
        **found,
        gains={f"difference, {t}": x - base for t, x in zip(list(found["groups"])[1:], others, strict=True)},
        level=LEVEL,
        split=split,
    )
