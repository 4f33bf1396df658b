"""Distance of every pixel to the border of its region, and the direction away from it: SegFix's ground truth.

A region is the pixels of one class, or of one instance. The edge of the image is no border.

Source: the ground truth generators of SegFix's code, for classes and for instances.
"""

from collections.abc import Collection
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.segfix.directions import angle_of

MIN_PIXELS = 100  # of a class in an image; smaller ones have no ground truth
MAX_DISTANCE = 250  # larger ones are clipped
METRICS = {"euclidean": cv2.DIST_L2, "taxicab": cv2.DIST_L1}
FILTER_SIZES = (3, 5, 7)  # of the kernels that take directions from distances
NO_REGION = -1


class GroundTruth(NamedTuple):
    """distance: to the region's border, whole pixels, 0 outside regions. direction: the angle of directions.py away
    from the border, stored as (angle + 180) / 2; 90 (angle 0) outside regions. Both uint8 [H, W]."""

    distance: np.ndarray
    direction: np.ndarray


def of_classes(label: np.ndarray, metric: str = "euclidean", filter_size: int = 5) -> GroundTruth:
    """Ground truth of train ids, uint8 [H, W]; regions are classes with at least MIN_PIXELS, not ignored pixels."""
    large = np.bincount(label.ravel(), minlength=256) >= MIN_PIXELS
    large[IGNORE] = False
    regions = np.where(large[label], label.astype(np.int32), NO_REGION)
    return encoded(*distance_and_gradient(regions, metric, filter_size))


def of_instances(
    ids: np.ndarray, class_ids: Collection[int], metric: str = "euclidean", filter_size: int = 5
) -> GroundTruth:
    """Ground truth of Cityscapes' instance ids, [H, W]: label ids, or for counted objects label id * 1000 + number.

    Each id is a region; label ids that are not in class_ids make one region together.
    """
    counted = ids >= 256
    regions = np.where(counted | np.isin(ids, list(class_ids)), ids.astype(np.int32), IGNORE)
    return encoded(*distance_and_gradient(regions, metric, filter_size))


def distance_and_gradient(
    regions: np.ndarray, metric: str = "euclidean", filter_size: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the border of the own region, [H, W], and its gradient (row, column), [H, W, 2], both float32.

    regions: int32 [H, W], NO_REGION where there is none. A region that fills the image has no border: its distance is
    MAX_DISTANCE and its gradient 0. Gradients are by `gradient_kernels`, with distance 0 outside of the region.
    """
    distance = np.zeros(regions.shape, np.float32)
    gradient = np.zeros((*regions.shape, 2), np.float32)
    kernels = gradient_kernels(filter_size)
    for region, box in enumerate(ndimage.find_objects(regions + 1)):
        if box is None:
            continue
        box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = regions[box] == region
        if inside.all():  # the region fills the image
            distance[box] = MAX_DISTANCE
            continue
        to_border = cv2.distanceTransform(inside.view(np.uint8), METRICS[metric], cv2.DIST_MASK_PRECISE)
        np.copyto(distance[box], to_border, where=inside)
        for axis, kernel in enumerate(kernels):
            response = cv2.filter2D(to_border, cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT)
            np.copyto(gradient[box][..., axis], response, where=inside)
    return distance, gradient


def gradient_kernels(size: int = 5) -> np.ndarray:
    """Kernels along rows and along columns, float32 [2, size, size]: at (y, x) from the centre y / (y^2 + x^2) and
    x / (y^2 + x^2)."""
    y, x = np.indices((size, size)) - size // 2
    squared = np.maximum(y**2 + x**2, 1)
    return np.stack([y / squared, x / squared]).astype(np.float32)


def encoded(distance: np.ndarray, gradient: np.ndarray) -> GroundTruth:
    """Distance [H, W] and gradient [H, W, 2] as files hold them: fractions are cut off, distances clipped."""
    direction = (angle_of(gradient) + 180) / 2
    return GroundTruth(np.minimum(distance, MAX_DISTANCE).astype(np.uint8), direction.astype(np.uint8))
