"""The benchmark that gives regions another label on purpose."""

import numpy as np
import pytest

from benchmarks.label_errors import Mislabelled, average_precision
from ovenet_jax.data.labels import TOY_STREETS
from ovenet_jax.errors import UserError


class Scenes:
    """Two regions, the same in all scenes."""

    classes = TOY_STREETS

    def __len__(self):
        return 60

    def __getitem__(self, index):
        label = np.zeros((20, 40), np.uint8)
        label[:, 20:] = 5
        return {"label": label, "name": str(index)}


def test_average_precision():
    assert average_precision([0.1, 0.2, 0.3], [True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([0.3, 0.1], [True, False]) == 0.5
    for wrong in ([], [False, False]):
        with pytest.raises(UserError, match=f"Of {len(wrong)} regions none has another label; raise --share"):
            average_precision([0.1] * len(wrong), wrong)


def test_a_share_of_the_regions_has_another_label_as_a_whole():
    source = Mislabelled(Scenes(), 0.25)
    changes = []
    for index in range(len(source)):
        label, changed = source.changed(index)
        np.testing.assert_array_equal(label, source[index]["label"])
        for half in (label[:, :20], label[:, 20:]):
            assert len(np.unique(half)) == 1
        changes += [changed[0, 0], changed[0, 20]]
    assert 0.15 < np.mean(changes) < 0.35
