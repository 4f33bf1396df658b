"""What most networks learn: the classes of their data set, and OVeNet besides how sure its seeds are."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import Labels
from ovenet_jax.data.pipeline import Source, Split
from ovenet_jax.errors import UserError
from ovenet_jax.models.contracts import Output
from ovenet_jax.models.layers import interpolation_weights
from ovenet_jax.models.zoo import has_offsets
from ovenet_jax.segfix.files import Offsets
from ovenet_jax.segfix.shift import seed_offsets
from ovenet_jax.supervision.losses import Loss, Ohem, ovenet_loss, segmentation_loss
from ovenet_jax.supervision.measures import class_measures, class_scores, most_probable


class Classes:
    """A `Task`: the classes of the data set of `config.data`, or those that a network has `learned`."""

    of_regions = True
    class_map = staticmethod(most_probable)
    scores_of = staticmethod(class_scores)

    def __init__(self, config: ConfigDict, learned: Labels | None = None):
        self._config = config
        self._learned = learned
        self.gives_offsets = has_offsets(config.model)

    @property
    def group(self) -> int:
        ohem = self._config.loss.ohem
        return ohem.group if ohem.on else 1

    @cached_property
    def classes(self) -> Labels:
        return self._learned or pipeline.classes(self._config.data)

    def prepare(self) -> dict:
        return pipeline.prepare(self._config.data)

    def open_training(self) -> Split:
        return pipeline.open_split(self._config.data, self._config.data.train_split)

    def open_evaluation(self) -> Split:
        split = pipeline.open_split(self._config.data, self._config.data.eval_split)
        if self._learned and self._learned.names != split.classes.names:
            split = _numbered_as(self._learned, split)
        check_tested(split, self._config)
        return split

    def check_micro_batches(self, devices: int) -> None:
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
        """Their scores may be added up in every way."""

    def create_loss(self) -> Loss:
        """Raises UserError for weights of another number of classes, or a batch that OHEM cannot rank in groups."""
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
        options: dict[str, Any] = {
            "aux_weight": loss.aux_weight,
            "class_weights": weights or None,
            "ohem": self._ohem() if loss.ohem.on else None,
            "align_corners": model.align_corners,
        }
        if not self.gives_offsets:
            return lambda output, label, among=None: {
                "total": segmentation_loss(output, label, among=among, **options)
            }
        return partial(
            ovenet_loss,
            confidence_weight=loss.confidence_weight,
            include_ignored=loss.include_ignored,
            grid_align_corners=model.offset.grid_align_corners,
            **options,
        )

    def _ohem(self) -> Ohem:
        ohem = self._config.loss.ohem
        probabilities = self.gives_offsets and not self._config.model.offset.logits
        return Ohem(
            ohem.threshold,
            ohem.keep,
            ohem.group,
            softmax=ohem.softmax_again or not probabilities,
            aux_over_all=ohem.aux_over_all,
        )

    def measure(self, output: Output, label: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        return class_measures(output, label, labels, align_corners=self._config.model.align_corners)

    def probabilities(self, scores: jax.Array, logits: bool | None = None) -> jax.Array:
        if logits is None:
            logits = self._config.model.get("offset", {}).get("logits", True)
        return jax.nn.softmax(scores, axis=-1) if logits else scores

    def boundary(self, _scores: jax.Array) -> None:
        """There is none."""

    def predicts(self) -> tuple[str, ...]:
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
        """The offsets of an OVeNet to the seed of every pixel."""
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
    """The split with labels in the order of the `learned` classes, by name; says so.

    Raises:
      UserError: it has others.
    """
    others = [name for name in split.classes.names if name not in learned.names]
    if others:
        raise UserError(
            f"The network has not learned the classes {', '.join(map(repr, others[:5]))} of {split.identity['name']}, "
            f"but {', '.join(map(repr, learned.names[:5]))}{' ...' if len(learned.names) > 5 else ''}; train on these "
            f"data, with --config.init.base to begin from it."
        )
    print(
        "Note: the data have these classes in another order or number than the run; they are matched by name."
    )
    return replace(split, classes=learned, stored=split.classes)


def check_tested(split: Split, config: ConfigDict) -> None:
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
