"""The names and colours of classes, as a picture and beneath others."""

import numpy as np

from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.evaluation.colours import label_colors
from ovenet_jax.evaluation.sheet import LINE, MARGIN, RULE, Sheet, shown_names, text_width

WIDTH = 900  # pixels


def legend(classes: Labels) -> np.ndarray:
    """The names and colours of all classes, uint8 [h, w, 3]."""
    drawn = Legend([np.arange(len(classes.names))], classes, WIDTH)
    sheet = Sheet(2 * MARGIN + WIDTH, 2 * MARGIN + drawn.height)
    drawn.draw(sheet, MARGIN)
    return sheet.pixels()


class Legend:
    """Every class in `maps` of train ids, then ignored pixels if there are any, in `width` pixels and as few lines as
    fit; its `height` is in pixels."""

    def __init__(self, maps: list[np.ndarray], classes: Labels, width: int):
        present = sorted(set().union(*(np.unique(ids).tolist() for ids in maps)))
        names = shown_names(classes.names)
        self._names = ["ignored" if k == IGNORE else names[k] for k in present]
        self._colors = label_colors(np.array(present, int), classes)
        self._starts = _columns(self._names, width)
        self.height = -(-len(present) // len(self._starts)) * LINE

    def draw(self, sheet: Sheet, y: int) -> None:
        for index, (name, color) in enumerate(zip(self._names, self._colors, strict=True)):
            row, column = divmod(index, len(self._starts))
            left, top = MARGIN + self._starts[column], y + row * LINE
            sheet.box(left + 0.5, top + 4.5, 24, 24, facecolor=color / 255, edgecolor=RULE)
            sheet.write(left + 34, top + LINE / 2, name)


def _columns(names: list[str], width: int) -> list[int]:
    """Where columns start: as few lines as fit into `width`, each column as wide as its names."""
    widths = [62 + int(text_width(name)) for name in names]
    for lines in range(1, len(names) + 1):
        columns = -(-len(names) // lines)
        column_widths = [max(widths[column::columns]) for column in range(columns)]
        if sum(column_widths) <= width:
            return [sum(column_widths[:column]) for column in range(columns)]
    return [0]
