"""The boundary F-score: whether predicted outlines run where the true ones do, to within a few pixels.

Per image and class: the outlines of the true and the predicted mask are one pixel wide; precision is the share of the
predicted outline within `width` pixels of the true one, recall the share of the true one within `width` of the
predicted one, F = 2 * precision * recall / (precision + recall). Ignored pixels are in neither mask. A class's score is
its mean over images, not over pooled pixels; the total score is the mean over classes. The published scores count 1
where a class has no outline, neither true nor predicted, so they rise with the number of absent classes.

Source: Perazzi et al., "A benchmark dataset and evaluation methodology for video object segmentation", CVPR 2016, as
taken up for Cityscapes by Takikawa et al., "Gated-SCNN", ICCV 2019, and SegFix (1, 3 and 5 pixels).
"""

import cv2
import numpy as np

from ovenet_jax.data.labels import IGNORE

WIDTHS = (1, 3, 5)


def boundary_scores(label: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """F of each class in one image for each of WIDTHS, [W, K]; nan for a class without an outline. label, predicted:
    true and predicted train ids, uint8 [H, W], IGNORE where there is no truth."""
    predicted = np.where(label == IGNORE, IGNORE, predicted)
    scores = np.full((len(WIDTHS), num_classes), np.nan)
    occur = np.bincount(label.ravel(), minlength=256) + np.bincount(predicted.ravel(), minlength=256)
    for class_id in np.flatnonzero(occur[:num_classes]).tolist():
        x, y, columns, rows = cv2.boundingRect(((label == class_id) | (predicted == class_id)).view(np.uint8))
        box = np.s_[max(y - 1, 0) : y + rows + 1, max(x - 1, 0) : x + columns + 1]  # and one pixel around it
        true, found = (_outline(part[box] == class_id) for part in (label, predicted))
        if true.any() or found.any():
            scores[:, class_id] = [_f_score(true, found, width) for width in WIDTHS]
    return scores


def _outline(mask: np.ndarray) -> np.ndarray:
    """The pixels that differ from their right, lower or lower right neighbour: bool [H, W]."""
    beside = np.pad(mask, ((0, 1), (0, 1)), "edge")
    return (mask != beside[:-1, 1:]) | (mask != beside[1:, :-1]) | (mask != beside[1:, 1:])


def _f_score(true: np.ndarray, found: np.ndarray, width: int) -> float:
    """F of two outlines, which are not both empty; 0 if one is."""
    precision, recall = _share(found, near=true, width=width), _share(true, near=found, width=width)
    return 2 * precision * recall / max(precision + recall, 1e-12)


def _share(outline: np.ndarray, near: np.ndarray, width: int) -> float:
    """The share of an outline within `width` pixels of another; 1 of an empty one."""
    close = cv2.dilate(near.view(np.uint8), _disk(width)).astype(bool)
    return float((outline & close).sum() / outline.sum()) if outline.any() else 1.0


def _disk(radius: int) -> np.ndarray:
    y, x = np.indices((2 * radius + 1, 2 * radius + 1)) - radius
    return (y**2 + x**2 <= radius**2).astype(np.uint8)
