"""What the report of a run shows: `report.html`, from an evaluation, the run's folder and some inspected images."""

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlencode

import jax
import numpy as np
from ml_collections import ConfigDict

from ovenet_jax import files
from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.curves import BINS, DISTANCES
from ovenet_jax.evaluation.inspection import Inspected
from ovenet_jax.evaluation.metrics import Evaluation, ImageScore
from ovenet_jax.evaluation.page import Cell, Page, Section, Table, html
from ovenet_jax.evaluation.report import MEANS, VERSIONS
from ovenet_jax.models.predictions import TITLES
from ovenet_jax.run import workdir
from ovenet_jax.supervision.measures import class_scores
from ovenet_jax.supervision.task import Task

COLORS = ("#2f81d6", "#d2691e", "#1a9b6c", "#8f63cf", "#c2498d", "#7d8b99")
SHORT = {"main": "IoU", "initial": "S_i", "seed": "S_s", "fused": "S_f", "offset": "IoU"}
LISTED_IMAGES, LISTED_REGIONS = 200, 60


def write(
    evaluation: Evaluation,
    inspected: Sequence[Inspected],
    task: Task,
    what: Mapping,
    config: ConfigDict,
    folder: Path,
    target: Path,
) -> None:
    """Writes `target`/report.html on the run in `folder`. what: as of report.write."""
    matrices, classes = evaluation.matrices, task.classes
    answer = task.scores_of(matrices[evaluation.answer])
    headline = [(title, f"{_percent(answer[key])} %") for key, title in MEANS.items() if key in answer]
    in_order = sorted(inspected, key=lambda one: math.inf if one.score is None else one.score)
    page = Page(
        title=f"{folder.name} on {what['split']}",
        subtitle=f"Step {what['step']}, {len(evaluation.images)} images, {time.strftime('%Y-%m-%d %H:%M')}",
        headline=headline,
        classes=classes,
        runs=[folder.name],
        images=[[one] for one in in_order],
        notes=["" if one.score is None else f"mIoU {_percent(one.score)}" for one in in_order],
        sections=[
            class_section(matrices, evaluation.answer, classes),
            confusion_section(matrices[evaluation.answer], classes),
            *curve_sections(evaluation.curves),
            *learning_sections(folder / "metrics.jsonl"),
            *suspect_sections(evaluation, classes, {one.name for one in inspected}),
            image_section(evaluation.images, {one.name for one in inspected}),
            run_section(what, config, folder),
        ],
    )
    files.write(target / "report.html", html(page))


def class_section(matrices: Mapping[str, np.ndarray], answer: str, classes: Labels) -> Section:
    """IoU per class of each prediction; of several, what the answer adds to the first."""
    results = {name: class_scores(matrix) for name, matrix in matrices.items()}
    base = next(iter(results))
    first, last = results[base], results[answer]
    counts = next(iter(matrices.values())).sum(1)
    compares = len(results) > 1
    columns = ["class", "share", *(SHORT[name] for name in results)]
    columns += [f"{SHORT[answer]} − {SHORT[base]}"] * compares + ["accuracy"]
    difference = last["iou"] - first["iou"]
    longest = max(float(np.abs(difference).max()), 1e-9)
    rows = []
    for k, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        values = [counts[k] / max(1, counts.sum()), *(result["iou"][k] for result in results.values())]
        cells = [Cell(name, color=f"rgb{tuple(color)}"), *(_share_cell(value) for value in values)]
        if compares:
            change = float(difference[k])
            cells.append(Cell(f"{100 * change:+.2f}", change, bar=change / longest))
        rows.append([*cells, _share_cell(last["accuracy"][k])])
    return Section(
        "Classes",
        "Share of the pixels, IoU of each prediction and accuracy of the answer, in percent.",
        Table(columns, rows),
    )


def confusion_section(matrix: np.ndarray, classes: Labels) -> Section:
    """Where the pixels of each true class went."""
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    names = [_plain(name) for name in classes.names]
    hover = (
        "true: %{y}<br>predicted: %{x}<br>%{customdata[0]:,} pixels, %{customdata[1]:.2%} of the true class"
    )
    heat = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": np.sqrt(shares).round(3).tolist(),
        "customdata": [
            [[int(count), round(float(share), 4)] for count, share in zip(*row, strict=True)]
            for row in zip(matrix, shares, strict=True)
        ],
        "hovertemplate": f"{hover}<extra></extra>",
        "colorscale": "Blues" if len(names) < 2 else [[0, "rgba(47,129,214,0)"], [1, "rgb(47,129,214)"]],
        "showscale": False,
        "xgap": 1 if len(names) < 40 else 0,
        "ygap": 1 if len(names) < 40 else 0,
    }
    side = int(np.clip(26 * len(names) + 160, 380, 900))
    axis = {"type": "category", "showgrid": False, "tickangle": -60, "tickfont": {"size": 11}}
    layout = {
        "height": side,
        "margin": {"t": 10, "r": 10},
        "xaxis": {**axis, "title": {"text": "predicted"}},
        "yaxis": {**axis, "tickangle": 0, "autorange": "reversed", "title": {"text": "true"}},
    }
    text = "Share of the true class's pixels; the shade is its square root, so that small confusions show."
    return Section("Confusion", text, charts={"confusion": {"data": [heat], "layout": layout}})


def curve_sections(curves: Mapping[str, np.ndarray]) -> Iterator[Section]:
    """Accuracy by the distance to a boundary, and calibration."""
    ends = ["0", *map(str, DISTANCES)]
    spans = [f"{a}–{b}" for a, b in zip(ends[:-1], ends[1:], strict=True)] + [f"over {ends[-1]}"]
    lines = []
    for name, title in TITLES.items():
        if (counts := curves.get(f"distance {name}")) is not None:
            share = [_ratio(right, n) for n, _, right in counts]
            hover = "%{y:.2%} of %{customdata:,} pixels"
            numbers = counts[:, 0].tolist()
            lines.append(_line(title, spans, share, customdata=numbers, hovertemplate=hover))
    if lines:
        layout = _layout("pixels to the nearest boundary between classes", "accuracy", tickformat=".0%")
        layout["xaxis"]["type"] = "category"
        text = "The share of pixels that are right, by how far from a boundary of the truth they lie."
        yield Section("Near boundaries", text, charts={"distance": {"data": lines, "layout": layout}})

    titles = {"probability": "probability of the answer", "confidence": "F, of one class at pixel and seed"}
    lines, errors = [], []
    for key, title in titles.items():
        if key not in curves:
            continue
        counts = curves[key][curves[key][:, 0] > 0]
        values, rights = counts[:, 1] / counts[:, 0], counts[:, 2] / counts[:, 0]
        error = float((np.abs(values - rights) * counts[:, 0]).sum() / max(1, counts[:, 0].sum()))
        errors.append(f"{title}: {100 * error:.2f} %")
        hover = "said %{x:.1%}, was %{y:.1%} of %{customdata:,}"
        line = _line(
            title, values.tolist(), rights.tolist(), customdata=counts[:, 0].tolist(), hovertemplate=hover
        )
        lines.append(line)
    if lines:
        exact = {"x": [0, 1], "y": [0, 1], "name": "calibrated", "mode": "lines", "hoverinfo": "skip"}
        lines.append({**exact, "line": {"dash": "dot", "color": COLORS[-1]}})
        layout = _layout("said", "was", tickformat=".0%")
        layout["xaxis"] |= {"range": [0, 1], "tickformat": ".0%"}
        layout["yaxis"] |= {"range": [0, 1]}
        text = (
            f"How often it was so, in {BINS} bins of what the network said at its own resolution. Expected calibration "
            f"error: {'; '.join(errors)}."
        )
        yield Section("Calibration", text, charts={"calibration": {"data": lines, "layout": layout}})


def learning_sections(file: Path) -> Iterator[Section]:
    """Losses and validation scores over the steps; lines that cannot be read are counted."""
    if not file.exists():
        return
    lines, damaged = [], 0
    for line in file.read_bytes().splitlines():
        try:
            lines.append(files.parse_json(line, {"step": int}))
        except ValueError:
            damaged += 1
    note = f"Lines of {file.name} that cannot be read: {damaged}." if damaged else ""
    for name, prefix, title in (
        ("losses", "loss_", "Losses"),
        ("validation", "eval_miou_", "mIoU in training"),
    ):
        order = [*TITLES, "total"]  # what is asked for most comes last
        found = {key.removeprefix(prefix) for line in lines for key in line if key.startswith(prefix)}
        curves = []
        for label in sorted(found, key=lambda one: order.index(one) if one in order else -1):
            key = prefix + label
            points = [(line["step"], _finite(line[key])) for line in lines if key in line]
            curves.append(_line(TITLES.get(label, label), *map(list, zip(*points, strict=True))))
        if curves:
            layout = _layout("step", "loss" if prefix == "loss_" else "mIoU")
            yield Section(title, note, charts={name: {"data": curves, "layout": layout}})


def image_section(images: Sequence[ImageScore], inspected: set[str]) -> Section:
    """The images by rising mIoU, with links to those that the inspector has."""
    in_order = sorted(images, key=lambda image: math.inf if image.miou is None else image.miou)
    rows = []
    for image in in_order[:LISTED_IMAGES]:
        href = f"#{urlencode({'image': image.name})}" if image.name in inspected else ""
        rows.append([Cell(image.name, href=href), Cell(_percent(image.miou), image.miou)])
    more = len(in_order) - len(rows)
    text = f"The lowest mIoU first{f'; {more} more are left out' if more else ''}. Links open the inspector."
    return Section("Images", text, Table(("image", "mIoU [%]"), rows))


def suspect_sections(evaluation: Evaluation, classes: Labels, inspected: set[str]) -> Iterator[Section]:
    """Images and regions whose labels the network believes least."""
    names = {image.number: image.name for image in evaluation.images}
    if not evaluation.suspects:
        return
    scores = {one.number: one.score for one in evaluation.suspects}
    found = [(one.number, region) for one in evaluation.suspects for region in one.regions]
    rows = []
    for index, region in sorted(found, key=lambda item: item[1].score)[:LISTED_REGIONS]:
        name = names[index]
        place = {"image": name, "layer": "truth", "x": region.x, "y": region.y}
        href = f"#{urlencode(place)}" if name in inspected else ""
        given, seen = classes.names[region.given], classes.names[region.seen]
        cells = [Cell(name, href=href), Cell(given, color=f"rgb{tuple(classes.colors[region.given])}")]
        cells += [
            Cell(seen, color=f"rgb{tuple(classes.colors[region.seen])}"),
            Cell(f"{region.x}, {region.y}"),
        ]
        rows.append([*cells, _share_cell(region.score), _share_cell(scores[index])])
    text = (
        "Regions of one label by the mean probability that the network gives to it, and the softmin of that over their "
        "image (Lad and Mueller, 2023), in percent; the least believed first."
    )
    if not rows:
        yield Section("Labels that look wrong", "The network believes all regions.")
        return
    columns = ("image", "label", "network", "at", "region", "image's score")
    yield Section("Labels that look wrong", text, Table(columns, rows))


def run_section(what: Mapping, config: ConfigDict, folder: Path) -> Section:
    """What was run, with what."""
    saved = workdir.read_config(folder)
    trained = workdir.leaves(saved.to_dict()) if saved is not None else {}
    here = workdir.leaves(json.loads(json.dumps(config.to_dict())))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    devices = jax.devices()
    facts = [
        ("run", str(folder.name)),
        ("data", f"{config.data.name}, split {what['split']}, digest {what['data']['digest'][:12]}"),
        ("step", str(what["step"])),
        ("versions", f"Python {platform.python_version()}, {versions}"),
        ("devices", f"{len(devices)} x {devices[0].device_kind}"),
    ]
    facts += [
        (key, f"{value!r} here, {trained[key]!r} in training")
        for key, value in here.items()
        if key in trained and trained[key] != value
    ]
    others = [(key, repr(value)) for key, value in here.items() if trained.get(key, value) == value]
    return Section("What was run", facts=facts, folded=others)


# ---- details ----


def _line(name: str, x: list, y: list, **more) -> dict:
    return {"x": x, "y": y, "name": _plain(name), "mode": "lines+markers", **more}


def _layout(x: str, y: str, **y_axis) -> dict:
    return {
        "height": 380,
        "margin": {"t": 20, "r": 10},
        "colorway": list(COLORS),
        "hovermode": "x unified" if x == "step" else "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}, **y_axis},
    }


def _plain(name: str) -> str:
    """Without what Plotly takes for markup."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _share_cell(share: float) -> Cell:
    return Cell(_percent(share), float(share))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
