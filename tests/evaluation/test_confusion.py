from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.text import Text

from ovenet_jax.evaluation.confusion import confusion_picture
from ovenet_jax.evaluation.drawing import shown_names
from tests.drawing import CLASSES, count


def test_a_confusion_picture_states_percentages_ious_and_their_mean(written):
    picture = confusion_picture(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), CLASSES)
    assert picture.dtype == np.uint8
    assert "mIoU 35.7 %  (1 absent, counted as 0)" in written  # (3/6 + 4/7 + 0) / 3
    assert {"75", "25", "33", "67", "50.0", "57.1", "absent"} <= set(written)
    assert count(picture, (222, 222, 222)) > 3 * 50 * 50  # the row of the absent class


def test_a_predicted_class_that_never_occurs_is_absent_too(written):
    confusion_picture(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]), CLASSES)
    assert "mIoU 58.3 %  (1 absent, counted as 0)" in written  # (3/4 + 1 + 0) / 3


def test_large_confusion_pictures_give_a_scale_instead_of_cell_texts(written):
    classes = SimpleNamespace(names=tuple(f"object {k}" for k in range(60)), colors=np.zeros((60, 3)))
    confusion_picture(np.full((60, 60), 7), classes)
    assert {"0", "1", "10", "50", "100"} <= set(written)
    assert written.count("object 59") == 2  # at its row and at its column


@pytest.mark.parametrize("number", [2, 3, 30])
def test_texts_do_not_overlap(number, monkeypatch):
    """Titles, names and axes' names; percentages stand in their cells."""
    boxes, draw = [], Text.draw

    def record(text, renderer):
        if text.get_visible() and text.get_text().strip() and not text.get_text()[0].isdigit():
            boxes.append((text.get_text(), text.get_window_extent(renderer)))
        return draw(text, renderer)

    monkeypatch.setattr(Text, "draw", record)
    names = ("x", "a name of many letters", *(f"object {k}" for k in range(2, number)))
    classes = SimpleNamespace(names=names, colors=np.zeros((number, 3)))
    height, width, _ = confusion_picture(np.eye(number, dtype=int), classes).shape
    assert [a for i, (a, box) in enumerate(boxes) for b, other in boxes[:i] if box.overlaps(other)] == []
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for _, box in boxes)


def test_fonts_that_are_only_in_the_list_are_passed_over(monkeypatch):
    gone = font_manager.FontEntry(fname="nowhere/gone.ttf", name="Gone")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [gone, *font_manager.fontManager.ttflist])
    assert shown_names(["\U000f1235"]) == ["class 0"]


def test_names_that_no_font_can_write_are_numbered(written):
    classes = SimpleNamespace(names=("\U000f1234", "straße"), colors=np.zeros((2, 3)))
    confusion_picture(np.eye(2, dtype=int), classes)
    assert written.count("class 0") == written.count("straße") == 2
