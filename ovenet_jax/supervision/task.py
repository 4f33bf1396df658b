"""What a network learns, chosen here: the classes of its data set or, of a SegFix, their boundaries."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from ovenet_jax.data.labels import Labels
from ovenet_jax.data.pipeline import Split
from ovenet_jax.models.zoo import is_segfix
from ovenet_jax.segfix.files import Offsets
from ovenet_jax.supervision.boundaries import Boundaries
from ovenet_jax.supervision.classes import Classes
from ovenet_jax.supervision.losses import Loss


class Task(Protocol):
    """All that depends on what a network learns.

    group: how many neighbouring images of a batch the loss takes together. of_regions: whether its classes are regions
    of the image. gives_offsets: whether answers come with offsets to other pixels.
    """

    of_regions: bool
    gives_offsets: bool

    @property
    def group(self) -> int: ...

    @property
    def classes(self) -> Labels:
        """The K classes of the network's answer.

        Raises:
          UserError: an unknown data set, or one whose class table cannot be read; other classes than it can have.
        """

    def prepare(self) -> dict:
        """Prepares what is learned, unless it is there already; returns the inventory of `pipeline.prepare`.

        Raises:
          UserError: every fault of the source files at once; what the data set does not have.
        """

    def open_training(self) -> Split:
        """The split to train on. Raises UserError as `pipeline.open_split` does."""

    def open_evaluation(self) -> Split:
        """The split to test on, whose labels are of `classes`.

        Raises:
          UserError: as `pipeline.open_split`; a split without labels, or with other classes than the model's.
        """

    def check_micro_batches(self, devices: int, /) -> None:
        """Raises UserError where the batch cannot be split into micro-batches, and these evenly over the devices."""

    def check_test(self) -> None:
        """Raises UserError for values of config.eval that do not go with the network's answers."""

    def create_loss(self) -> Loss:
        """What `config.loss` says, for the outputs of `config.model`.

        Raises:
          UserError: settings that the loss cannot have.
        """

    def measure(self, output: Any, label: jax.Array, labels: jax.Array, /) -> dict[str, jax.Array]:
        """How right an output is: scalars by name. `label` [B, H, W]; `labels` [A, B, H, W] of all micro-batches, over
        which the mean of these scalars is that of the batch."""

    def class_map(self, scores: jax.Array, /) -> jax.Array:
        """What scores mean: [..., K] -> uint8 [...], one of `classes`."""

    def probabilities(self, scores: jax.Array, logits: bool | None = None, /) -> jax.Array:
        """Of the classes, [..., K] -> the same. logits: whether the scores are, or probabilities already; None: as
        the network's are."""

    def boundary(self, scores: jax.Array, /) -> jax.Array | None:
        """The probability of a boundary, [..., K] -> [...], where that is what is learned."""

    def scores_of(self, matrix: np.ndarray, /) -> dict[str, Any]:
        """Of a confusion matrix [K, K]: what `measures.class_scores` says, and perhaps more."""

    def predicts(self) -> tuple[str, ...]:
        """What --mode=predict writes of each image besides overlays: "label_maps", "offsets".

        Raises:
          UserError: config.predict wants what the network does not give.
        """

    def offsets(
        self,
        sizes: Sequence[tuple[int, int]],
        class_map: np.ndarray,
        offset: np.ndarray | None,
        confidence: np.ndarray | None,
        /,
    ) -> list[Offsets]:
        """Of images of these sizes (H, W), which pixel each pixel's label may be read at; where `gives_offsets`.

        class_map: of the answer, uint8 [B, H, W], each image at the top left. offset, confidence: OVeNet's, of the
        whole images.

        Raises:
          UserError: there are none of the whole images.
        """


def task_of(config: ConfigDict, classes: Labels | None = None) -> Task:
    """What the network of `config.model` learns of `config.data`.

    classes: that it has learned, where they may be others than the data's. Where config.model.num_classes is open, it
    is set to their number.
    """
    if is_segfix(config.model):
        return Boundaries(config)
    task = Classes(config, classes)
    if config.model.num_classes is None:
        config.model.num_classes = len(task.classes.names)
    return task
