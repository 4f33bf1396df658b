"""Composes text and pictures into pictures: uint8 RGB [h, w, 3] on white, sized to their content.

Texts are written by matplotlib's Agg renderer: no display, no pyplot.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties, fontManager, get_font

FONT, GAP, MARGIN = 20, 14, 18  # pixels
NAME_LENGTH = 24  # characters of a class name that are shown
INK, FAINT_INK, RULE = "#1c1c1c", "#5c5c5c", "#b8b8b8"


def arranged(rows: Sequence[Sequence[np.ndarray]], down: int = GAP, across: int = GAP) -> np.ndarray:
    """Pictures on a grid, each at the top left of its cell. down, across: pixels between rows and columns."""
    heights = [max(len(picture) for picture in row) for row in rows]
    columns = zip_longest(*rows, fillvalue=np.empty((0, 0)))
    widths = [max(picture.shape[1] for picture in column) for column in columns]
    tops, lefts = np.cumsum([0, *heights]), np.cumsum([0, *widths])
    size = tops[-1] + down * (len(heights) - 1), lefts[-1] + across * (len(widths) - 1)
    sheet = np.full((*size, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            cell = sheet[tops[i] + down * i :, lefts[j] + across * j :]
            cell[: picture.shape[0], : picture.shape[1]] = picture
    return sheet


def bordered(picture: np.ndarray, width: int, shade: int = 255) -> np.ndarray:
    """The picture with a white or grey border of `width` pixels."""
    return np.pad(picture, ((width, width), (width, width), (0, 0)), constant_values=shade)


def text(words: str, color: str = INK, size: int = FONT, weight: str = "normal") -> np.ndarray:
    """One line, 1.6 times as high as its font of `size` pixels."""
    font = FontProperties(family=fonts_for(words)[0], size=size, weight=weight)
    renderer = RendererAgg(width_of(words, font), round(1.6 * size), 72)  # at 72 dpi a point is a pixel
    renderer.draw_text(renderer.new_gc(), 0, 1.15 * size, words, font, 0)
    cover = np.asarray(renderer.buffer_rgba())[..., 3:] / 255
    return np.rint(255 * (1 - cover * (1 - np.array(to_rgb(color))))).astype(np.uint8)


def width_of(words: str, font: FontProperties) -> int:
    """The width of a text in pixels."""
    return 1 + math.ceil(RendererAgg(1, 1, 72).get_text_width_height_descent(words, font, ismath=False)[0])


def shown_names(names: Sequence[str]) -> list[str]:
    """Class names, shortened if they are long; "class <k>" for names that no installed font can write."""
    short = (name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…" for name in names)
    return [f"class {k}" if fonts_for(name)[1] else name for k, name in enumerate(short)]


@cache
def fonts_for(words: str) -> tuple[list[str], set[str]]:
    """(matplotlib's font plus fallback fonts for characters that it lacks, characters that no font has)."""
    own = FontProperties().get_name()
    found, missing = {own: None}, set(words)
    fonts = (font for font in fontManager.ttflist if not font.name.startswith("Last Resort"))  # draws boxes
    for font in sorted(fonts, key=lambda font: (font.name != own, font.name)):
        if here := missing and missing & _characters(font.fname):
            found[font.name] = None
            missing -= here
    return list(found), missing


@cache
def _characters(file: str) -> frozenset[str]:
    """Those of a font; none where its file is missing, since matplotlib's list of fonts may be of another host."""
    return frozenset(map(chr, get_font(file).get_charmap() if Path(file).exists() else ()))
