"""Runs compared: means and intervals over seeds, paired differences over images; numbers, and the page of them.

An interval is Student's, of 95 %, around a mean of independent values: seeds, or images.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from ovenet_jax.data.labels import Labels
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation.inspection import Inspected
from ovenet_jax.evaluation.metrics import Evaluation
from ovenet_jax.evaluation.page import Cell, Page, Section, Table, html
from ovenet_jax.evaluation.run_page import COLORS, learning_sections
from ovenet_jax.supervision.measures import class_scores

LEVEL = 0.95


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """{"mean", "margin"}: mean plus or minus margin is the interval; no margin of a single value."""
    found = np.asarray(values, np.float64)
    if len(found) < 2:
        return {"mean": float(found.mean()) if len(found) else None, "margin": None}
    margin = stats.t.ppf((1 + LEVEL) / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return {"mean": float(found.mean()), "margin": float(margin)}


def numbers(groups: Mapping[str, Sequence[Evaluation]], classes: Labels) -> dict:
    """Of each group of seeds IoU per class and mIoU of the answer; of all but the first the paired differences to it.

    Raises:
      UserError: runs were evaluated on other images.
    """
    first = next(iter(groups.values()))[0]
    for title, evaluations in groups.items():
        for evaluation in evaluations:
            if [image.name for image in evaluation.images] != [image.name for image in first.images]:
                raise UserError(
                    f"{title} was evaluated on other images than {next(iter(groups))}; only runs on the same split can "
                    f"be compared."
                )
    result: dict = {"groups": {}, "differences": {}}
    for title, evaluations in groups.items():
        found = [class_scores(evaluation.matrices[evaluation.answer]) for evaluation in evaluations]
        iou = np.array([one["iou"] for one in found])
        result["groups"][title] = {
            "runs": len(found),
            "miou": interval([one["miou"] for one in found]),
            "iou": {name: interval(iou[:, k].tolist()) for k, name in enumerate(classes.names)},
        }
    base, *others = (image_scores(evaluations) for evaluations in groups.values())
    for title, other in zip(list(groups)[1:], others, strict=True):
        difference = other - base
        result["differences"][title] = interval(difference[np.isfinite(difference)].tolist())
    return result


def image_scores(evaluations: Sequence[Evaluation]) -> np.ndarray:
    """The mean mIoU over seeds of each image, nan where nothing is labelled."""
    values = [[np.nan if image.miou is None else image.miou for image in one.images] for one in evaluations]
    return np.mean(np.array(values, np.float64), axis=0)


def most_different(groups: Mapping[str, Sequence[Evaluation]], count: int) -> list[int]:
    """The images on which the groups' scores lie furthest apart."""
    found = np.array([image_scores(evaluations) for evaluations in groups.values()])
    spread = np.nan_to_num(found.max(0) - found.min(0))
    indices = [image.number for image in next(iter(groups.values()))[0].images]
    return [indices[i] for i in np.argsort(-spread, kind="stable")[:count]]


def page(
    found: Mapping,
    views: Mapping[str, Sequence[Inspected]],
    logs: Mapping[str, Sequence[Path]],
    classes: Labels,
    split: str,
) -> str:
    """The page of `numbers`. views: of each group that is shown the same images; logs: its runs' metrics.jsonl."""
    titles = list(found["groups"])
    base = found["groups"][titles[0]]
    rows = []
    for name, color in zip(classes.names, classes.colors, strict=True):
        cells = [Cell(name, color=f"rgb{tuple(color)}")]
        cells += [_interval_cell(found["groups"][title]["iou"][name]) for title in titles]
        for title in titles[1:]:
            change = found["groups"][title]["iou"][name]["mean"] - base["iou"][name]["mean"]
            cells.append(Cell(f"{100 * change:+.2f}", change, bar=max(-1.0, min(1.0, 10 * change))))
        rows.append(cells)
    columns = ["class", *titles, *(f"difference, {title}" for title in titles[1:])]
    means = [
        [Cell(title), Cell(str(group["runs"])), _interval_cell(group["miou"])]
        + [_interval_cell(found["differences"].get(title))]
        for title, group in found["groups"].items()
    ]
    over_images = (
        f"To {titles[0]}, over the images; intervals are of {100 * LEVEL:.0f} %, over seeds or images."
    )
    images = [list(views_of_image) for views_of_image in zip(*views.values(), strict=True)]
    notes = [" / ".join("–" if v.score is None else f"{100 * v.score:.1f}" for v in one) for one in images]
    learning = [
        _of_group(section, title, COLORS[i % len(COLORS)], number == 0)
        for i, (title, files) in enumerate(logs.items())
        for number, file in enumerate(files)
        for section in learning_sections(file)
    ]
    return html(
        Page(
            title=f"{len(titles)} networks on {split}",
            subtitle="Images on which they differ most come first.",
            headline=[(title, _interval_text(group["miou"])) for title, group in found["groups"].items()],
            classes=classes,
            runs=list(views),
            images=images,
            notes=[f"mIoU {note}" for note in notes],
            sections=[
                Section(
                    "mIoU", over_images, Table(("network", "runs", "mIoU [%]", "difference per image"), means)
                ),
                Section("Classes", "IoU in percent.", Table(columns, rows)),
                *_merged(learning),
            ],
        )
    )


def _of_group(section: Section, title: str, color: str, first: bool) -> Section:
    """Of each chart the last curve, the total loss or the answer's mIoU, as one of a group's."""
    look = {"name": title, "legendgroup": title, "showlegend": first, "line": {"color": color}}
    charts = {
        name: {**chart, "data": [{**chart["data"][-1], **look}]} for name, chart in section.charts.items()
    }
    return section._replace(charts=charts)


def _merged(sections: Sequence[Section]) -> list[Section]:
    """Sections of one title as one, with all curves over each other."""
    merged: dict[str, Section] = {}
    for section in sections:
        before = merged.get(section.title)
        if before is None:
            merged[section.title] = section
            continue
        charts = {
            name: {**chart, "data": before.charts[name]["data"] + chart["data"]}
            for name, chart in section.charts.items()
        }
        merged[section.title] = before._replace(charts=charts)
    return list(merged.values())


def _interval_text(value: Mapping[str, float | None] | None) -> str:
    if value is None or value["mean"] is None:
        return "–"
    margin = value["margin"]
    return f"{100 * value['mean']:.2f}" + ("" if margin is None else f" ± {100 * margin:.2f}")


def _interval_cell(value: Mapping[str, float | None] | None) -> Cell:
    return Cell(_interval_text(value), None if value is None else value["mean"])
