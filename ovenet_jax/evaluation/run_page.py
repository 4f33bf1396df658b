"""The content of `report.html`, from an evaluation, the run's folder and inspected images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ovenet_jax import described, files
from ovenet_jax.evaluation.curves import BINS, DISTANCES
from ovenet_jax.evaluation.inspection import Inspected
from ovenet_jax.evaluation.page import Page, Section, html
from ovenet_jax.evaluation.report import made_now
from ovenet_jax.evaluation.results import Evaluation, ImageScore
from ovenet_jax.models.predictions import TITLES
from ovenet_jax.run import workdir
from ovenet_jax.supervision.measures import MEANS, class_scores
from ovenet_jax.supervision.task import Task
from ovenet_jax.tables import percent

SHORT = {"main": "IoU", "initial": "S_i", "seed": "S_s", "fused": "S_f", "offset": "IoU"}
LISTED_IMAGES, LISTED_REGIONS = 200, 60
LEARNED = (("Losses", "loss", "loss_"), ("mIoU in training", "mIoU", "eval_miou_"))  # title, unit, prefix of keys


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
    matrices, made = evaluation.matrices, evaluation.made or made_now()
    answer = task.scores_of(matrices[evaluation.answer])
    in_order = sorted(inspected, key=lambda one: (one.score is None, one.score))
    page = Page(
        title=f"{folder.name} on {what['split']}",
        subtitle=f"Step {what['step']}, {len(evaluation.images)} images, {made['date']}",
        headline=[(title, answer[key]) for key, title in MEANS.items() if key in answer],
        classes=task.classes,
        runs=[folder.name],
        images=[[one] for one in in_order],
        notes=["" if one.score is None else f"mIoU {percent(one.score)}" for one in in_order],
        sections=[
            class_section(matrices),
            Section(
                "Confusion",
                "Share of the true class's pixels; the shade is its square root, so that small confusions show.",
                charts={"confusion": {"counts": matrices[evaluation.answer].tolist()}},
            ),
            *curve_sections(evaluation.sums),
            *learning_sections(folder / "metrics.jsonl"),
            *suspect_sections(evaluation),
            image_section(evaluation.images),
            run_section(what, made, config, folder),
        ],
    )
    files.write(target / "report.html", html(page))


def class_section(matrices: Mapping[str, np.ndarray]) -> Section:
    """IoU per class of each prediction, and with several predictions the gain of the last over the first."""
    results = [class_scores(matrix) for matrix in matrices.values()]
    names, ious = [SHORT[name] for name in matrices], [result["iou"] for result in results]
    pixels = next(iter(matrices.values())).sum(1)
    columns = [("class", "class"), ("share", "share"), *((name, "share") for name in names)]
    values = [range(len(pixels)), pixels / max(1, pixels.sum()), *ious]
    if len(names) > 1:
        columns.append((f"{names[-1]} − {names[0]}", "difference"))
        values.append(ious[-1] - ious[0])
    columns.append(("accuracy", "share"))
    values.append(results[-1]["accuracy"])
    if not pixels.sum():
        return Section("Classes", "No pixel is labelled, so there are no scores.", columns, [])
    text = "Share of the pixels, IoU of each prediction and accuracy of the final one, in percent."
    return Section("Classes", text, columns, list(zip(*values, strict=True)))


def curve_sections(curves: Mapping[str, np.ndarray]) -> Iterator[Section]:
    """Accuracy by the distance to a boundary, and calibration."""
    ends = ["0", *map(str, DISTANCES)]
    spans = [f"{a}–{b}" for a, b in zip(ends[:-1], ends[1:], strict=True)] + [f"over {ends[-1]}"]
    lines = []
    for name, title in TITLES.items():
        if (counts := curves.get(f"distance {name}")) is not None:
            shares = [right / n if n else None for n, _, right in counts.tolist()]
            lines.append({"name": title, "x": spans, "y": shares, "counts": counts[:, 0].tolist()})
    if lines:
        axes = {"x": "pixels to the nearest boundary between classes", "y": "accuracy", "shares": True}
        text = "Pixel accuracy by distance to the nearest boundary of the truth."
        yield Section("Near boundaries", text, charts={"distance": {**axes, "lines": lines}})

    lines, errors = [], []
    titles = {"probability": "probability of the class", "confidence": "confidence F (pixel and seed have one class)"}
    for key, title in titles.items():
        if key in curves:
            counts, total, correct = curves[key][curves[key][:, 0] > 0].T
            predicted, observed = total / counts, correct / counts
            error = (np.abs(predicted - observed) * counts).sum() / max(1, counts.sum())
            errors.append(f"{title}: {100 * error:.2f} %")
            line = {"x": predicted.tolist(), "y": observed.tolist(), "counts": counts.tolist()}
            lines.append({"name": title, **line})
    if lines:
        text = (
            f"Observed frequency by predicted probability, in {BINS} bins, at the network's resolution. Expected "
            f"calibration error: {'; '.join(errors)}."
        )
        chart = {"x": "predicted", "y": "observed", "exact": True, "lines": lines}
        yield Section("Calibration", text, charts={"calibration": chart})


def learning_sections(file: Path) -> Iterator[Section]:
    """Losses and validation scores by step, and the number of unreadable lines."""
    logged, damaged = logged_lines(file)
    note = f"Lines of {file.name} that cannot be read: {damaged}." if damaged else ""
    for title, unit, prefix in LEARNED:
        if lines := learning_lines(logged, prefix):
            yield Section(title, note, charts={prefix: {"x": "step", "y": unit, "lines": lines}})


def logged_lines(file: Path) -> tuple[list[dict], int]:
    """The entries of metrics.jsonl, and the number of unreadable lines."""
    lines, damaged = [], 0
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            lines.append(files.parse_json(line, {"step": int}))
        except ValueError:
            damaged += 1
    return lines, damaged


def learning_lines(logged: Sequence[dict], prefix: str) -> list[dict]:
    """One line of a chart per key with this prefix, the most important last."""
    order = [*TITLES, "total"]
    found = {key.removeprefix(prefix) for line in logged for key in line if key.startswith(prefix)}
    lines = []
    for name in sorted(found, key=lambda name: order.index(name) if name in order else -1):
        points = [(line["step"], line[prefix + name]) for line in logged if prefix + name in line]
        steps, values = zip(*points, strict=True)
        finite = [x if isinstance(x, int | float) and math.isfinite(x) else None for x in values]
        lines.append({"name": TITLES.get(name, name), "x": steps, "y": finite})
    return lines


def suspect_sections(evaluation: Evaluation) -> Iterator[Section]:
    """The images and regions with the least probable labels."""
    if not evaluation.suspects:
        return
    names = {image.number: image.name for image in evaluation.images}
    found = [(region, one) for one in evaluation.suspects for region in one.regions]
    rows = [
        (
            {"image": names[one.number], "layer": "truth", "x": region.x, "y": region.y},
            region.given,
            region.seen,
            f"{region.x}, {region.y}",
            region.score,
            one.score,
        )
        for region, one in sorted(found, key=lambda pair: pair[0].score)[:LISTED_REGIONS]
    ]
    columns = [("image", "pixel"), ("label", "class"), ("network", "class"), ("at", "text")]
    columns += [("region", "share"), ("image's score", "share")]
    text = (
        "Regions of one label by the mean probability that the network gives to it, and the score of their image, the "
        "softmin of that probability (Lad and Mueller, 2023), in percent; the lowest first."
    )
    yield Section("Labels that look wrong", text if rows else "No region looks wrong.", columns, rows)


def image_section(images: Sequence[ImageScore]) -> Section:
    """The images by rising mIoU."""
    in_order = sorted(images, key=lambda image: (image.miou is None, image.miou))
    rows = [({"image": image.name}, image.miou) for image in in_order[:LISTED_IMAGES]]
    more = len(in_order) - len(rows)
    text = f"The lowest mIoU first{f'; {more} more are left out' if more else ''}. Links open the inspector."
    return Section("Images", text, [("image", "pixel"), ("mIoU [%]", "share")], rows)


def run_section(what: Mapping, made: Mapping, config: ConfigDict, folder: Path) -> Section:
    """Run, data and versions, and the config where it differs from its default or from training."""
    saved, default = workdir.read_config(folder) or config, described.published(config.name)
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    facts = [
        ("run", folder.name),
        ("data", f"{config.data.name}, split {what['split']}, digest {what['data']['digest'][:12]}"),
        ("step", str(what["step"])),
        ("versions", versions),
        ("devices", made.get("devices", "-")),  # earlier versions did not save them
    ]
    for key, usual, then in workdir.differences(default or saved, saved):
        facts.append((key, f"{then!r}; default of {config.name}: {usual!r}"))
    for key, then, here in workdir.differences(saved, config):
        facts.append((key, f"{here!r} here, {then!r} in training"))
    values = described.leaves(config.to_dict()).items()
    others = [(key, repr(value)) for key, value in values if key not in dict(facts)]
    return Section("What was run", facts=facts, folded=others)
