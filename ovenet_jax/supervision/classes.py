"""What most networks learn: the classes of their data set, and OVeNet besides how sure its seeds are."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import Labels
from ovenet_jax.data.pipeline import Source
from ovenet_jax.errors import UserError
from ovenet_jax.models.layers import interpolation_weights
from ovenet_jax.models.zoo import has_offsets
from ovenet_jax.segfix.files import Offsets
from ovenet_jax.segfix.shift import seed_offsets
from ovenet_jax.supervision.losses import Loss, Ohem, ovenet_loss, segmentation_loss
from ovenet_jax.supervision.measures import class_measures, class_scores, most_probable


class Classes:
    """A task, that is all that depends on what a network learns: here the classes of the data set of `config.data`, or
    those that the network has `learned`.

    of_regions: whether its classes are regions of the image. gives_offsets: whether answers come with offsets to other
    pixels.
    """

    of_regions = True
    class_map = staticmethod(most_probable)
    scores_of = staticmethod(class_scores)

    def __init__(self, config: ConfigDict, learned: Labels | None = None):
        self._config = config
        self._learned = learned
        self.gives_offsets = has_offsets(config.model)

    @property
    def group(self) -> int:
        """How many neighbouring images of a batch the loss takes together."""
        ohem = self._config.loss.ohem
        return ohem.group if ohem.on else 1

    @cached_property
    def classes(self) -> Labels:
        """The K classes of the network's answer. Raises UserError: an unknown data set, or one whose class table cannot
        be read; other classes than it can have."""
        return self._learned or pipeline.classes(self._config.data)

    def prepare(self) -> dict:
        """Prepares what is learned, unless it is there already; returns the inventory of `pipeline.prepare`. Raises
        UserError: every fault of the source files at once; what the data set does not have."""
        return pipeline.prepare(self._config.data)

    def open_training(self) -> Source:
        """The split to train on. Raises UserError as `pipeline.open_split` does."""
        return pipeline.open_split(self._config.data, self._config.data.train_split)

    def open_evaluation(self) -> Source:
        """The split to test on, whose labels are of `classes`. Raises UserError: as `pipeline.open_split`; a split
        without labels, or with other classes than the model's."""
        split = pipeline.open_split(self._config.data, self._config.data.eval_split)
        if self._learned and self._learned.names != split.classes.names:
            split = _numbered_as(self._learned, split)
        check_tested(split, self._config)
        return split

    def check_micro_batches(self, devices: int) -> None:
        """Raises UserError where the batch cannot be split into micro-batches, and these evenly over the devices."""
        accumulate, batch_size = self._config.accumulate, self._config.batch_size
        least = accumulate * devices * self.group
        if accumulate > 1 and batch_size % least:
            groups = f" in the groups of {self.group} images that OHEM ranks together"
            raise UserError(
                f"config.batch_size={batch_size} cannot be split into config.accumulate={accumulate} micro-batches "
                f"over {devices} devices{groups if self.group > 1 else ''}; choose a multiple of {least}, or another "
                f"number of micro-batches."
            )

    def check_test(self) -> None:
        """Raises UserError for values of config.eval that do not go with the network's answers: here there are none."""

    def create_loss(self) -> Loss:
        """What `config.loss` says, for the outputs of `config.model`. Raises UserError: settings that the loss cannot
        have."""
        loss, model = self._config.loss, self._config.model
        weights = tuple(loss.class_weights)
        if weights and len(weights) != model.num_classes:
            raise UserError(
                f"config.loss.class_weights has {len(weights)} entries for config.model.num_classes="
                f"{model.num_classes}; give one weight per class, or () for none."
            )
        if self._config.batch_size % self.group:
            raise UserError(
                f"OHEM ranks pixels in groups of config.loss.ohem.group={self.group} images, which "
                f"config.batch_size={self._config.batch_size} must be a multiple of."
            )
        options: dict[str, Any] = {"aux_weight": loss.aux_weight, "class_weights": weights or None}
        options |= {"align_corners": model.align_corners, "ohem": None}
        if loss.ohem.on:
            ohem, probabilities = loss.ohem, self.gives_offsets and not model.offset.logits
            softmax = ohem.softmax_again or not probabilities
            options["ohem"] = Ohem(ohem.threshold, ohem.keep, ohem.group, softmax, ohem.aux_over_all)
        if not self.gives_offsets:
            return lambda output, label, among=None: {"total": segmentation_loss(output, label, among=among, **options)}
        return partial(
            ovenet_loss,
            confidence_weight=loss.confidence_weight,
            include_ignored=loss.include_ignored,
            grid_align_corners=model.offset.grid_align_corners,
            **options,
        )

    def measure(self, output: Any, label: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """How right an output is: scalars by name. `label` [B, H, W]; `labels` [A, B, H, W] of all micro-batches, over
        which the mean of these scalars is that of the batch."""
        return class_measures(output, label, labels, align_corners=self._config.model.align_corners)

    def probabilities(self, scores: jax.Array, logits: bool | None = None) -> jax.Array:
        """Of the classes, [..., K] -> the same. logits: whether the scores are, or probabilities already; None: as
        the network's are."""
        if logits is None:
            logits = self._config.model.get("offset", {}).get("logits", True)
        return jax.nn.softmax(scores, axis=-1) if logits else scores

    def boundary(self, _scores: jax.Array) -> jax.Array | None:
        """The probability of a boundary, [..., K] -> [...], where that is what is learned."""
        return None

    def predicts(self) -> tuple[str, ...]:
        """What --mode=predict writes of each image besides overlays: "label_maps", "offsets". Raises UserError:
        config.predict wants what the network does not give."""
        form, wanted = self._config.predict.form, self._config.predict.offsets
        if form != "png":
            raise UserError(
                f"config.predict.form is {form!r}, which is for a SegFix's offsets; an OVeNet's have a confidence, "
                f"which only 'png' holds."
            )
        if wanted and not self.gives_offsets:
            raise UserError("config.predict.offsets needs a network with offsets; leave it out.")
        return ("label_maps", "offsets") if wanted else ("label_maps",)

    def offsets(
        self,
        sizes: Sequence[tuple[int, int]],
        _class_map: np.ndarray,
        offset: np.ndarray | None,
        confidence: np.ndarray | None,
    ) -> list[Offsets]:
        """Of images of these sizes (H, W), which pixel each pixel's label may be read at; where `gives_offsets`.

        class_map: of the answer, uint8 [B, H, W], each image at the top left. offset, confidence: OVeNet's, of the
        whole images.

        Raises UserError: there are none of the whole images.
        """
        if offset is None or confidence is None:
            raise UserError(
                "Offsets are those of a pass over the whole image, of which config.eval.scales and windows leave none; "
                "add the scale 1."
            )
        model, found = self._config.model, []
        for size, *maps in zip(sizes, offset, confidence, strict=False):
            normalised, sure = (_resized(x, size, model.align_corners) for x in maps)
            found.append(Offsets(seed_offsets(normalised, model.offset.grid_align_corners), sure[..., 0]))
        return found


def _numbered_as(learned: Labels, split: Source) -> Source:
    """The split with labels in the order of the `learned` classes, by name; says so. Raises UserError: it has
    others."""
    others = [name for name in split.classes.names if name not in learned.names]
    if others:
        raise UserError(
            f"The network has not learned the classes {', '.join(map(repr, others[:5]))} of {split.identity['name']}, "
            f"but {', '.join(map(repr, learned.names[:5]))}{' ...' if len(learned.names) > 5 else ''}; train on these "
            f"data, with --config.init.base to begin from it."
        )
    print("Note: the data have these classes in another order or number than the run; they are matched by name.")
    table = split.classes.numbers_in(learned)
    return replace(split, classes=learned, stored=split.classes, relabel=partial(_renumbered, table=table))


def _renumbered(sample: dict, table: np.ndarray) -> np.ndarray:
    return cv2.LUT(sample["label"], table)


def check_tested(split: Source, config: ConfigDict) -> None:
    """Raises UserError where a network cannot be tested on the split: it has no labels, or other classes."""
    data, count = config.data, len(split.classes.names)
    if not split.has_labels:
        raise UserError(
            f"Split {data.eval_split!r} of {data.name} has no labels; use --mode=predict, or another "
            f"--config.data.eval_split."
        )
    if count != config.model.num_classes:
        raise UserError(
            f"config.model.num_classes={config.model.num_classes}, but {data.name} has {count} classes; set "
            f"--config.model.num_classes={count}."
        )


def _resized(x: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """`resize_bilinear` of one map [h, w, C], with nothing to compile for its size."""
    for axis, target in enumerate(size):
        left, right, weight = interpolation_weights(x.shape[axis], target, align_corners)
        weight = np.expand_dims(weight.astype(np.float32), tuple({0, 1, 2} - {axis}))
        x = x.take(left, axis) * (1 - weight) + x.take(right, axis) * weight
    return x
