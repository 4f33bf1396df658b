import numpy as np
import pytest

from ovenet_jax.evaluation.colours import label_colors, offset_colors, overlay
from tests.drawing import CAR, CLASSES, IGNORED, ROAD, SKY, WHITE


def test_the_wheel_gives_each_direction_its_hue_and_opposite_ones_complementary_hues():
    right, left, down, up = offset_colors(np.array([[[5, 0], [-5, 0], [0, 5], [0, -5]]], np.float32), 5.0)[0]
    assert right.tolist() == [255, 0, 0]
    assert left.tolist() == [0, 255, 255]
    np.testing.assert_allclose(down, [127.5, 255, 0], atol=1)
    np.testing.assert_allclose(up, [127.5, 0, 255], atol=1)
    np.testing.assert_allclose(down.astype(int) + up, WHITE, atol=1)


def test_a_zero_offset_is_white_and_colour_grows_with_length_up_to_the_maximum():
    colors = offset_colors(np.array([[[0, 0], [2, 0], [4, 0], [40, 0]]], np.float32), 4.0)[0]
    assert colors.tolist() == [[255, 255, 255], [255, 128, 128], [255, 0, 0], [255, 0, 0]]


def test_labels_take_the_palettes_colours_and_ignored_pixels_black():
    colors = label_colors(np.array([[SKY, ROAD], [IGNORED, CAR]], np.uint8), CLASSES)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[70, 130, 180], [128, 64, 128]], [[0, 0, 0], [0, 0, 142]]]


@pytest.mark.parametrize(("value", "dtype"), [(3, np.uint8), (254, np.uint8), (-1, np.int32), (256, np.int64)])
def test_a_label_value_outside_the_table_is_named(value, dtype):
    with pytest.raises(ValueError, match=f"label value {value} is outside the table of 3 classes.*0 to 2, or 255"):
        label_colors(np.array([[0, value]], dtype), CLASSES)


def test_an_overlay_is_half_image_half_colours():
    image = np.full((1, 2, 3), 100, np.uint8)
    expected = [[(100 + np.array(CLASSES.colors[k])) / 2 for k in (0, 1)]]
    np.testing.assert_allclose(overlay(image, np.array([[0, 1]]), CLASSES), expected, atol=0.51)
