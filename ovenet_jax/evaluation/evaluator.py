"""Runs a network over the evaluation split with the config's test protocol."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial, reduce
from threading import Event
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.devices import memory, parallel
from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.inference import Inference, Segmentation, on_canvases
from ovenet_jax.evaluation.results import Evaluation, ImageScore, merged
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.predictions import in_order
from ovenet_jax.supervision.losses import pixel_losses
from ovenet_jax.supervision.measures import class_scores, confusion_matrix
from ovenet_jax.supervision.task import Task, task_of

PENDING = 2  # batches whose results are not fetched yet, so that the devices work ahead


class Batch(NamedTuple):
    """Samples and the network's output for them.

    class_maps, label: uint8 [B, H, W]; label is IGNORE outside the images. network_label: the label at the network's
    resolution, uint8 [B, h, w]. grids: the position of the network's pixels in each image.
    """

    samples: list[dict]
    segmentation: Segmentation
    class_maps: dict[str, jax.Array]
    label: jax.Array
    network_label: jax.Array
    grids: list[Grid]


class Observer(Protocol):
    """A measurement made during an evaluation, batch by batch."""

    def measure(self, batch: Batch, /) -> Any:
        """Starts the computation on the devices."""

    def found(self, samples: list[dict], measured: Any, /) -> Evaluation:
        """Turns `measured`, now fetched, into an evaluation of these samples."""


class Evaluator:
    """Runs networks of one graphdef over the evaluation split; compiles once, however often it runs.

    Process i of n evaluates images i, i + n, ... independently; the results are summed at the end.

    classes: the network's class table, if it may differ from the data set's. answer_only: see `Inference`.
    """

    def __init__(
        self, config: ConfigDict, graphdef: nnx.GraphDef, classes: Labels | None = None, answer_only: bool = False
    ):
        self.config = config
        self.task = task_of(config, classes)
        self.source = self.task.open_evaluation()
        self.inference = Inference.from_config(config, graphdef, self.task.classes, answer_only)
        self._scores = Scores(config, self.task)
        self._class_maps = jax.jit(partial(jax.tree.map, self.task.class_map))
        self.inference.programs += [self._class_maps, self._scores.count, _losses]
        spread = np.linspace(0, len(self.source) - 1, config.eval.panels, dtype=int)
        self.shown = sorted(set(spread.tolist()))  # the images with panels

    @memory.enough_memory(memory.EVALUATION_MEMORY)
    def run(
        self, params: Arrays, statistics: Arrays, interrupted: Event | None = None, observers: Sequence[Observer] = ()
    ) -> Evaluation | None:
        """Evaluates the network with these replicated arrays on the whole split; None if interrupted."""
        observers = [self._scores, *observers]
        total, pending = Evaluation(), deque[tuple[list[dict], list]]()

        def fetched() -> Evaluation:
            samples, measured = pending.popleft()
            pairs = zip(observers, jax.device_get(measured), strict=True)
            return reduce(Evaluation.plus, [one.found(samples, values) for one, values in pairs], total)

        mine = range(jax.process_index(), len(self.source), jax.process_count())
        with self.samples(mine, self.config.data.workers) as read:
            title = f"evaluating {self.config.data.eval_split}"
            bar = tqdm(read, title, len(mine), unit=" images", mininterval=1, leave=False)
            for batch in self.batches(bar, params, statistics):
                if interrupted and interrupted.is_set():
                    break
                pending.append((batch.samples, [one.measure(batch) for one in observers]))
                if len(pending) > PENDING:
                    total = fetched()
        while pending:
            total = fetched()
        complete = not (interrupted and interrupted.is_set())
        parts = parallel.gather({"complete": complete, **total._asdict()})
        if not all(part["complete"] for part in parts):
            return None
        return merged(map(Evaluation.from_json, parts), images=len(self.source))

    def samples(self, indices: Sequence[int], workers: int = 0) -> AbstractContextManager[Iterator[dict]]:
        """A context manager over the samples at `indices` of the split."""
        short_side = self.config.eval.short_side
        return pipeline.samples(self.source, indices, short_side=short_side, workers=workers)

    def batches(
        self, samples: Iterable[dict], params: Arrays, statistics: Arrays, warns: bool = True
    ) -> Iterator[Batch]:
        """Samples of the split in batches, with the network's output; `warns` as `Inference.over`."""
        for of_batch, segmentation in self.inference.over(samples, *self.inference.stored(params, statistics), warns):
            labels = [sample["label"] for sample in of_batch]
            grids = [Grid.of(segmentation, label.shape, self.config.model.align_corners) for label in labels]
            small = [grid.read(label) for grid, label in zip(grids, labels, strict=True)]
            pairs = (labels, segmentation.prediction), (small, segmentation.maps[segmentation.answer])
            filled = [on_canvases(x, scores.shape[:3], IGNORE) for x, scores in pairs]
            label, network_label = jax.device_put(filled, segmentation.prediction.sharding)
            class_maps = self._class_maps(segmentation.scores)
            yield Batch(of_batch, segmentation, class_maps, label, network_label, grids)


class Scores:
    """An `Observer` of confusion matrices, the score of each image, and `Evaluation.losses`: the cross entropy of each
    prediction with the label at the network's resolution, without OHEM, RMI and auxiliary scores.

    It is weighted by the task's class weights, with config.loss.enet_weights those of the tested data; SegFix has none.
    """

    def __init__(self, config: ConfigDict, task: Task):
        self.count = jax.jit(jax.vmap(partial(confusion_matrix, num_classes=config.model.num_classes)))
        self._task = task

    def measure(self, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        counts = {name: self.count(batch.label, x) for name, x in batch.class_maps.items()}
        return counts, _losses(batch.segmentation, batch.network_label, task=self._task)

    def found(self, samples: list[dict], measured: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]) -> Evaluation:
        counts, losses = measured
        total = Evaluation(sums={f"loss {name}": np.float64(x).sum(0) for name, x in losses.items()})
        for row, sample in enumerate(samples):
            matrices = {name: x[row].astype(np.int64) for name, x in in_order(counts).items()}
            *_, answer = matrices.values()
            score = ImageScore(int(sample["index"]), sample["name"], class_scores(answer)["miou_present"])
            total = total.plus(Evaluation({sample["group"]: matrices}, [score]))
        return total


@partial(jax.jit, static_argnames="task")
def _losses(segmentation: Segmentation, label: jax.Array, *, task: Task) -> dict[str, jax.Array]:
    """Of each image's labelled pixels the sums of the weighted losses and of the weights, float32 [B, 2]."""

    def sums(scores: jax.Array) -> jax.Array:
        shares = jnp.maximum(task.probabilities(scores, segmentation.logits), jnp.finfo(jnp.float32).tiny)
        loss, weight, _ = pixel_losses(jnp.log(shares), label, task.class_weights or None, align_corners=True)
        return jnp.stack([loss.sum((1, 2)), weight.sum((1, 2))], axis=-1)

    return jax.tree.map(sums, segmentation.maps)
