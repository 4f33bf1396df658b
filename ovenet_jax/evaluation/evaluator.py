"""A network over the evaluation split, under the config's test protocol."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from threading import Event
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax import files
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.devices import parallel
from ovenet_jax.devices.memory import EVALUATION_MEMORY, enough_memory
from ovenet_jax.evaluation import report, run_page
from ovenet_jax.evaluation.curves import Curves, added, distance_bins, judge, near_boundaries
from ovenet_jax.evaluation.inference import Inference, Segmentation, on_canvas
from ovenet_jax.evaluation.inspection import RANKS, Grid, Inspected, seeds
from ovenet_jax.evaluation.metrics import ConfusionMatrix, Evaluation, ImageScore
from ovenet_jax.evaluation.panel import panel
from ovenet_jax.evaluation.protocol import Protocol
from ovenet_jax.evaluation.suspects import Suspect, as_suspect, suspect
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.predictions import TITLES, Ranking, in_order, ranking
from ovenet_jax.run.network import restore_network
from ovenet_jax.supervision.measures import class_scores
from ovenet_jax.supervision.task import Task, task_of

STRIDE = 4  # of rankings where no pass saw the whole image
PENDING = 2  # batches whose counts are not fetched yet: the device works ahead


class Seen(NamedTuple):
    """What the network says of one sample of the split.

    class_maps: uint8 [H, W] by prediction. rankings: by prediction, [h, w, ranks], and where their pixels lie. offset,
    confidence: OVeNet's, [h, w, 2] and [h, w, 1], or None. boundary: SegFix's probability of one, [h, w], or None.
    """

    sample: dict
    class_maps: dict[str, np.ndarray]
    rankings: dict[str, Ranking]
    offset: np.ndarray | None
    confidence: np.ndarray | None
    boundary: np.ndarray | None
    grid: Grid


class Measured(NamedTuple):
    """What is measured of a batch beside its confusion matrices: the curves of each image [B, n, 3].

    Where a pass saw whole images also, at the network's pixels [B, h, w], which lie on `grids`: the labels, their
    probability and the answer.
    """

    curves: dict[str, jax.Array]
    label: np.ndarray | None = None
    grids: Sequence[Grid] = ()
    belief: jax.Array | None = None
    answer: jax.Array | None = None


class Evaluator:
    """Runs a network of one structure over the evaluation split; compiles once, however often it runs.

    Process i of n takes images i, i + n, ... through its own devices, in its own time; at the end all add up.

    classes: that the network has learned, where they may be others than the data's.
    """

    def __init__(self, config: ConfigDict, graphdef: nnx.GraphDef, classes: Labels | None = None):
        self.split = config.data.eval_split
        self.task = task_of(config, classes)
        self.source = self.task.open_evaluation()
        self.task.check_test()
        self.inference = Inference.from_config(config, graphdef, self.task.classes)
        self.protocol = self.inference.protocol
        spread = np.linspace(0, len(self.source) - 1, config.eval.panels, dtype=int)
        self.shown = sorted(set(spread.tolist()))
        self._short_side = config.eval.short_side
        self._workers = config.data.workers
        self._model = config.model
        offset = config.model.get("offset", {})
        logits = offset.get("logits", True)
        count = partial(_count, class_map=self.task.class_map, num_classes=config.model.num_classes)
        self._count = jax.jit(count)
        self._ranked = jax.jit(partial(_ranked, task=self.task, logits=logits, protocol=self.protocol))
        self._curves = jax.jit(partial(near_boundaries, task=self.task))
        grid_align_corners = offset.get("grid_align_corners", True)
        self._judge = jax.jit(
            partial(judge, task=self.task, logits=logits, grid_align_corners=grid_align_corners)
        )

    @enough_memory(EVALUATION_MEMORY)
    def run(
        self, params: Arrays, statistics: Arrays, interrupted: Event | None = None, curves: bool = False
    ) -> Evaluation | None:
        """Evaluates replicated arrays over the whole split, every image once; None if interrupted meanwhile.

        With `curves` those of curves.py and suspects.py, too.
        """
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
                label = self._labels_like(segmentation.prediction, batch)
                counts = self._count(segmentation.scores, label)
                measured = self._measured(segmentation, label, batch) if curves else None
                pending.append((batch, counts, segmentation.answer, measured))
                if len(pending) > PENDING:
                    total.add(*pending.popleft())
        for waiting in pending:
            total.add(*waiting)
        complete = not (interrupted and interrupted.is_set())
        totals = parallel.gather({"complete": complete, **total.as_json()})
        if not all(total["complete"] for total in totals):
            return None
        return merged(totals, images=len(self.source))

    def seen(self, params: Arrays, statistics: Arrays, indices: Iterable[int]) -> dict[int, Seen]:
        """Some images of the split with all that the network says of them; on this process alone."""
        params, statistics = parallel.to_local(self.inference.mesh, (params, statistics))
        found = {}
        with self._samples(sorted(set(indices)), workers=0) as samples:
            for batch in self.inference.in_batches(samples, itemgetter("image")):
                segmentation = self.inference(params, statistics, [sample["image"] for sample in batch])
                class_maps = {name: self.task.class_map(x) for name, x in segmentation.scores.items()}
                maps = jax.device_get(class_maps)
                rankings, boundary = jax.device_get(self._ranked(segmentation))
                offset, confidence = jax.device_get((segmentation.offset, segmentation.confidence))
                for row, sample in enumerate(batch):
                    height, width = size = sample["label"].shape
                    part = _part(row, size if segmentation.maps is None else None)
                    found[sample["index"]] = Seen(
                        sample,
                        {name: maps[name][row, :height, :width] for name in segmentation.scores},
                        {name: Ranking(*map(part, rankings[name])) for name in segmentation.scores},
                        None if offset is None else offset[row],
                        None if confidence is None else confidence[row],
                        None if boundary is None else part(boundary),
                        self._grid(sample["label"].shape, segmentation),
                    )
        return found

    def panels(self, params: Arrays, statistics: Arrays, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Panels of some images of the split by image name; on this process alone."""
        seen = self.seen(params, statistics, indices)
        return {seen[index].sample["name"]: self.panel(seen[index]) for index in indices}

    def panel(self, seen: Seen) -> np.ndarray:
        """A picture of it."""
        maps = {TITLES[name]: class_map for name, class_map in seen.class_maps.items()}
        sample, classes = seen.sample, self.task.classes
        return panel(sample["image"], sample["label"], maps, seen.offset, seen.confidence, classes)

    def inspected(self, seen: Seen, score: float | None) -> Inspected:
        """It for the seed inspector."""
        return Inspected(
            seen.sample["name"],
            seen.sample["image"],
            seen.sample["label"],
            seen.rankings,
            seen.grid,
            None if seen.offset is None else seeds(seen.offset, self._model.offset.grid_align_corners),
            seen.boundary if seen.confidence is None else seen.confidence[..., 0],
            score,
        )

    def _grid(self, size: tuple[int, int], segmentation: Segmentation) -> Grid:
        """Where the pixels of its rankings lie in an image of `size` (H, W)."""
        if segmentation.maps is None:
            return Grid((0.0, 0.0), (float(STRIDE), float(STRIDE)))
        _, height, width, _ = next(iter(segmentation.maps.values())).shape
        return Grid.over(size, (height, width), self._model.align_corners)

    def _measured(self, segmentation: Segmentation, label: jax.Array, batch: list[dict]) -> Measured:
        bins = np.zeros(label.shape, np.uint8)
        for row, sample in enumerate(batch):
            bins[row] = on_canvas(distance_bins(sample["label"]), label.shape[1:], 0)
        put = partial(jax.device_put, device=label.sharding)
        if segmentation.maps is None:
            return Measured(self._curves(segmentation, label, put(bins)))
        network = next(iter(segmentation.maps.values())).shape[1:3]
        at_network = np.full((len(label), *network), IGNORE, np.uint8)
        grids = [self._grid(sample["label"].shape, segmentation) for sample in batch]
        for row, (sample, grid) in enumerate(zip(batch, grids, strict=True)):
            y, x = (grid.indices(1 - axis, network[axis], sample["label"].shape[axis]) for axis in (0, 1))
            at_network[row] = sample["label"][y][:, x]
        curves, *beliefs = self._judge(segmentation, put(at_network))
        return Measured(self._curves(segmentation, label, put(bins)) | curves, at_network, grids, *beliefs)

    def _samples(self, indices: Sequence[int], workers: int):
        return pipeline.samples(self.source, indices, short_side=self._short_side, workers=workers)

    def _labels_like(self, answer: jax.Array, batch: list[dict]) -> jax.Array:
        """The batch's labels [B, H, W] beside its scores [B, H, W, K]; ignored everywhere outside the images."""
        rows, *canvas, _ = answer.shape
        labels = np.full((rows, *canvas), IGNORE, np.uint8)
        for row, sample in enumerate(batch):
            labels[row] = on_canvas(sample["label"], canvas, IGNORE)
        return jax.device_put(labels, answer.sharding)


class Evaluated(NamedTuple):
    """A checkpoint's arrays, what of it was evaluated (split, step and settings), the report's folder, the result."""

    arrays: tuple[Arrays, Arrays]
    what: dict
    target: Path
    evaluation: Evaluation


def evaluated(
    evaluator: Evaluator,
    config: ConfigDict,
    folder: Path,
    interrupted: Event | None = None,
    anew: bool = True,
) -> Evaluated | None:
    """Evaluates the checkpoint of `folder` that config.eval.checkpoint names; None if interrupted meanwhile.

    anew: also where there is a report on just that; else its numbers are taken from there.
    """
    network = restore_network(config.model, folder, config.eval.checkpoint)
    arrays = network.params, network.statistics
    what = {
        "split": evaluator.split,
        "step": network.step,
        "eval": config.eval.to_dict(),
        "data": evaluator.source.identity,
    }
    with files.writing(folder, "--workdir"):
        target = report.new_folder(folder / "evaluation", evaluator.split + evaluator.protocol.suffix, what)
    evaluation = None if anew else report.read(target)
    if not all(parallel.gather(evaluation is not None)):
        images = f"{len(evaluator.source)} images, {evaluator.protocol}"
        parallel.say(f"Evaluating step {network.step} of {folder} on {evaluator.split}: {images}.")
        evaluation = evaluator.run(*arrays, interrupted, curves=True)
    return None if evaluation is None else Evaluated(arrays, what, target, evaluation)


def evaluate_checkpoint(
    evaluator: Evaluator,
    config: ConfigDict,
    folder: Path,
    interrupted: Event | None = None,
    anew: bool = True,
) -> bool:
    """Evaluates as `evaluated`, and reports on it, unless interrupted. Returns whether it came to its end."""
    result = evaluated(evaluator, config, folder, interrupted, anew)
    if result is None:
        return False
    if jax.process_index() == 0:
        arrays, what, target, evaluation = result
        worst = evaluation.worst(config.eval.worst)
        groups = {"panels": evaluator.shown, "worst": [image.number for image in worst]}
        seen = evaluator.seen(*arrays, [index for group in groups.values() for index in group])
        panels = {
            kind: {seen[index].sample["name"]: evaluator.panel(seen[index]) for index in group}
            for kind, group in groups.items()
        }
        mious = {image.number: image.miou for image in evaluation.images}
        inspected = [evaluator.inspected(one, mious[index]) for index, one in sorted(seen.items())]
        with files.writing(target, "--workdir"):
            report.write(evaluation, worst, evaluator.task, what, panels, target)
            run_page.write(evaluation, inspected, evaluator.task, what, config, folder, target)
    return True


def _count(
    predictions: dict[str, jax.Array],
    label: jax.Array,
    *,
    class_map: Callable[[jax.Array], jax.Array],
    num_classes: int,
) -> dict[str, ConfusionMatrix]:
    """Confusion matrices of each image [B, K, K], by prediction."""
    count = jax.vmap(partial(ConfusionMatrix.from_model_output, num_classes=num_classes))
    return {name: count(label=label, class_map=class_map(x)) for name, x in predictions.items()}


def _ranked(
    segmentation: Segmentation, *, task: Task, logits: bool, protocol: Protocol
) -> tuple[dict[str, Ranking], jax.Array | None]:
    """The most probable classes, and a SegFix's probability of a boundary.

    At the network's pixels or, where no pass saw the whole image, of summed scores at every STRIDE-th of the image's.
    """
    maps = segmentation.maps
    if maps is None:
        every = slice(None, None, STRIDE)
        maps = {name: x[:, every, every] for name, x in segmentation.scores.items()}
        logits = protocol.sum == "logits"
        if logits:
            maps = {name: x / len(protocol.scales) for name, x in maps.items()}
        else:
            maps = {name: x / x.sum(-1, keepdims=True) for name, x in maps.items()}
    rankings = {
        name: ranking(task.probabilities(x, logits), task.class_map(x), RANKS) for name, x in maps.items()
    }
    return rankings, task.boundary(maps[segmentation.answer])


def _part(row: int, size: tuple[int, int] | None) -> Callable[[np.ndarray], np.ndarray]:
    """What takes one image out of a batch's maps: all of its map, or what its `size` (H, W) covers at the top left."""
    rows, columns = (None, None) if size is None else (-(-side // STRIDE) for side in size)
    return lambda x: x[row, :rows, :columns]


class _Total:
    """Counts of a process so far, int64 on the host."""

    def __init__(self):
        self._groups: dict[str, dict[str, np.ndarray]] = {}
        self._images: list[ImageScore] = []
        self._answer = ""  # before the first image
        self._curves: Curves = {}
        self._suspects: list[Suspect] = []

    def add(
        self,
        batch: list[dict],
        counts: dict[str, ConfusionMatrix],
        answer: str,
        measured: Measured | None,
    ) -> None:
        self._answer = answer
        if measured is not None:
            self._add_measured(batch, jax.device_get(measured))
        by_name = {name: count.compute() for name, count in in_order(counts).items()}
        for row, sample in enumerate(batch):
            group = self._groups.setdefault(sample["group"], {})
            for name, matrices in by_name.items():
                group[name] = group.get(name, 0) + matrices[row]
            miou = class_scores(by_name[answer][row])["miou_present"]
            self._images.append(ImageScore(int(sample["index"]), sample["name"], miou))

    def _add_measured(self, batch: list[dict], measured: Measured) -> None:
        self._curves = added(self._curves, {key: np.float64(x).sum(0) for key, x in measured.curves.items()})
        if not any(key.startswith("distance") for key in measured.curves):
            return  # classes that are no regions of the image
        label, grids, belief, answer = measured[1:]
        if label is None or belief is None or answer is None:
            return
        for row, (sample, grid) in enumerate(zip(batch, grids, strict=True)):
            maps = label[row], np.asarray(belief[row]), np.asarray(answer[row])
            found = suspect(int(sample["index"]), *maps, grid)
            self._suspects += [] if found is None else [found]

    def as_json(self) -> dict:
        groups = {g: {name: m.tolist() for name, m in group.items()} for g, group in self._groups.items()}
        return {
            "groups": groups,
            "images": self._images,
            "answer": self._answer,
            "curves": {key: x.tolist() for key, x in self._curves.items()},
            "suspects": self._suspects,
        }


def merged(totals: Sequence[dict], images: int) -> Evaluation:
    """The totals of all processes as one."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    found: list[ImageScore] = []
    curves: Curves = {}
    suspects: list[Suspect] = []
    for total in totals:
        curves = added(curves, {key: np.array(x) for key, x in total["curves"].items()})
        for key, matrices in total["groups"].items():
            group = groups.setdefault(key, {})
            for name, matrix in matrices.items():
                group[name] = group.get(name, 0) + np.array(matrix, np.int64)
        found += [ImageScore(*image) for image in total["images"]]
        suspects += [as_suspect(one) for one in total["suspects"]]
    if sorted(image.number for image in found) != list(range(images)):
        raise RuntimeError(f"{len(found)} images were evaluated instead of {images}, each once")
    images_in_order = sorted(found, key=lambda image: image.number)
    answer = max(total["answer"] for total in totals)  # "" of a process without an image
    suspects.sort(key=itemgetter(0))
    return Evaluation(dict(sorted(groups.items())), images_in_order, answer, curves, suspects)
