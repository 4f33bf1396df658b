import numpy as np

from ovenet_jax.data.iou import class_iou


def test_iou_by_hand_and_none_of_a_class_that_never_occurs():
    counts = np.array([[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]])
    np.testing.assert_allclose(class_iou(counts), [3 / 5, 1 / 3, 0, 0])  # the last is predicted, never true
    np.testing.assert_allclose(class_iou(counts[:3, :3]), [3 / 5, 1 / 3, np.nan])
    np.testing.assert_array_equal(class_iou(np.diag([2**60, 1])), [1, 1])
