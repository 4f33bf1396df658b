"""What a network is trained on and tested against: the classes of its data set or, of a SegFix, their boundaries."""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import Labels
from ovenet_jax.data.pipeline import Source
from ovenet_jax.errors import UserError
from ovenet_jax.models.zoo import directions_of, is_segfix
from ovenet_jax.segfix.labels import evaluation_classes, training_classes
from ovenet_jax.segfix.samples import REGIONS, BoundarySource, prepare_samples


def predicted_classes(config: ConfigDict) -> Labels:
    """What the classes of the model's answer are: those of its data set, or of a SegFix's offsets.

    Raises:
      UserError: an unknown data set, one whose class table cannot be read, or other classes than a SegFix can have.
    """
    model = config.model
    return evaluation_classes(directions_of(model)) if is_segfix(model) else pipeline.classes(config.data)


def prepare(config: ConfigDict) -> dict:
    """Prepares data set and boundaries, unless they are there already; returns the inventory of `pipeline.prepare`.

    Raises:
      UserError: every fault of the source files at once; regions that the data set does not have.
    """
    if is_segfix(config.model):
        _check_regions(config.data)
    inventory = pipeline.prepare(config.data)
    if is_segfix(config.model):
        out = _truth(Path(inventory["folder"]), config.data)
        labels, classes = pipeline.label_files(config.data), pipeline.classes(config.data)
        prepare_samples(labels, classes, config.data.regions, out)
    return inventory


def open_training(config: ConfigDict) -> Source | BoundarySource:
    """The split to train on. Raises UserError as `pipeline.open_split` does."""
    return _open(config, config.data.train_split, training_classes)


def open_evaluation(config: ConfigDict) -> Source | BoundarySource:
    """The split to test on.

    Raises:
      UserError: as `pipeline.open_split`; a split without labels, or with other classes than the model's.
    """
    source = _open(config, config.data.eval_split, evaluation_classes)
    if not source.has_labels:
        raise UserError(
            f"Split {config.data.eval_split!r} of {config.data.name} has no labels; use --mode=predict, or another "
            f"--config.data.eval_split."
        )
    classes = len(source.classes.names)
    if classes != config.model.num_classes:
        raise UserError(
            f"config.model.num_classes={config.model.num_classes}, but {config.data.name} has {classes} classes; "
            f"set --config.model.num_classes={classes}."
        )
    return source


def _open(
    config: ConfigDict, split: str, boundary_classes: Callable[[int], Labels]
) -> Source | BoundarySource:
    source = pipeline.open_split(config.data, split)
    if not is_segfix(config.model):
        return source
    directions = directions_of(config.model)
    return BoundarySource(
        source, _truth(source.folder, config.data), directions, boundary_classes(directions)
    )


def _check_regions(data: ConfigDict) -> None:
    if "regions" not in data:
        raise UserError(
            "config.data has no regions, whose boundaries a SegFix learns; choose a variant of the config that is one."
        )
    if data.regions not in REGIONS:
        raise UserError(f"config.data.regions is {data.regions!r}; choose one of {', '.join(REGIONS)}.")


def _truth(records: Path, data: ConfigDict) -> Path:
    _check_regions(data)
    return records / f"boundaries_of_{data.regions}"
