"""The task of SegFix: where boundaries are, and in which direction the interior lies."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import Labels
from ovenet_jax.data.pipeline import Source
from ovenet_jax.models.segfix import SegFixOutput, offset_classes, offset_probabilities
from ovenet_jax.models.zoo import directions_of
from ovenet_jax.segfix.files import Offsets
from ovenet_jax.segfix.labels import evaluation_classes, offset_of_class, training_classes
from ovenet_jax.segfix.samples import boundary_label, prepare_samples
from ovenet_jax.supervision.classes import check_tested
from ovenet_jax.supervision.losses import Loss, segfix_loss
from ovenet_jax.supervision.measures import class_scores, offset_measures, offset_scores


class Boundaries:
    """A task like `Classes`: boundaries of classes or instances (config.data.regions); its classes are directions."""

    accumulate = group = 1  # classes are weighted by their share in the whole batch
    class_weights = ()
    of_regions = False
    gives_offsets = True
    class_map = staticmethod(offset_classes)

    def __init__(self, config: ConfigDict):
        self._config = config

    @cached_property
    def classes(self) -> Labels:
        return evaluation_classes(directions_of(self._config.model))

    def prepare(self) -> dict:
        data = self._config.data
        inventory = pipeline.prepare(data)
        out = self._truth(Path(inventory["folder"]))
        how = data.metric, data.filter_size
        prepare_samples(pipeline.labelled_samples(data), pipeline.classes(data), data.regions, out, *how)
        return inventory

    def open_training(self) -> Source:
        return self._open(self._config.data.train_split, training_classes(directions_of(self._config.model)))

    def open_evaluation(self) -> Source:
        split = self._open(self._config.data.eval_split, self.classes)
        check_tested(split, self._config)
        return split

    def _open(self, name: str, classes: Labels) -> Source:
        data, directions = self._config.data, directions_of(self._config.model)
        source = pipeline.open_split(data, name)
        how = {"truth": self._truth(source.folder), "directions": directions, "near": data.near}
        return source.relabelled(classes, partial(boundary_label, classes=classes, **how))

    def _truth(self, records: Path) -> Path:
        data = self._config.data
        how = data.metric, data.filter_size
        end = "" if how == ("euclidean", 5) else f"_{data.metric}_{data.filter_size}"  # "": as earlier versions
        return records / f"boundaries_of_{data.regions}{end}"

    def create_loss(self) -> Loss:
        """The loss of SegFix, which weights classes by their rarity in the batch."""
        return partial(segfix_loss, align_corners=self._config.model.align_corners)

    def measure(self, output: SegFixOutput, label: jax.Array, _: jax.Array) -> dict[str, jax.Array]:
        return offset_measures(output, label, align_corners=self._config.model.align_corners)

    def probabilities(self, scores: jax.Array, _logits: bool | None) -> jax.Array:
        return offset_probabilities(scores)

    def scores_of(self, matrix: np.ndarray) -> dict[str, Any]:
        return class_scores(matrix) | offset_scores(matrix)

    def predicts(self) -> tuple[str, ...]:
        return ("offsets",)

    def offsets(self, class_map: np.ndarray, *_: Any) -> Offsets:
        """The offset of every class."""
        return Offsets(offset_of_class(directions_of(self._config.model))[class_map])
