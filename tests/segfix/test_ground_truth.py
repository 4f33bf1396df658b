import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.segfix import ground_truth
from ovenet_jax.segfix.directions import COUNTS, angle_of, direction_classes, offset_table, stored_angle


@pytest.fixture
def label():
    """Classes 0 and 3 with ignored pixels between them, and a class 7 of 9 pixels."""
    label = np.zeros((40, 60), np.uint8)
    label[:, 30:] = 3
    label[10:20, 26:33] = IGNORE
    label[30:33, 5:8] = 7
    return label


# ---- directions ----


def test_eight_directions_go_clockwise_from_left():
    table = [(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1)]
    assert_array_equal(offset_table(8), table)


@pytest.mark.parametrize("count", COUNTS)
def test_every_offset_has_the_class_it_belongs_to(count):
    table = offset_table(count)
    assert len({tuple(offset) for offset in table}) == count
    assert_array_equal(np.abs(table).max(axis=1), max(1, count // 8))
    assert_array_equal(direction_classes(angle_of(table.astype(np.float32)), count), np.arange(count))


@pytest.mark.parametrize("count", COUNTS[1:])
def test_an_angle_is_of_the_nearest_class(count):
    angle = np.arange(-179.7, 180, 1)
    middle = np.arange(count) * 360 / count - 180
    away = np.abs((angle[:, None] - middle + 180) % 360 - 180)
    assert_array_equal(direction_classes(angle, count), away.argmin(axis=1))


# ---- ground truth ----


def test_directions_lead_off_the_border():
    label = np.zeros((21, 30), np.uint8)
    label[:, 15:] = 1
    distance, direction = ground_truth.of_classes(label)
    assert_array_equal(distance[10], [*range(15, 0, -1), *range(1, 16)])
    classes = direction_classes(stored_angle(direction))
    assert_array_equal(classes[10, 5:15], 0)  # to the left
    assert_array_equal(classes[10, 15:25], 4)  # to the right


@pytest.mark.parametrize("metric", ground_truth.METRICS)
def test_distances_are_those_of_scipy(label, metric):
    transforms = {
        "euclidean": ndimage.distance_transform_edt,
        "taxicab": lambda mask: ndimage.distance_transform_cdt(mask, "taxicab"),
    }
    expected = sum(transforms[metric](label == k) for k in (0, 3))
    assert_array_equal(ground_truth.of_classes(label, metric).distance, np.floor(expected))


def test_small_classes_and_ignored_pixels_have_no_ground_truth(label):
    distance, direction = ground_truth.of_classes(label)
    nothing = (label == 7) | (label == IGNORE)
    assert_array_equal(distance[nothing], 0)
    assert_array_equal(direction[nothing], 90)
    assert (distance[~nothing] > 0).all()


def test_a_region_without_a_border_is_far_from_it():
    distance, direction = ground_truth.of_classes(np.full((12, 15), 4, np.uint8))
    assert (distance == 250).all()
    assert (direction == 90).all()


def test_distances_end_at_250():
    label = np.zeros((2, 600), np.uint8)
    label[:, 0] = IGNORE
    assert_array_equal(ground_truth.of_classes(label).distance[0], [*range(251), *[250] * 349])


@pytest.mark.parametrize("size", ground_truth.FILTER_SIZES)
def test_gradients_are_the_kernels_responses_to_each_region_alone(label, size):
    regions = np.where(np.isin(label, (0, 3)), label.astype(np.int32), ground_truth.NO_REGION)
    _, gradient = ground_truth.distance_and_gradient(regions, filter_size=size)
    expected = np.zeros_like(gradient)
    for region in (0, 3):
        distance = ndimage.distance_transform_edt(regions == region)
        for axis, kernel in enumerate(ground_truth.gradient_kernels(size)):
            response = ndimage.correlate(distance, kernel, mode="constant")
            expected[regions == region, axis] = response[regions == region]
    assert_allclose(gradient, expected, atol=1e-4)


def test_each_instance_is_a_region_and_all_other_ids_are_one():
    ids = np.full((20, 40), 7, np.int32)
    ids[:, 10:20] = 26001
    ids[:, 20:30] = 26002
    ids[:, 30:35], ids[:, 35:] = 4, 29  # of no class
    distance = ground_truth.of_instances(ids, class_ids=(7, 26)).distance
    wide = [*range(1, 6), *range(5, 0, -1)]
    assert_array_equal(distance[10], [*range(10, 0, -1), *wide, *wide, *range(1, 11)])
