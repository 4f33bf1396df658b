"""Scores of a trained model over a split: confusion matrices, the table, its JSON and pictures."""

import json
from collections import deque
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax import parallel, visualize, workdir
from ovenet_jax.checkpoint import Checkpoints
from ovenet_jax.data import pipeline
from ovenet_jax.errors import UserError
from ovenet_jax.inference import TITLES, Normalisation, Segmentation, segment
from ovenet_jax.metrics import ConfusionMatrix, scores
from ovenet_jax.models import parameters
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.zoo import create_model


class Evaluation(NamedTuple):
    """Confusion matrices int64 [K, K] by prediction in the order of TITLES, and panels of a few images by name."""

    matrices: dict[str, np.ndarray]
    panels: dict[str, np.ndarray]

    @property
    def miou(self) -> float:
        """Of the model's answer."""
        return scores(list(self.matrices.values())[-1])["miou"]


def evaluate(config: ConfigDict, folder: Path) -> None:
    """Restores the best checkpoint of the run in `folder`, evaluates it, prints the table and saves the report.

    Raises:
      UserError: the folder holds no run or no checkpoint, or one of another model.
    """
    workdir.note_differences(folder, config)
    pipeline.prepare(config.data)
    mesh = parallel.create_mesh()
    graphdef, params, statistics = parameters.split(create_model(config.model))
    evaluator = Evaluator(config, graphdef, mesh)
    evaluate_best(evaluator, folder, params, statistics)


def evaluate_best(evaluator: "Evaluator", folder: Path, params: Arrays, statistics: Arrays) -> None:
    """Restores the run's best checkpoint, shaped like these arrays, and reports on it."""
    with closing(Checkpoints(folder / "checkpoints", read_only=True)) as checkpoints:
        step = checkpoints.best_step()
        arrays = jax.device_put((params, statistics), parallel.replicated(evaluator.mesh))
        arrays = checkpoints.restore_model(step, *arrays)
    print(f"Evaluating step {step} of {folder} on {evaluator.split}: {len(evaluator.source)} images.")
    evaluation = evaluator.run(*arrays)
    if jax.process_index() == 0:
        report(evaluation, evaluator, step, folder)


class Evaluator:
    """Runs a model of one structure over the evaluation split; compiles once, however often it runs."""

    def __init__(self, config: ConfigDict, graphdef: nnx.GraphDef, mesh: Mesh):
        parallel.check_divisible(mesh, config.eval.batch_size, "config.eval.batch_size")
        self.mesh = mesh
        self.split = config.data.eval_split
        self.source = pipeline.open_split(config.data, self.split)
        self.classes = self.source.classes
        if len(self.classes.names) != config.model.num_classes:
            raise UserError(
                f"config.model.num_classes={config.model.num_classes}, but {config.data.name} has "
                f"{len(self.classes.names)} classes; set --config.model.num_classes={len(self.classes.names)}."
            )
        self._settings = config.eval
        self._workers = config.data.workers
        self._evaluate_batch = jax.jit(
            partial(
                _evaluate_batch,
                graphdef=graphdef,
                normalisation=Normalisation(),
                num_classes=config.model.num_classes,
            ),
            out_shardings=(parallel.replicated(mesh), parallel.batch_sharded(mesh)),
        )

    def run(self, params: Arrays, statistics: Arrays) -> Evaluation:
        """Evaluates replicated arrays over the whole split; every image counts once."""
        matrices: dict[str, np.ndarray] = {}
        panels: dict[str, np.ndarray] = {}
        shown = set(np.linspace(0, len(self.source) - 1, self._settings.panels, dtype=int))
        pending: deque = deque()  # the device works ahead while older counts are fetched

        def finish(batch: dict, counts: dict[str, ConfusionMatrix], segmentation: Segmentation) -> None:
            for name, matrix in counts.items():
                matrices[name] = (
                    matrices.get(name, 0) + matrix.compute()
                )  # int64: 2^31 pixels are soon reached
            for row, index in enumerate(batch["index"]):
                if int(index) in shown:
                    panels[self.source[int(index)]["name"]] = self._panel(batch, segmentation, row)

        with pipeline.eval_batches(
            self.source,
            size=tuple(self._settings.size),
            batch_size=self._settings.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            workers=self._workers,
        ) as batches:
            for batch in batches:
                arrays = parallel.to_global(self.mesh, {k: batch[k] for k in ("image", "label")})
                pending.append(
                    (batch, *self._evaluate_batch(params, statistics, arrays["image"], arrays["label"]))
                )
                if len(pending) > 2:
                    finish(*pending.popleft())
        while pending:
            finish(*pending.popleft())
        return Evaluation({name: matrices[name] for name in TITLES if name in matrices}, panels)

    def _panel(self, batch: dict, segmentation: Segmentation, row: int) -> np.ndarray:
        def local(x: jax.Array | None) -> np.ndarray | None:
            return None if x is None else parallel.local_rows(x)[row]

        maps = {TITLES[k]: local(segmentation.class_maps[k]) for k in TITLES if k in segmentation.class_maps}
        return visualize.panel(
            batch["image"][row],
            batch["label"][row],
            maps,
            local(segmentation.offset),
            local(segmentation.confidence),
            self.classes,
        )


def _evaluate_batch(
    params: Arrays,
    statistics: Arrays,
    image: jax.Array,
    label: jax.Array,
    *,
    graphdef: nnx.GraphDef,
    normalisation: Normalisation,
    num_classes: int,
) -> tuple[dict[str, ConfusionMatrix], Segmentation]:
    segmentation = segment(graphdef, params, statistics, image, normalisation=normalisation)
    counts = {
        name: ConfusionMatrix.from_model_output(label=label, class_map=class_map, num_classes=num_classes)
        for name, class_map in segmentation.class_maps.items()
    }
    return counts, segmentation


def report(evaluation: Evaluation, evaluator: Evaluator, step: int, folder: Path) -> None:
    """Prints the table; writes evaluation/<split>.json, its confusion matrix and panels under `folder`."""
    print(table(evaluation.matrices, evaluator.classes.names))
    target = folder / "evaluation"
    target.mkdir(parents=True, exist_ok=True)
    content = {"split": evaluator.split, "images": len(evaluator.source), "step": step}
    for name, matrix in evaluation.matrices.items():
        result = scores(matrix)
        per_class = {
            key: dict(zip(evaluator.classes.names, result.pop(key).tolist(), strict=True))
            for key in ("iou", "accuracy")
        }
        content[name] = {**result, **per_class, "confusion": matrix.tolist()}
    (target / f"{evaluator.split}.json").write_text(json.dumps(content, indent=2) + "\n")
    answer = list(evaluation.matrices.values())[-1]
    visualize.write_png(
        target / f"{evaluator.split}_confusion.png", visualize.confusion_picture(answer, evaluator.classes)
    )
    write_panels(evaluation.panels, target / f"{evaluator.split}_panels")
    print(f"Written: {target}")


def write_panels(panels: dict[str, np.ndarray], folder: Path) -> None:
    """One PNG per panel, named after its image."""
    for name, picture in panels.items():
        visualize.write_png(folder / f"{Path(name).name}.png", picture)


def table(matrices: dict[str, np.ndarray], names: tuple[str, ...]) -> str:
    """IoU per class, mIoU and accuracies of each prediction side by side, in percent."""
    results = [scores(matrix) for matrix in matrices.values()]
    width = max(map(len, (*names, "pixel accuracy")))

    def line(title: str, cells: list[str]) -> str:
        return title.ljust(width) + "".join(cell.rjust(14) for cell in cells)

    rows = [line("IoU [%]", [TITLES[name] for name in matrices])]
    rows += [line(name, [f"{100 * r['iou'][i]:.2f}" for r in results]) for i, name in enumerate(names)]
    rows.append("-" * len(rows[0]))
    for title, key in (
        ("mIoU", "miou"),
        ("pixel accuracy", "pixel_accuracy"),
        ("mean accuracy", "mean_accuracy"),
    ):
        rows.append(line(title, [f"{100 * r[key]:.2f}" for r in results]))
    return "\n".join(rows)
