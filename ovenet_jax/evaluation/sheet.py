"""A sheet to draw on, in pixels, by matplotlib's Agg canvas: no display, no pyplot.

One point is one pixel, so that pictures keep their exact colours.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextToPath

MARGIN, GAP, LINE, FONT = 18, 14, 32, 20  # pixels
NAME_LENGTH = 24  # characters of a class name that are shown
INK, FAINT_INK, RULE = "#1c1c1c", "#5c5c5c", "#b8b8b8"


class Sheet:
    """White, `width` x `height` pixels, x right and y down; `axes` is what matplotlib draws on."""

    def __init__(self, width: int, height: int):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="white")  # a point is a pixel
        self._canvas = FigureCanvasAgg(figure)
        self.axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self.axes.axis("off")

    def place(self, picture: np.ndarray, x: float, y: float, size: tuple[int, int]) -> AxesImage:
        """A picture [h, w, 3], its top left at (x, y), enlarged to `size` (H, W)."""
        extent = (x, x + size[1], y + size[0], y)
        return self.axes.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")

    def box(self, x: float, y: float, width: float, height: float, **style) -> None:
        self.axes.add_patch(Rectangle((x, y), width, height, **style))

    def write(self, x: float, y: float, text: str, color: str = INK, size: float = FONT, **style) -> None:
        """A text from x on, around the height y."""
        style = {"va": "center_baseline", "parse_math": False, "fontfamily": families(text), **style}
        self.axes.text(x, y, text, color=color, fontsize=size, **style)

    def pixels(self) -> np.ndarray:
        """What is drawn, uint8 RGB [h, w, 3]."""
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def text_width(text: str, size: float = FONT, weight: str = "normal") -> float:
    """In pixels."""
    font = FontProperties(families(text), size=size, weight=weight)
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]


def shown_names(names: Sequence[str]) -> list[str]:
    """Class names as they are shown; of those that no font of this machine can write the number."""
    return [f"class {k}" if _fonts_for(name)[1] else _shortened(name) for k, name in enumerate(names)]


def families(text: str) -> list[str]:
    """The fonts to write a text with, matplotlib's own first, then those that have the characters that it lacks."""
    return _fonts_for(text)[0]


@cache
def _fonts_for(text: str) -> tuple[list[str], set[str]]:
    """The fonts, and the characters that no font has."""
    own = FontProperties().get_name()
    found, missing = [own], set(text)
    for font in sorted(fontManager.ttflist, key=lambda font: (font.name != own, font.name)):
        if not missing:
            break
        if font.name.startswith("Last Resort"):  # which has a box for each
            continue
        here = missing & _characters(font.fname)
        found += [font.name] if here and font.name != own else []
        missing -= here
    return found, missing


@cache
def _characters(file: str) -> frozenset[str]:
    return frozenset(map(chr, get_font(file).get_charmap()))


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
