"""The content of `report.html`, from an evaluation, the run's folder and inspected images."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ovenet_jax import described, files
from ovenet_jax.evaluation.curves import DISTANCES, calibration_error
from ovenet_jax.evaluation.inspection import Inspected
from ovenet_jax.evaluation.page import html
from ovenet_jax.evaluation.results import Evaluation
from ovenet_jax.models.predictions import TITLES
from ovenet_jax.run import workdir
from ovenet_jax.supervision.measures import MEANS, class_scores
from ovenet_jax.supervision.task import Task

SHORT = {"main": "IoU", "initial": "S_i", "seed": "S_s", "fused": "S_f", "offset": "IoU"}
CALIBRATED = {
    "probability": "probability of the class",
    "confidence": "confidence F (pixel and seed have the same class)",
}


def page(
    evaluation: Evaluation, inspected: Sequence[Inspected], task: Task, what: Mapping, config: ConfigDict, folder: Path
) -> str:
    """The page on the run in `folder`. what: as of report.write."""
    matrices, sums = evaluation.matrices, evaluation.sums
    answer = task.scores_of(matrices[evaluation.answer])
    learned, damaged_lines = learning_curves(folder / "metrics.jsonl")
    calibrated = {title: sums[key] for key, title in CALIBRATED.items() if key in sums}
    distances = {title: sums[key] for name, title in TITLES.items() if (key := f"distance {name}") in sums}
    charts = learned | {
        "confusion": matrices[evaluation.answer].tolist(),
        "distance": {"ends": DISTANCES, "lines": _lines(distances)} if distances else {},
        "calibration": _lines(calibrated),
    }
    images, suspects = evaluation.images, evaluation.suspects
    regions = [(images[one.number].name, one.score, region) for one in suspects for region in one.regions]
    changed, unchanged = settings(config, folder)
    return html(
        "run.html.j2",
        task.classes,
        {folder.name: sorted(inspected, key=lambda one: (one.score is None, one.score))},
        charts,
        headline=[(title, answer[key]) for key, title in MEANS.items() if key in answer],
        run=folder.name,
        what=what,
        data_set=config.data.name,
        made=evaluation.made,
        scores={SHORT[name]: class_scores(matrix) for name, matrix in matrices.items()},
        pixels=matrices[evaluation.answer].sum(1),
        calibration_errors={title: calibration_error(bins) for title, bins in calibrated.items()},
        damaged_lines=damaged_lines,
        suspects=sorted(regions, key=lambda found: found[-1].score) if suspects else None,
        images=sorted(images, key=lambda image: (image.miou is None, image.miou)),
        changed=changed,
        unchanged=unchanged,
    )


def _lines(curves: Mapping[str, np.ndarray]) -> list[dict]:
    return [{"name": title, "bins": bins.tolist()} for title, bins in curves.items()]


def learning_curves(file: Path) -> tuple[dict[str, list[dict]], int]:
    """Chart ("loss", "eval_loss", "eval_miou") -> curves over steps, the most important last; and the number of damaged
    lines in metrics.jsonl. The validation loss before training is left out: it would flatten the chart."""
    charts: dict[str, dict[str, dict]] = {}
    damaged = 0
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            logged = files.parse_json(line, {"step": int})
        except ValueError:
            damaged += 1
            continue
        for key, value in logged.items():
            if found := re.fullmatch("(loss|eval_loss|eval_miou)_(.+)" if logged["step"] else "(eval_miou)_(.+)", key):
                chart, name = charts.setdefault(found[1], {}), found[2]
                curve = chart.setdefault(name, {"name": TITLES.get(name, name), "x": [], "y": []})
                curve["x"].append(logged["step"])
                curve["y"].append(value if isinstance(value, int | float) else None)
    order = {name: i for i, name in enumerate((*TITLES, "total"))}
    in_order = {chart: sorted(curves.items(), key=lambda x: order.get(x[0], -1)) for chart, curves in charts.items()}
    return {chart: [curve for _, curve in curves] for chart, curves in in_order.items()}, damaged


def settings(config: ConfigDict, folder: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(key, text) of keys that differ from their default or from the training's config; and of all other keys."""
    saved = workdir.read_config(folder) or config
    default = described.published(config.name) or saved
    changed = [
        *((key, f"{then!r}; default of {config.name}: {x!r}") for key, x, then in workdir.differences(default, saved)),
        *((key, f"{here!r} here, {then!r} in training") for key, then, here in workdir.differences(saved, config)),
    ]
    values = described.leaves(config.to_dict()).items()
    return changed, [(key, repr(value)) for key, value in values if key not in dict(changed)]
