"""What a network learns, chosen here: the classes of its data set or, of a SegFix, their boundaries."""

from ml_collections import ConfigDict

from ovenet_jax.data.labels import Labels
from ovenet_jax.models.zoo import is_segfix
from ovenet_jax.supervision.boundaries import Boundaries
from ovenet_jax.supervision.classes import Classes

Task = Classes | Boundaries  # the former says what both have


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
