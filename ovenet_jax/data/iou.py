"""Intersection over union, from counts of pixels."""

import numpy as np


def class_iou(counts: np.ndarray) -> np.ndarray:
    """IoU of each class, float64 [K], of a confusion matrix [K, K]; nan for a class that is in neither labels
    nor predictions."""
    counts = np.asarray(counts, np.float64)
    correct = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - correct
    return correct / np.where(union, union, np.nan)
