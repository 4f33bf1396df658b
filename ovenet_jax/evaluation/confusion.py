"""Confusion matrices as heat maps, laid out by matplotlib's constrained layout."""

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.drawing import FAINT_INK, FONT, INK, RULE, fonts_for, shown_names, width_of
from ovenet_jax.supervision.measures import class_scores

ABSENT = np.array((222, 222, 222)) / 255
BARS_WIDTH = 200  # pixels
LEGIBLE = 40  # pixels, the smallest cell that shows its number


def confusion_picture(matrix: np.ndarray, classes: Labels) -> np.ndarray:
    """`matrix` [K, K] of pixel counts (row: true class, column: predicted) as a heat map, uint8 [h, w, 3].

    A row shows where the pixels of one true class went, in percent, with the class's IoU at its right; rows of
    classes without a true pixel are grey. mIoU is the mean over all K classes, absent ones counting 0.
    """
    number = len(classes.names)
    true = matrix.sum(axis=1)
    share = matrix / np.maximum(true, 1)[:, None]
    scores, absent = class_scores(matrix), true == 0
    iou, miou = scores["iou"], scores["miou"]

    cell = int(np.clip(1500 / number, 14, 72))  # pixels
    font = min(FONT, cell - 2)
    names = shown_names(classes.names)
    written = FontProperties(family=fonts_for("".join(names))[0], size=font)
    around = max(width_of(name, written) for name in names)
    width, height = cell * number + around + BARS_WIDTH + 120, cell * number + around + 210
    figure = Figure(figsize=(max(width, 620) / 72, height / 72), dpi=72, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    heat, bars = figure.subplots(1, 2, sharey=True, width_ratios=(max(cell * number, 300), BARS_WIDTH))
    note = f"  ({absent.sum()} absent, counted as 0)" if absent.any() else ""
    title = "mIoU -  (nothing is labelled)" if miou is None else f"mIoU {100 * miou:.1f} %{note}"
    figure.suptitle(title, x=0.02, ha="left", color=INK, fontsize=FONT + 4, fontweight="bold")

    faint = {"color": FAINT_INK, "fontsize": FONT}
    shades = matplotlib.colormaps["Blues"](np.sqrt(share))[..., :3]  # the square root makes small confusions visible
    shades[absent] = ABSENT
    heat.imshow(shades, aspect="auto", interpolation="nearest")
    heat.set_title("percent of the true class", loc="left", **faint)
    heat.set_xlabel("predicted class", **faint)
    heat.set_ylabel("true class", **faint)
    style = {"fontproperties": written, "parse_math": False}
    heat.set_xticks(range(number), names, rotation=90, **style)
    heat.set_yticks(range(number), names, **style)
    if cell >= LEGIBLE:
        for row, column in np.argwhere(share >= 0.005):
            percent = 100 * share[row, column]
            look = {"color": "white" if percent > 40 else INK, "fontsize": 0.32 * cell}
            heat.text(column, row, f"{percent:.0f}", ha="center", va="center", **look)
    else:
        shade = matplotlib.cm.ScalarMappable(matplotlib.colors.PowerNorm(0.5, 0, 100), "Blues")
        scale = figure.colorbar(shade, ax=heat, location="top", aspect=40, shrink=0.5)
        scale.set_ticks((0, 1, 10, 50, 100), labels=("0", "1", "10", "50", "100"), fontsize=FONT)

    bars.set_title("IoU, %", loc="left", **faint)
    bars.barh(range(number), 1, 0.6, color="#e9eef5")
    bars.barh(range(number), iou, 0.6, color="#2a6fb0")
    for k in range(number):
        value, ink = ("absent", FAINT_INK) if absent[k] else (f"{100 * iou[k]:.1f}", INK)
        bars.text(1.1, k, value, color=ink, fontsize=font, va="center")
    bars.set(xlim=(0, 2.2), xticks=())
    bars.spines[:].set_visible(False)
    heat.spines[:].set_color(RULE)
    heat.tick_params(length=0)
    bars.tick_params(length=0, labelleft=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
