"""Chooses the task of a config: the classes of its data set, or for SegFix their boundaries."""

from ml_collections import ConfigDict

from ovenet_jax import described
from ovenet_jax.data.labels import Labels
from ovenet_jax.models.zoo import is_segfix
from ovenet_jax.supervision.boundaries import Boundaries
from ovenet_jax.supervision.classes import Classes

Task = Classes | Boundaries  # Classes documents the common interface


def task_of(config: ConfigDict, classes: Labels | None = None) -> Task:
    """The task of the network of `config.model` on `config.data`.

    classes: those that the network has learned, if they may differ from the data set's. If config.model.num_classes is
    None, it is set to their number. Raises UserError: an invalid config.
    """
    described.check(config)
    task = Boundaries(config) if is_segfix(config.model) else Classes(config, classes)
    if config.model.num_classes is None:
        config.model.num_classes = len(task.classes.names)
    return task
