from types import SimpleNamespace

import numpy as np
import pytest

from ovenet_jax.evaluation.confusion import confusion_picture
from tests.drawing import CLASSES, count


def test_a_confusion_picture_states_percentages_ious_and_their_mean(written):
    picture = confusion_picture(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), CLASSES)
    assert picture.dtype == np.uint8
    assert "mIoU 35.7 %  (1 absent, counted as 0)" in written  # (3/6 + 4/7 + 0) / 3
    assert {"75", "25", "33", "67", "50.0", "57.1", "absent"} <= set(written)
    absent_row = 3 * 72 * 72  # three cells of 72 pixels
    assert 0 <= count(picture, (222, 222, 222)) - absent_row < 100  # text edges share this grey


def test_a_predicted_class_that_never_occurs_is_absent_too(written):
    confusion_picture(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]), CLASSES)
    assert "mIoU 58.3 %  (1 absent, counted as 0)" in written  # (3/4 + 1 + 0) / 3


def test_large_confusion_pictures_give_a_scale_instead_of_cell_texts(written):
    classes = SimpleNamespace(names=tuple(f"object {k}" for k in range(60)), colors=np.zeros((60, 3)))
    confusion_picture(np.full((60, 60), 7), classes)
    assert [text for text in written if text.isdigit()] == ["0", "1", "10", "50", "100"]
    assert written.count("object 59") == 2  # at its row and at its column


def test_a_confusion_matrix_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"confusion matrix is \[2, 2\]; expected \[3, 3\]"):
        confusion_picture(np.zeros((2, 2)), CLASSES)
