"""A network over the evaluation split, under the config's test protocol."""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from threading import Event

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax import files, supervision
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.devices import parallel
from ovenet_jax.devices.memory import EVALUATION_MEMORY, enough_memory
from ovenet_jax.evaluation import report
from ovenet_jax.evaluation.inference import Inference, on_canvas
from ovenet_jax.evaluation.metrics import ConfusionMatrix, Evaluation, ImageScore, scores
from ovenet_jax.evaluation.panel import panel
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.predictions import TITLES, class_maps
from ovenet_jax.run.network import restore_network

PENDING = 2  # batches whose counts are not fetched yet: the device works ahead


class Evaluator:
    """Runs a network of one structure over the evaluation split; compiles once, however often it runs.

    Each process takes every so-manieth image through its own devices, in its own time; at the end all add up.
    """

    def __init__(self, config: ConfigDict, graphdef: nnx.GraphDef):
        self.split = config.data.eval_split
        self.source = supervision.open_evaluation(config)
        self.inference = Inference.from_config(config, graphdef, self.source.classes)
        self.protocol = self.inference.protocol
        spread = np.linspace(0, len(self.source) - 1, config.eval.panels, dtype=int)
        self.shown = sorted(set(spread.tolist()))
        self._short_side = config.eval.short_side
        self._workers = config.data.workers
        self._count = jax.jit(partial(_count, num_classes=config.model.num_classes))

    @enough_memory(EVALUATION_MEMORY)
    def run(self, params: Arrays, statistics: Arrays, interrupted: Event | None = None) -> Evaluation | None:
        """Evaluates replicated arrays over the whole split, every image once; None if interrupted meanwhile."""
        params, statistics = parallel.to_local(self.inference.mesh, (params, statistics))
        total = _Total()
        pending: deque = deque()
        mine = range(jax.process_index(), len(self.source), jax.process_count())
        with self._samples(mine, self._workers) as samples:
            bar = tqdm(
                samples, f"evaluating {self.split}", len(mine), unit=" images", mininterval=1, leave=False
            )
            for batch in self.inference.in_batches(bar, itemgetter("image")):
                if interrupted and interrupted.is_set():
                    break
                segmentation = self.inference(params, statistics, [sample["image"] for sample in batch])
                label = self._labels_like(segmentation.answer, batch)
                pending.append((batch, self._count(segmentation.scores, label)))
                if len(pending) > PENDING:
                    total.add(*pending.popleft())
        for batch, counts in pending:
            total.add(batch, counts)
        complete = not (interrupted and interrupted.is_set())
        totals = parallel.gather({"complete": complete, **total.as_json()})
        if not all(total["complete"] for total in totals):
            return None
        return merged(totals, images=len(self.source))

    def panels(self, params: Arrays, statistics: Arrays, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Panels of some images of the split by image name, in the order of `indices`; on this process alone."""
        params, statistics = parallel.to_local(self.inference.mesh, (params, statistics))
        pictures = {}
        with self._samples(indices, workers=0) as samples:
            for batch in self.inference.in_batches(samples, itemgetter("image")):
                segmentation = self.inference(params, statistics, [sample["image"] for sample in batch])
                maps = jax.device_get(class_maps(segmentation.scores))
                offset, confidence = jax.device_get((segmentation.offset, segmentation.confidence))
                for row, sample in enumerate(batch):
                    height, width = sample["label"].shape
                    pictures[sample["index"]] = (
                        sample["name"],
                        panel(
                            sample["image"],
                            sample["label"],
                            {TITLES[name]: maps[name][row, :height, :width] for name in segmentation.scores},
                            None if offset is None else offset[row],
                            None if confidence is None else confidence[row],
                            self.source.classes,
                        ),
                    )
        return dict(pictures[index] for index in indices)

    def _samples(self, indices: Sequence[int], workers: int):
        return pipeline.samples(self.source, indices, short_side=self._short_side, workers=workers)

    def _labels_like(self, answer: jax.Array, batch: list[dict]) -> jax.Array:
        """The batch's labels [B, H, W] beside its scores [B, H, W, K]; ignored everywhere outside the images."""
        rows, *canvas, _ = answer.shape
        labels = np.full((rows, *canvas), IGNORE, np.uint8)
        for row, sample in enumerate(batch):
            labels[row] = on_canvas(sample["label"], canvas, IGNORE)
        return jax.device_put(labels, answer.sharding)


def evaluate_checkpoint(
    evaluator: Evaluator, config: ConfigDict, folder: Path, interrupted: Event | None = None
) -> bool:
    """Evaluates the checkpoint of `folder` that config.eval.checkpoint names, and reports on it, unless interrupted.

    Returns whether it came to its end.
    """
    network = restore_network(config.model, folder, config.eval.checkpoint)
    arrays = network.params, network.statistics
    what = {"split": evaluator.split, "step": network.step, "eval": config.eval.to_dict()}
    with files.writing(folder, "--workdir"):
        target = report.new_folder(folder / "evaluation", evaluator.split + evaluator.protocol.suffix, what)
    if jax.process_index() == 0:
        images = f"{len(evaluator.source)} images, {evaluator.protocol}"
        print(f"Evaluating step {network.step} of {folder} on {evaluator.split}: {images}.")
    evaluation = evaluator.run(*arrays, interrupted)
    if evaluation is None:
        return False
    if jax.process_index() == 0:
        worst = evaluation.worst(config.eval.worst)
        panels = {
            "panels": evaluator.panels(*arrays, evaluator.shown),
            "worst": evaluator.panels(*arrays, [image.number for image in worst]),
        }
        with files.writing(target, "--workdir"):
            report.write(evaluation, worst, evaluator.source.classes, what, panels, target)
    return True


def _count(
    predictions: dict[str, jax.Array], label: jax.Array, *, num_classes: int
) -> dict[str, ConfusionMatrix]:
    """Confusion matrices of each image [B, K, K], by prediction."""
    count = jax.vmap(partial(ConfusionMatrix.from_model_output, num_classes=num_classes))
    maps = class_maps(predictions)
    return {name: count(label=label, class_map=class_map) for name, class_map in maps.items()}


class _Total:
    """Counts of a process so far, int64 on the host."""

    def __init__(self):
        self._groups: dict[str, dict[str, np.ndarray]] = {}
        self._images: list[ImageScore] = []

    def add(self, batch: list[dict], counts: dict[str, ConfusionMatrix]) -> None:
        in_order = {name: counts[name].compute() for name in TITLES if name in counts}
        for row, sample in enumerate(batch):
            group = self._groups.setdefault(sample["group"], {})
            for name, matrices in in_order.items():
                group[name] = group.get(name, 0) + matrices[row]
            miou = scores(list(in_order.values())[-1][row])["miou_present"]
            self._images.append(ImageScore(int(sample["index"]), sample["name"], miou))

    def as_json(self) -> dict:
        groups = {g: {name: m.tolist() for name, m in group.items()} for g, group in self._groups.items()}
        return {"groups": groups, "images": self._images}


def merged(totals: Iterable[dict], images: int) -> Evaluation:
    """The totals of all processes as one."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    found: list[ImageScore] = []
    for total in totals:
        for key, matrices in total["groups"].items():
            group = groups.setdefault(key, {})
            for name, matrix in matrices.items():
                group[name] = group.get(name, 0) + np.array(matrix, np.int64)
        found += [ImageScore(*image) for image in total["images"]]
    if sorted(image.number for image in found) != list(range(images)):
        raise RuntimeError(f"{len(found)} images were evaluated instead of {images}, each once")
    return Evaluation(dict(sorted(groups.items())), sorted(found, key=lambda image: image.number))
