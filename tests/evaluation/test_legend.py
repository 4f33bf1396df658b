import numpy as np

from ovenet_jax.evaluation.panel import legend
from tests.drawing import CLASSES


def test_the_legend_names_every_class(written):
    picture = legend(CLASSES, range(3))
    assert picture.dtype == np.uint8
    assert set(CLASSES.names) <= set(written)
    for color in CLASSES.colors:
        assert (picture == color).all(-1).any()
