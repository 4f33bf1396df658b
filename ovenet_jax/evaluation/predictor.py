"""A trained network as a function from images to predictions, with the test protocol of its run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from ovenet_jax import errors, files
from ovenet_jax.data import image_files
from ovenet_jax.data.labels import Labels, numbered
from ovenet_jax.devices import environment, memory, parallel
from ovenet_jax.evaluation.colours import in_colors, overlay
from ovenet_jax.evaluation.inference import Inference
from ovenet_jax.run import identity, workdir
from ovenet_jax.segfix.files import Offsets
from ovenet_jax.supervision.task import Task, task_of
from ovenet_jax.weights.network import Network, restore_network


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The prediction for one image.

    image: uint8 RGB [H, W, 3], or of named channels uint16 [H, W, C]. label_map: uint8 [H, W], the index of each
    pixel's class, or in SegFix of its offset.
    """

    image: np.ndarray
    label_map: np.ndarray
    predictor: "Predictor"
    trunk: tuple[np.ndarray | None, ...]  # OVeNet's offset [h, w, 2], confidence [h, w, 1], at the network's resolution

    @property
    def classes(self) -> Labels:
        """The class table, with `names` and `colors`."""
        return self.predictor.classes

    @cached_property
    def offsets(self) -> Offsets | None:
        """`offset`: integers [H, W, 2], (row, column) in pixels to the pixel whose label is used. `confidence`: for
        OVeNet float32 [H, W]. None for networks without offsets. Raises UserError: no pass covers the whole image."""
        task = self.predictor.task
        return task.offsets(self.label_map, *self.trunk) if task.gives_offsets else None

    def scores(self) -> dict[str, np.ndarray]:
        """Sums over the passes of exp(logits), or of logits by config.eval.sum, float32 [H, W, K], by prediction, for
        OVeNet "initial" S_i, "seed" S_s, "fused" S_f. Each call computes them. Raises UserError: too little memory."""
        height, width = self.image.shape[:2]
        with memory.enough_memory(memory.EVALUATION_MEMORY):
            ((_, found),) = self.predictor.parts.over([{"image": self.image}], *self.predictor.arrays)
            return {name: np.asarray(x[0, :height, :width]) for name, x in found.scores.items()}

    def overlay(self) -> np.ndarray:
        """The image blended with the colours of its classes, uint8 RGB [H, W, 3]."""
        return overlay(in_colors(self.image, self.predictor.channels), self.label_map, self.classes)

    def __repr__(self) -> str:
        height, width = self.label_map.shape
        return f"<Prediction of {width}x{height} pixels>"

    def _repr_png_(self) -> bytes:
        return image_files.encoded(self.overlay())


class Predictor:
    """A network with its test protocol and its classes. Several threads may use it."""

    def __init__(self, config: ConfigDict, network: Network, task: Task, classes: Labels):
        self.task, self.classes, self.step = task, classes, network.step
        self.channels = tuple(config.model.input.get("channels", ()))
        create = partial(Inference.from_config, config, network.graphdef, classes)
        self.inference, self.parts = create(answer_only=True), create()  # parts: the initial and seed predictions, too
        self.arrays = self.inference.stored(network.params, network.statistics)

    def predict(self, images: Any) -> Any:
        """An image -> its `Prediction`; a list of images of any sizes -> a list. Results equal those of --mode=predict.

        An image is a path, a PIL image, or an array, uint8 RGB [H, W, 3] or grey [H, W]; of named `channels` it is a
        path, or an array, uint8 or uint16 [H, W, C]. The first image of a new size triggers a compilation;
        config.eval.bucket of the run reduces the number of sizes. Raises UserError: the input cannot be read as an
        image, or too little memory.
        """
        alone = not isinstance(images, list | tuple)
        given = {"The image": images} if alone else {f"images[{i}]": x for i, x in enumerate(images)}
        samples = ({"name": name, "image": pixels(x, name, self.channels)} for name, x in given.items())
        with memory.enough_memory(memory.EVALUATION_MEMORY):
            found = {sample["name"]: one for batch in self.over(samples) for sample, one in batch}
        return found["The image"] if alone else [found[name] for name in given]

    def over(self, samples: Iterable[dict]) -> Iterator[list[tuple[dict, Prediction]]]:
        """Yields batches of (sample, prediction for its "image")."""
        for batch, segmentation in self.inference.over(samples, *self.arrays):
            class_map = self.task.class_map(segmentation.prediction)
            class_maps, *trunks = jax.device_get((class_map, segmentation.offset, segmentation.confidence))
            pairs = []
            for row, sample in enumerate(batch):  # copies: a view would keep the whole batch in memory
                height, width = sample["image"].shape[:2]
                label_map = class_maps[row, :height, :width].copy()
                trunk = tuple(x if x is None else x[row].copy() for x in trunks)
                pairs.append((sample, Prediction(sample["image"], label_map, self, trunk)))
            yield pairs


def pixels(image: Any, name: str, channels: Sequence[str] = ()) -> np.ndarray:
    """Any image that `Predictor.predict` takes -> uint8 RGB [H, W, 3], or uint16 [H, W, C] of these `channels`. `name`
    is used in errors."""
    try:
        if isinstance(image, str | PathLike):
            name = str(image)
            return image_files.read_any_image(Path(files.at_home(name)).read_bytes(), channels).array
        if channels:
            return image_files.in_channels(np.asarray(image), channels)
        if isinstance(image, Image.Image):
            return image_files.in_rgb(image)[0]
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's for a broken PNG is a SyntaxError
        raise errors.UserError(f"{name} cannot be read: {error}.") from error
    array = np.asarray(image)
    array = np.stack([array] * 3, axis=-1) if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.shape[2:] != (3,) or not array.size:
        wanted = "a path, a PIL image, or an array, uint8 RGB [H, W, 3] or grey [H, W]"
        raise errors.UserError(f"{name} is {array.dtype} {list(array.shape)}; an image is {wanted}.")
    return array


def load(folder: str | Path, checkpoint: str = "best") -> Predictor:
    """The "best" or "latest" network of the run or import in `folder`, to run on this process's devices. Adds a flag
    to this process's XLA_FLAGS. Raises UserError: the folder holds no run, import or checkpoint."""
    environment.convolve_by_eigen()  # as main.py does, so that results are bit-identical
    folder = Path(files.at_home(str(folder)))
    config = workdir.config_of(folder)
    config.mesh = (0, 1)  # the training's devices may have been others
    return restored(config, folder, checkpoint)


def restored(config: ConfigDict, folder: Path, checkpoint: str) -> Predictor:
    """The predictor of a checkpoint of the run or import in `folder`. Raises UserError as `load` does."""
    task = task_of(config, identity.classes_of(folder))
    network = restore_network(config.model, folder, checkpoint)
    return Predictor(config, network, task, known_classes(config, task))


def known_classes(config: ConfigDict, task: Task) -> Labels:
    """The class table of predictions: the task's, or numbered classes, with a printed note, where that is missing or
    has another number of classes than the model."""
    count = config.model.num_classes
    try:
        if len(task.classes.names) == count:
            return task.classes
        fault = f"config.model.num_classes={count}, but {config.data.name} has {len(task.classes.names)} classes"
    except errors.UserError as error:
        fault = str(error).removesuffix(".")
    parallel.say(f"Note: the maps hold class numbers, 0 to {count - 1}: {fault}.")
    return numbered(count)
