"""Label maps refined where another network's offsets point to, on the device; and what that is worth on a split.

The offsets are a SegFix's, or an OVeNet's where it is sure of its seeds. Nothing is written but a report;
`python -m ovenet_jax.segfix.refine` does the same to files.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax import files
from ovenet_jax.data import pipeline
from ovenet_jax.devices import parallel
from ovenet_jax.devices.memory import EVALUATION_MEMORY, enough_memory
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation import report
from ovenet_jax.evaluation.inference import Inference
from ovenet_jax.models.sampling import sample
from ovenet_jax.run import identity, workdir
from ovenet_jax.run.network import Network, restore_network
from ovenet_jax.segfix.refine import SEMANTIC_SCALE
from ovenet_jax.segfix.scores import COLUMNS, Scores, means, no_scores, scores_of, table
from ovenet_jax.segfix.shift import seeds_where_sure
from ovenet_jax.supervision.task import Task, task_of


@jax.jit
def refined_maps(label: jax.Array, offset: jax.Array, size: jax.Array) -> jax.Array:
    """`label` [B, H, W] read at `offset` [B, H, W, 2], (row, column) in pixels: uint8 [B, H, W].

    Each image lies at the top left and has its `size` [B, 2]; positions beyond it are at its edge. Numbers are
    interpolated and rounded, as segfix/shift.py does it.
    """
    height, width = label.shape[1:]
    own = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
    pixel = jnp.clip(own + offset, 0, size[:, None, None, :] - 1)
    position = pixel * (2 / np.maximum(1, (height - 1, width - 1))) - 1
    numbers = sample(label[..., None].astype(jnp.float32), position[..., ::-1])
    return jnp.round(numbers[..., 0]).astype(jnp.uint8)


# ---- a split ----


@enough_memory(EVALUATION_MEMORY)
def evaluate_refined(config: ConfigDict, folder: Path) -> None:
    """Scores the class maps of the network in `folder` before and after refinement by that in config.eval.segfix, the
    workdir of a SegFix or an OVeNet. Prints the scores of segfix/scores.py and writes them as report.json.

    Raises:
      UserError: no checkpoint, or one of another model; a network whose maps are no classes, or one without offsets,
        where there must be.
    """
    task = task_of(config, identity.classes_of(folder))
    task.check_test()
    source = task.open_evaluation()
    network = restore_network(config.model, folder, config.eval.checkpoint)
    inference = Inference.from_config(config, network.graphdef, task.classes, answer_only=True)
    refiner = Refiner(config)
    what = {
        "split": config.data.eval_split,
        "step": network.step,
        "refiner": refiner.name,
        "eval": config.eval.to_dict(),
        "data": source.identity,
    }
    parallel.say(
        f"Refining what step {network.step} of {folder} says of {what['split']} by {refiner.name}: {len(source)} "
        f"images, {inference.protocol}."
    )
    scores = scores_before_and_after(config, task, source, network, inference, refiner)
    if jax.process_index() == 0:
        print(table(scores, task.classes.names))
        content = {"what": what, "images": int(scores.before.images), "made": report.made_now()}
        for title, mean in means(scores).items():
            columns = {c: {"before": b, "after": a} for c, (b, a) in zip(COLUMNS, mean.tolist(), strict=True)}
            content[title] = columns
        name = f"{what['split']}{inference.protocol.suffix}_refined"
        with files.writing(folder, "--workdir"):
            target = report.new_folder(folder / "evaluation", name, what)
            files.write_json(target / "report.json", content)
        print(f"Written: {target}")


class Refiner:
    """The network in the workdir config.eval.segfix, tested as its own config says: a SegFix, whose offsets have the
    published scale, or an OVeNet, whose seeds count where its confidence is above one half."""

    def __init__(self, config: ConfigDict):
        folder = Path(config.eval.segfix).expanduser()
        its = workdir.read_config(folder)
        if its is None or not task_of(its).gives_offsets:
            raise UserError(
                f"config.eval.segfix is {config.eval.segfix!r}; it must be the workdir of a SegFix or an OVeNet."
            )
        its.mesh, its.eval.images_per_device = config.mesh, config.eval.images_per_device
        if its.data.name == config.data.name and "root" in config.data:
            its.data.root = config.data.root  # where the class table is now
        with _keys_of(folder):
            network = restore_network(its.model, folder, its.eval.checkpoint)
            self._task = task_of(its, identity.classes_of(folder))
            self._task.check_test()
            self._inference = Inference.from_config(
                its, network.graphdef, self._task.classes, answer_only=True
            )
        self.name = f"step {network.step} of {folder}"
        self._params, self._statistics = parallel.to_local(
            self._inference.mesh, (network.params, network.statistics)
        )

    def in_batches(self, samples: Sequence[dict]) -> Iterator[list[dict]]:
        """Those that can be run together."""
        return self._inference.in_batches(samples, itemgetter("image"))

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """(row, column) in pixels to read each image's label at, float32 [rows, h, w, 2]."""
        segmentation = self._inference(self._params, self._statistics, images)
        found = jax.device_get(
            (self._task.class_map(segmentation.prediction), segmentation.offset, segmentation.confidence)
        )
        offset = np.zeros((*found[0].shape, 2), np.float32)
        for row, (own, confidence) in enumerate(self._task.offsets([x.shape[:2] for x in images], *found)):
            height, width = images[row].shape[:2]
            if confidence is None:
                offset[row, :height, :width] = SEMANTIC_SCALE * own
            else:
                offset[row, :height, :width] = seeds_where_sure(own, confidence)
        return offset


@contextmanager
def _keys_of(folder: Path) -> Iterator[None]:
    """Raises UserError where meanwhile a key is read that the config in `folder` does not have."""
    try:
        yield
    except AttributeError as error:
        if not (error.args and isinstance(error.args[0], KeyError)):  # as ml_collections raises it
            raise
        raise UserError(
            f"{folder}/config.json is another version's: it has no key {error.name!r}; add it as configs/ has it, or "
            f"train that network with this version."
        ) from error


def scores_before_and_after(
    config: ConfigDict,
    task: Task,
    source: pipeline.Split,
    network: Network,
    inference: Inference,
    refiner: Refiner,
) -> Scores:
    """Of all images, each refined by one process."""
    num_classes = config.model.num_classes
    params, statistics = parallel.to_local(inference.mesh, (network.params, network.statistics))
    mine = range(jax.process_index(), len(source), jax.process_count())
    total = no_scores(num_classes)
    samples_read = pipeline.samples(
        source, mine, short_side=config.eval.short_side, workers=config.data.workers
    )
    with samples_read as samples, ThreadPoolExecutor() as threads:

        def score(sample: dict, before: np.ndarray, after: np.ndarray) -> Scores:
            height, width = sample["label"].shape
            return scores_of(sample["label"], before[:height, :width], after[:height, :width], num_classes)

        bar = tqdm(samples, "refining", len(mine), unit=" images", mininterval=1, leave=False)
        for alike in inference.in_batches(bar, itemgetter("image")):
            for batch in refiner.in_batches(alike):
                images = [sample["image"] for sample in batch]
                before = task.class_map(inference(params, statistics, images).prediction)
                offset = _on_canvas(refiner(images), before.shape)
                sizes = np.ones((len(before), 2), np.int32)
                sizes[: len(images)] = [image.shape[:2] for image in images]
                maps = jax.device_get((before, refined_maps(before, offset, sizes)))
                total = sum(threads.map(score, batch, *maps), start=total)
    leaves, structure = jax.tree.flatten(total)
    gathered = parallel.gather([np.asarray(leaf).tolist() for leaf in leaves])
    return jax.tree.unflatten(
        structure, [sum(map(np.asarray, parts)) for parts in zip(*gathered, strict=True)]
    )


def _on_canvas(offset: jax.Array | np.ndarray, canvas: Sequence[int]) -> jax.Array:
    """[B, h, w, 2], cut off or filled up with zeros at the bottom and right to [B, H, W, 2]."""
    _, height, width = canvas
    offset = jnp.asarray(offset)[:, :height, :width]
    return jnp.pad(offset, ((0, 0), (0, height - offset.shape[1]), (0, width - offset.shape[2]), (0, 0)))
