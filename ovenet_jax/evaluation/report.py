"""Writes and reads the report of an evaluation: table, JSON, confusion matrix and panels."""

import itertools
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np

from ovenet_jax import errors, files, tables
from ovenet_jax.data.image_files import write_picture
from ovenet_jax.devices import parallel
from ovenet_jax.evaluation.confusion import confusion_picture
from ovenet_jax.evaluation.results import Evaluation
from ovenet_jax.models.predictions import TITLES
from ovenet_jax.supervision.measures import MEANS, class_scores
from ovenet_jax.supervision.task import Task

VERSIONS = ("jax", "jaxlib", "flax", "numpy")
SHOWN = ("panels", "worst")  # keys of config.eval that choose pictures


def new_folder(parent: Path, name: str, what: Mapping) -> Path:
    """Makes `parent`/`name`, with a number appended if that holds the report of another evaluation than `what`."""
    numbered = (parent / f"{name}_{number}" for number in itertools.count(2))
    folder = next(f for f in itertools.chain([parent / name], numbered) if _may_hold(f, what))
    files.make_folder(folder)
    return folder


def _may_hold(folder: Path, what: Mapping) -> bool:
    """Whether `folder` has no report yet, or that of the evaluation `what`, with whatever pictures; a damaged report is
    left alone. Reports of earlier versions also have keys of config.eval that have no effect."""
    file = folder / "report.json"
    if not file.exists():
        return True
    try:
        saved = files.read_json(file, {"what": {"eval": dict}}, "move it away")["what"]
    except errors.UserError:
        return False
    kept = what["eval"].keys() - SHOWN
    there, here = ({**x, "eval": {key: x["eval"].get(key) for key in kept}} for x in (saved, what))
    return there == files.finite(here)


def write(
    evaluation: Evaluation, task: Task, what: Mapping, panels: Mapping[str, Mapping[str, np.ndarray]], folder: Path
) -> None:
    """Prints the table; writes report.json, confusion.png and one folder for each kind of panels.

    what: split, data, step and settings, JSON-like.
    """
    matrices = evaluation.matrices
    losses = evaluation.losses
    print(table(matrices, task, losses))
    if evaluation.miou is None:
        print("No pixel is labelled: there is nothing to compare with.")
    content = {"what": what, "images": len(evaluation.images), "answer": evaluation.answer, "made": evaluation.made}
    content |= {name: result | {"loss": losses.get(name)} for name, result in _results(matrices, task).items()}
    if len(evaluation.groups) > 1:
        print(group_table(evaluation.groups))
        content["groups"] = {key: _results(group, task) for key, group in evaluation.groups.items()}
    content["scores"] = evaluation.images
    content["suspects"] = evaluation.suspects
    content["curves"] = {name: curve.tolist() for name, curve in evaluation.sums.items()}
    worst = evaluation.worst(what["eval"]["worst"])
    content["worst"] = [{"name": image.name, "miou": image.miou} for image in worst]
    if worst:
        print("Lowest mIoU: " + ", ".join(f"{image.name} {tables.percent(image.miou)}" for image in worst[:3]))

    files.write_json(folder / "report.json", content)  # first: --mode=report can make the pictures again
    for kind, pictures in panels.items():
        files.clear(folder / kind)
        write_panels(pictures, folder / kind)
    write_picture(folder / "confusion.png", confusion_picture(matrices[evaluation.answer], task.classes))
    print(f"Written: {folder}")


def read(folder: Path) -> Evaluation | None:
    """The evaluation whose report is in `folder`. None if there is no report, or (with a warning) a damaged one."""
    file = folder / "report.json"
    if not file.exists():
        return None
    try:
        content = files.parse_json(file.read_bytes(), {"what": dict})
        return _as_evaluation(content) if "answer" in content else None  # not in reports of earlier versions
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        parallel.say(f"Warning: {file} is damaged ({error!r}); it will be replaced.")
        return None


def _as_evaluation(content: dict) -> Evaluation:
    groups = content.get("groups") or {"": {name: content[name] for name in TITLES if name in content}}
    matrices = {
        group: {name: result["confusion"] for name, result in results.items()} for group, results in groups.items()
    }
    known = {"groups": matrices, "images": content["scores"], "sums": content["curves"]}
    return Evaluation.from_json(content | known)


def made_now() -> dict:
    """Date, versions and devices of an evaluation."""
    versions = {"Python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS}
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "versions": versions, "devices": parallel.devices_in_words()}


def write_panels(panels: Mapping[str, np.ndarray], folder: Path) -> None:
    """One PNG per panel, named after its image."""
    for name, picture in panels.items():
        write_picture(folder / f"{name}.png", picture)


def table(matrices: Mapping[str, np.ndarray], task: Task, losses: Mapping[str, float]) -> str:
    """IoU per class, and means, in percent, and the loss: a column for each prediction."""
    results = [task.scores_of(matrix) for matrix in matrices.values()]
    rows: list[list[str] | None] = [["IoU [%]", *(TITLES[name] for name in matrices)]]
    shown = [r["iou"] if r["miou"] is not None else [None] * len(task.classes.names) for r in results]
    rows += [[name, *(tables.percent(iou[i]) for iou in shown)] for i, name in enumerate(task.classes.names)]
    rows += [None]
    rows += [[title, *(tables.percent(r[key]) for r in results)] for key, title in MEANS.items() if key in results[0]]
    rows += [["loss (cross entropy)", *(f"{losses[name]:.4f}" for name in matrices)]] if losses else []
    return tables.aligned(rows, width=14)


def group_table(groups: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """mIoU over all classes of each group of images, in percent."""
    predictions = next(iter(groups.values()))
    rows = [["mIoU [%]", *(TITLES[name] for name in predictions)]]
    rows += [[key, *(tables.percent(class_scores(m)["miou"]) for m in group.values())] for key, group in groups.items()]
    return tables.aligned(rows, width=14)


def _results(matrices: Mapping[str, np.ndarray], task: Task) -> dict:
    """Scores and counts of each prediction, by class name; can be written as JSON."""
    content = {}
    for name, matrix in matrices.items():
        result, names = task.scores_of(matrix), task.classes.names
        result |= {key: dict(zip(names, result[key].tolist(), strict=True)) for key in ("iou", "accuracy")}
        content[name] = result | {"confusion": matrix.tolist()}
    return content
