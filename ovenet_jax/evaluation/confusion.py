"""Confusion matrices as heat maps."""

from functools import partial

import matplotlib
import numpy as np

from ovenet_jax.data.iou import class_iou
from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.sheet import FAINT_INK, FONT, GAP, INK, LINE, MARGIN, Sheet, shortened, text_width

ABSENT = (222, 222, 222)


def confusion_picture(matrix: np.ndarray, classes: Labels) -> np.ndarray:
    """`matrix` [K, K] of pixel counts (row: true class, column: predicted) as a heat map, uint8 [h, w, 3].

    A row shows where the pixels of one true class went, in percent, with the class's IoU at its right; rows of
    classes without a true pixel are grey. mIoU is the mean over all K classes, absent ones counting 0.
    Raises ValueError for a matrix of another shape.
    """
    number = len(classes.names)
    if matrix.shape != (number, number):
        raise ValueError(f"the confusion matrix is {list(matrix.shape)}; expected {[number, number]}")
    matrix = np.asarray(matrix, np.float64)
    true = matrix.sum(axis=1)
    share = matrix / np.maximum(true, 1)[:, None]
    iou = np.nan_to_num(class_iou(matrix))
    absent = true == 0

    cell = int(np.clip(1500 / number, 14, 72))  # pixels
    font = min(FONT, cell - 2)
    names = [shortened(name) for name in classes.names]
    names_width = 12 + int(max(text_width(name, font) for name in names))
    left, top, side = MARGIN + LINE + names_width, MARGIN + 80, cell * number
    bottom, right, iou_width = top + side, left + side, 150
    sheet = Sheet(max(right + GAP + iou_width, 620) + MARGIN, bottom + names_width + LINE + MARGIN)

    note = f"  ({absent.sum()} absent, counted as 0)" if absent.any() else ""
    sheet.write(MARGIN, MARGIN + 14, f"mIoU {100 * iou.mean():.1f} %{note}", size=FONT + 4, weight="bold")
    sheet.write(left, top - 18, "percent of the true class", FAINT_INK)
    sheet.write(right + GAP, top - 18, "IoU, %", FAINT_INK)
    center = partial(sheet.write, color=FAINT_INK, ha="center", va="center")
    center(MARGIN + 14, top + side / 2, "true class", rotation=90)
    center(left + side / 2, bottom + names_width + 18, "predicted class")

    shade = matplotlib.colormaps["Blues"]
    heat = shade(np.sqrt(share), bytes=True)[..., :3]  # the square root lets small confusions show
    heat[absent] = ABSENT
    sheet.place(heat, left, top, (side, side))
    if cell >= 40:
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            x, y, percent = left + (column + 0.5) * cell, top + (row + 0.5) * cell, 100 * share[row, column]
            sheet.write(x, y, f"{percent:.0f}", "white" if percent > 40 else INK, 0.32 * cell, ha="center")
    else:
        scale = shade(np.linspace(0, 1, 256)[None], bytes=True)[..., :3]
        sheet.place(scale, right - 440, top - 66, (20, 400))
        for percent in (0, 1, 10, 50, 100):
            sheet.write(right - 440 + 400 * (percent / 100) ** 0.5, top - 26, f"{percent}", ha="center")

    for k, name in enumerate(names):
        ink, middle = FAINT_INK if absent[k] else INK, (k + 0.5) * cell
        sheet.write(left - 8, top + middle, name, ink, font, ha="right")
        sheet.write(left + middle, bottom + 8, name, ink, font, rotation=90, ha="center", va="top")
        for length, color in ((1, "#e9eef5"), (iou[k], "#2a6fb0")):
            y = top + (k + 0.2) * cell
            sheet.box(right + GAP, y, 70 * length, 0.6 * cell, facecolor=color, linewidth=0)
        text = "absent" if absent[k] else f"{100 * iou[k]:.1f}"
        sheet.write(right + GAP + 78, top + middle, text, ink, font)
    return sheet.pixels()
