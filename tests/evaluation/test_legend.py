import numpy as np

from ovenet_jax.evaluation.panel import legend
from tests.drawing import CLASSES


def test_the_legend_names_every_class_and_its_train_id(written):
    picture = legend(CLASSES, range(3))
    assert picture.dtype == np.uint8
    assert written == ["0 road", "1 car", "2 sky"]
    for color in CLASSES.colors:
        assert (picture == color).all(-1).any()
