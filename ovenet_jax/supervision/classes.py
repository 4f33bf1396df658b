"""The task of most networks: the classes of a data set. OVeNet also learns the confidence of its seeds."""

from functools import cached_property, partial
from typing import Any

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

from ovenet_jax.data import inventory, pipeline
from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.data.pipeline import Source
from ovenet_jax.errors import UserError
from ovenet_jax.models import layers, zoo
from ovenet_jax.segfix.files import Offsets
from ovenet_jax.segfix.shift import seed_offsets
from ovenet_jax.supervision import losses, measures


class Classes:
    """A task bundles everything that depends on what a network predicts: here the classes of the data set of
    `config.data`, or those that the network has `learned`.

    of_regions: whether its classes label regions of the image (not SegFix's offsets). gives_offsets: whether
    predictions include offsets to other pixels. accumulate: micro-batches that a batch is split into. group: the number
    of neighbouring images of a batch that OHEM ranks together; 1 without OHEM.
    """

    of_regions = True
    class_map = staticmethod(measures.most_probable)
    scores_of = staticmethod(measures.class_scores)

    def __init__(self, config: ConfigDict, learned: Labels | None = None):
        self._config, self._learned, ohem = config, learned, config.loss.ohem
        self.gives_offsets = zoo.has_offsets(config.model)
        self.accumulate, self.group = config.accumulate, ohem.group if ohem.on else 1

    @cached_property
    def classes(self) -> Labels:
        """The K classes that the network predicts. Raises UserError: an unknown data set, an unreadable class table, or
        an unsupported number of classes."""
        return self._learned or pipeline.classes(self._config.data)

    def prepare(self) -> dict:
        """Prepares the data set if needed, and returns the inventory of `pipeline.prepare`. Raises UserError: all
        faults of the source files at once, or missing parts of the data set."""
        return pipeline.prepare(self._config.data)

    def open_training(self) -> Source:
        """The split to train on. Raises UserError as `pipeline.open_split` does."""
        return pipeline.open_split(self._config.data, self._config.data.train_split)

    def open_evaluation(self) -> Source:
        """The split to test on, with labels as train ids of `classes`. Raises UserError: as `pipeline.open_split`; a
        split without labels, or with other classes than the model's."""
        split = pipeline.open_split(self._config.data, self._config.data.eval_split)
        if self._learned and self._learned.names != split.classes.names:
            split = _numbered_as(self._learned, split)
        check_tested(split, self._config)
        return split

    @cached_property
    def class_weights(self) -> tuple[float, ...]:
        """The weight of each class in the loss; () for none. Raises UserError: another number of weights."""
        weights, count = tuple(self._config.loss.get("class_weights", ())), self._config.model.num_classes
        if weights and len(weights) != count:
            fault = f"has {len(weights)} entries for config.model.num_classes={count}"
            raise UserError(f"config.loss.class_weights {fault}; give one weight per class, or () for none.")
        if self._config.loss.get("enet_weights"):
            pixels = inventory.pixels_of_classes(self.prepare(), self._config.data.train_split)
            return losses.enet_weights([pixels.get(name, 0) for name in self.classes.names]) if pixels else ()
        return weights

    def create_loss(self) -> losses.Loss:
        """The loss of `config.loss` for outputs of `config.model`. Raises UserError: invalid settings of the loss."""
        settings, model = self._config.loss, self._config.model
        options: dict[str, Any] = {key: settings.get(key, 0) for key in ("aux_weight", "rmi")}
        options |= {"class_weights": self.class_weights or None, "align_corners": model.align_corners}
        if settings.ohem.on:
            ohem, probabilities = settings.ohem, self.gives_offsets and not model.offset.logits
            ranked, softmax = (ohem.threshold, ohem.keep, ohem.group), not probabilities or ohem.softmax_again
            options["ohem"] = losses.Ohem(*ranked, softmax, ohem.get("aux_over_all", False))
        if not self.gives_offsets:
            return lambda output, label, **rest: {"total": losses.segmentation_loss(output, label, **rest, **options)}
        options |= {"confidence_weight": settings.confidence_weight, "include_ignored": settings.include_ignored}
        return partial(losses.ovenet_loss, grid_align_corners=model.offset.grid_align_corners, **options)

    def measure(self, output: Any, label: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """Training metrics of an output: a `measures.Measure`."""
        return measures.class_measures(output, label, labels, align_corners=self._config.model.align_corners)

    def probabilities(self, scores: jax.Array, logits: bool | None) -> jax.Array:
        """Class probabilities of scores, [..., K] -> the same. logits: whether the scores are logits, else they are
        probabilities; None: whichever the network outputs."""
        if logits is None:
            logits = self._config.model.get("offset", {}).get("logits", True)
        return jax.nn.softmax(scores, axis=-1) if logits else scores

    def predicts(self) -> tuple[str, ...]:
        """The outputs of --mode=predict besides overlays: "label_maps", "offsets"."""
        return ("label_maps", "offsets") if self._config.predict.get("offsets") else ("label_maps",)

    def offsets(self, class_map: np.ndarray, offset: np.ndarray | None, confidence: np.ndarray | None) -> Offsets:
        """Offsets from each pixel of an image to the pixel whose label it may take. Only if `gives_offsets`.

        class_map: the prediction, uint8 [H, W]. offset, confidence: OVeNet's [h, w, 2] and [h, w, 1], from a pass over
        the whole image. Raises UserError: there was no such pass.
        """
        if offset is None or confidence is None:
            helps = "set config.eval.windows to 'whole', or to 'cityscapes' with a scale of at most 1"
            raise UserError(f"Offsets need a pass over the whole image; {helps}.")
        model = self._config.model
        normalised, sure = (layers.resized(x, class_map.shape, model.align_corners) for x in (offset, confidence))
        return Offsets(seed_offsets(normalised, model.offset.grid_align_corners), sure[..., 0])


def _numbered_as(learned: Labels, split: Source) -> Source:
    """The split with its labels mapped by name to the `learned` classes; prints a note. Raises UserError: the split has
    other classes."""
    if others := [name for name in split.classes.names if name not in learned.names]:
        unknown, known = (", ".join(map(repr, names[:5])) for names in (others, learned.names))
        known += ", ..." if len(learned.names) > 5 else ""
        fault = f"the classes {unknown} of {split.identity['name']} (it knows {known})"
        helps = "train on this data set with --config.init.base=<this run>"
        raise UserError(f"The network was not trained on {fault}; {helps}.")
    print("Note: the data set has these classes in another order or number than the run; they are matched by name.")
    table = np.full(256, IGNORE, np.uint8)
    table[: len(split.classes.names)] = [learned.names.index(name) for name in split.classes.names]
    return split.relabelled(learned, partial(_renumbered, table=table))


def _renumbered(sample: dict, table: np.ndarray) -> np.ndarray:
    return cv2.LUT(sample["label"], table)


def check_channels(classes: Labels, config: ConfigDict) -> None:
    """Raises UserError where images have other channels than those that the network takes."""
    ours, theirs = (", ".join(x) or "RGB" for x in (config.model.input.get("channels", ()), classes.channels))
    if ours != theirs:
        fault = f"The network takes the channels {ours}, but images of {config.data.name} have {theirs}"
        raise UserError(f"{fault}; name the same in classes.yaml, in that order.")


def check_tested(split: Source, config: ConfigDict) -> None:
    """Raises UserError if the network cannot be tested on the split: no labels, other channels or number of classes."""
    data, count = config.data, len(split.classes.names)
    check_channels(split.classes, config)
    if not split.has_labels:
        helps = "use --mode=predict, or another --config.data.eval_split"
        raise UserError(f"Split {data.eval_split!r} of {data.name} has no labels; {helps}.")
    if count != config.model.num_classes:
        fault = f"config.model.num_classes={config.model.num_classes}, but {data.name} has {count} classes"
        raise UserError(f"{fault}; set --config.model.num_classes={count}.")
