"""Pictures for people: panels of a sample, confusion matrices, PNG files.

Everything here takes and returns numpy arrays, RGB, uint8 [h, w, 3]. Sheets are drawn with matplotlib's Agg
canvas in pixels (one point is one pixel), so tiles keep the palette's exact colours; no display, no pyplot.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, Rectangle
from matplotlib.textpath import TextToPath

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation.metrics import scores

MARGIN, GAP, LINE, FONT = 18, 14, 32, 20  # pixels of a sheet
TILES_WIDTH, TILE_MIN_WIDTH, TILE_MAX_HEIGHT = 1900, 430, 720
KEY_HEIGHT = 86
LEGEND_WIDTH = 900
ARROW_SPACING = 30
NAME_LENGTH = 24  # characters of a class name that are shown

INK, FAINT_INK, RULE = "#1c1c1c", "#5c5c5c", "#b8b8b8"
RIGHT_NOW, WRONG_NOW = (0, 158, 115), (213, 74, 0)  # green and red that colour-blind readers tell apart
ABSENT = (222, 222, 222)


def label_colors(label: np.ndarray, classes) -> np.ndarray:
    """The palette's colours of `label` [H, W] (train ids), uint8 [H, W, 3]; 255, ignored, is black.

    `classes` has `names` (K strings) and `colors` (K RGB triples). Raises ValueError for any other value.
    """
    outside = label[((label < 0) | (label >= len(classes.names))) & (label != IGNORE)]
    if outside.size:
        raise ValueError(
            f"label value {outside[0]} is outside the table of {len(classes.names)} classes: expected "
            f"0 to {len(classes.names) - 1}, or {IGNORE} for ignored"
        )
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes.colors)] = classes.colors
    return table[label]


def offset_colors(offset: np.ndarray, max_length: float) -> np.ndarray:
    """The colour wheel: `offset` [H, W, 2], pixels, x right and y down -> uint8 [H, W, 3].

    Hue is the direction (right red, down yellow-green, left cyan, up violet), saturation the length: zero is
    white, `max_length` pixels and beyond are the full colour.
    """
    if not max_length > 0:
        raise ValueError(f"max_length is {max_length}; expected a length in pixels above 0")
    x, y = offset[..., 0].astype(np.float32), offset[..., 1].astype(np.float32)
    hue = np.degrees(np.arctan2(y, x)) % 360
    saturation = np.clip(np.hypot(x, y) / max_length, 0, 1)
    hsv = np.stack([hue, saturation, np.ones_like(hue)], axis=-1).astype(np.float32)
    return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


def panel(
    image: np.ndarray,
    label: np.ndarray | None,
    predictions: Mapping[str, np.ndarray],
    offset: np.ndarray | None,
    confidence: np.ndarray | None,
    classes,
) -> np.ndarray:
    """One sample as one picture, uint8 [h, w, 3], about 1600 to 2200 pixels wide.

    Above: input, offsets, confidence, truth; below, each under what makes it: initial, seed and fused prediction
    and what fusion changed. Up to four tiles stand in one row. The legend names the classes that occur.

    Args:
        image: uint8 [H, W, 3], RGB.
        label: [H, W] train ids with 255 for ignored, or None: then no truth and no accuracies.
        predictions: title -> [H, W] train ids. The first counts as the initial one, the last as the fused one.
        offset: [h, w, 2], x first, any resolution, normalised: [-1, 1] spans the centres of the corner pixels,
            so 2 is a whole side. None where the model has none.
        confidence: [h, w, 1] or [h, w] in [0, 1], any resolution: the share of the seed prediction in the fused
            one; or None.
        classes: `names` (K strings) and `colors` (K RGB triples).

    Raises:
        ValueError: ids whose size is not the image's or that are outside the table; offsets or confidences of
            another shape or not finite.
    """
    for title, prediction in predictions.items():
        _check_size(title, prediction, image)
    if label is not None:
        _check_size("label", label, image)

    maps = list(predictions.values())
    compares = label is not None and len(maps) > 1
    above = 1 + sum(part is not None for part in (offset, confidence, label))
    below = len(maps) + compares
    columns = above + below if above + below <= 4 else max(above, below)
    size = _tile_size(image.shape[:2], columns)

    upper = [_Tile("input", cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA))]
    if offset is not None:
        upper.append(_offset_tile(offset, image.shape[:2], size))
    if confidence is not None:
        upper.append(_confidence_tile(confidence, size))
    if label is not None:
        upper.append(_Tile("truth", _resize_nearest(label_colors(label, classes), size)))
    lower = [_prediction_tile(title, ids, label, size, classes) for title, ids in predictions.items()]
    if compares:
        lower.append(_changed_tile(image, label, initial=maps[0], fused=maps[-1], size=size))

    rows = [upper + lower] if columns == above + below else [upper, lower]
    return _sheet(rows, _class_legend([m for m in [label, *maps] if m is not None], classes))


def confusion_picture(matrix: np.ndarray, classes) -> np.ndarray:
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
    iou = scores(matrix)["iou"]
    absent = true == 0

    cell = int(np.clip(1500 / number, 14, 72))  # pixels
    font = min(FONT, cell - 2)
    names = [_shortened(name) for name in classes.names]
    names_width = 12 + int(max(_text_width(name, font) for name in names))
    left, top, side = MARGIN + LINE + names_width, MARGIN + 80, cell * number
    bottom, right, iou_width = top + side, left + side, 150
    axes = _blank_sheet(max(right + GAP + iou_width, 620) + MARGIN, bottom + names_width + LINE + MARGIN)

    note = f"  ({absent.sum()} absent, counted as 0)" if absent.any() else ""
    _write(axes, MARGIN, MARGIN + 14, f"mIoU {100 * iou.mean():.1f} %{note}", size=FONT + 4, weight="bold")
    _write(axes, left, top - 18, "percent of the true class", FAINT_INK)
    _write(axes, right + GAP, top - 18, "IoU, %", FAINT_INK)
    center = {"ha": "center", "va": "center"}
    _write(axes, MARGIN + 14, top + side / 2, "true class", FAINT_INK, rotation=90, **center)
    _write(axes, left + side / 2, bottom + names_width + 18, "predicted class", FAINT_INK, **center)

    shade = matplotlib.colormaps["Blues"]
    heat = shade(np.sqrt(share), bytes=True)[..., :3]  # the square root lets small confusions show
    heat[absent] = ABSENT
    _place(axes, heat, left, top, (side, side))
    if cell >= 40:
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            x, y, percent = left + (column + 0.5) * cell, top + (row + 0.5) * cell, 100 * share[row, column]
            _write(axes, x, y, f"{percent:.0f}", "white" if percent > 40 else INK, 0.32 * cell, ha="center")
    else:
        scale = shade(np.linspace(0, 1, 256)[None], bytes=True)[..., :3]
        _place(axes, scale, right - 440, top - 66, (20, 400))
        for percent in (0, 1, 10, 50, 100):
            _write(axes, right - 440 + 400 * (percent / 100) ** 0.5, top - 26, f"{percent}", ha="center")

    for k, name in enumerate(names):
        ink, middle = FAINT_INK if absent[k] else INK, (k + 0.5) * cell
        _write(axes, left - 8, top + middle, name, ink, font, ha="right")
        _write(axes, left + middle, bottom + 8, name, ink, font, rotation=90, ha="center", va="top")
        for length, color in ((1, "#e9eef5"), (iou[k], "#2a6fb0")):
            corner = (right + GAP, top + (k + 0.2) * cell)
            axes.add_patch(Rectangle(corner, 70 * length, 0.6 * cell, facecolor=color, linewidth=0))
        text = "absent" if absent[k] else f"{100 * iou[k]:.1f}"
        _write(axes, right + GAP + 78, top + middle, text, ink, font)
    return _pixels(axes)


def overlay(image: np.ndarray, class_map: np.ndarray, classes) -> np.ndarray:
    """`image` [H, W, 3] half covered by the colours of `class_map` [H, W] (train ids), uint8 of the same size."""
    return cv2.addWeighted(image, 0.5, label_colors(class_map, classes), 0.5, 0)


def legend(classes) -> np.ndarray:
    """The names and colours of all classes, uint8 [h, w, 3]."""
    entries = _class_legend([np.arange(len(classes.names))], classes)
    starts, height = _legend_layout(entries, LEGEND_WIDTH)
    axes = _blank_sheet(2 * MARGIN + LEGEND_WIDTH, 2 * MARGIN + height)
    _draw_legend(axes, entries, starts, MARGIN)
    return _pixels(axes)


def write_picture(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Writes uint8 [h, w, 3] (RGB) or [h, w] at `path`, .png or .jpg, making its folders; never half a file.

    Raises ValueError for another kind of array, OSError where the file system refuses.
    """
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"{path}: a picture is uint8 [h, w, 3] or [h, w], not {picture.dtype} {list(picture.shape)}"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    in_order = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(path.suffix, in_order)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(encoded)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# ---- tiles ----


class _Tile(NamedTuple):
    title: str
    picture: np.ndarray  # uint8 [h, w, 3], as shown
    notes: tuple[tuple[str, str], ...] = ()  # (text, colour), at the right of the title
    decorate: Callable[[Axes, int, int], None] | None = None  # draws on the tile at (x, y) and its key below


def _prediction_tile(title, prediction, label, size, classes) -> _Tile:
    picture = _resize_nearest(label_colors(prediction, classes), size)
    if label is None or not (label != IGNORE).any():
        return _Tile(title, picture)
    accuracy = (prediction == label)[label != IGNORE].mean()
    return _Tile(title, picture, ((f"{100 * accuracy:.1f} % correct", FAINT_INK),))


def _changed_tile(image, label, initial, fused, size) -> _Tile:
    """Green where fusion mended the initial prediction, red where it broke it, over a faded input."""
    valid = label != IGNORE
    right_now = valid & (fused == label) & (initial != label)
    wrong_now = valid & (fused != label) & (initial == label)
    gray = cv2.cvtColor(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    picture = np.repeat((170 + 0.3 * gray).astype(np.uint8)[..., None], 3, axis=-1)
    notes = []
    for changed, color, sign in ((right_now, RIGHT_NOW, "+"), (wrong_now, WRONG_NOW, "−")):
        picture[_resize_nearest(changed.astype(np.uint8), size) > 0] = color
        share = 100 * changed.sum() / max(1, valid.sum())
        notes.append((f"{sign}{share:.1f} %", matplotlib.colors.to_hex(np.array(color) / 255)))
    return _Tile("changed by fusion", picture, tuple(notes))


def _offset_tile(offset, image_size, size) -> _Tile:
    """Colours and sparse arrows from pixels to their seeds, the wheel beneath."""
    offset = _checked_map("offset", offset, channels=2)
    height, width = image_size
    pixels = offset * np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    length = np.hypot(pixels[..., 0], pixels[..., 1])
    longest = max(float(np.percentile(length, 99)), 0.01)
    shown = _resize_map(pixels, size)

    def decorate(axes: Axes, x: int, y: int) -> None:
        ys, xs = (
            np.arange(ARROW_SPACING // 2, side - ARROW_SPACING // 2 + 1, ARROW_SPACING) for side in size
        )
        arrows = shown[np.ix_(ys, xs)] / longest
        arrows /= np.maximum(1, np.linalg.norm(arrows, axis=-1, keepdims=True))
        axes.quiver(
            *np.meshgrid(x + xs, y + ys), arrows[..., 0], arrows[..., 1], color=INK, alpha=0.75, pivot="mid",
            angles="xy", scale_units="xy", scale=1 / (0.85 * ARROW_SPACING), units="xy", width=1.2, headwidth=5,
            minlength=0.5,
        )  # fmt: skip
        radius = KEY_HEIGHT // 2 - 7
        center = (x + radius + 2, y + size[0] + KEY_HEIGHT // 2)
        across = np.linspace(-1, 1, 4 * radius, dtype=np.float32)
        wheel = offset_colors(np.stack(np.meshgrid(across, across), axis=-1), 1.0)
        circle = Circle(center, radius, facecolor="none", edgecolor=RULE)
        axes.add_patch(circle)
        disc = _place(axes, wheel, center[0] - radius, center[1] - radius, (2 * radius, 2 * radius))
        disc.set_clip_path(circle)
        _write(axes, center[0] + radius + 14, center[1] - 14, "hue: where the seed lies")
        _write(axes, center[0] + radius + 14, center[1] + 14, f"full colour: {longest:.3g} px away")

    note = (f"mean {length.mean():.3g} px", FAINT_INK)
    return _Tile("offsets", offset_colors(shown, longest), (note,), decorate)


def _confidence_tile(confidence, size) -> _Tile:
    """The seed prediction's share in the fused one, with its scale bar beneath."""
    confidence = _checked_map("confidence", confidence, channels=1)
    colormap = matplotlib.colormaps["viridis"]

    def decorate(axes: Axes, x: int, y: int) -> None:
        scale = colormap(np.linspace(0, 1, 256)[None], bytes=True)[..., :3]
        top, width = y + size[0] + 14, max(size[1], TILE_MIN_WIDTH)
        _place(axes, scale, x, top, (20, width))
        for share, text, side in ((0, "0: initial", "left"), (0.5, "0.5", "center"), (1, "1: seed", "right")):
            _write(axes, x + share * width, top + 38, text, ha=side)

    shown = colormap(_resize_map(confidence, size), bytes=True)[..., :3]
    return _Tile("confidence", shown, ((f"mean {confidence.mean():.2f}", FAINT_INK),), decorate)


def _tile_size(image_size: tuple[int, int], columns: int) -> tuple[int, int]:
    """(height, width) that fills the sheet's width; a whole multiple of the image's where one is near."""
    height, width = image_size
    factor = min(TILES_WIDTH / columns / width, TILE_MAX_HEIGHT / height)
    whole = round(factor)
    if abs(whole / factor - 1) < 0.15:
        factor = whole
    return max(1, round(height * factor)), max(1, round(width * factor))


# ---- sheets ----


def _sheet(rows: list[list[_Tile]], legend: list[tuple[str, np.ndarray]]) -> np.ndarray:
    tile_height, tile_width = rows[0][0].picture.shape[:2]
    step = max(tile_width, TILE_MIN_WIDTH) + GAP
    width = 2 * MARGIN + max(len(row) for row in rows) * step - GAP
    heights = [LINE + tile_height + (KEY_HEIGHT if any(t.decorate for t in row) else GAP) for row in rows]
    starts, legend_height = _legend_layout(legend, width - 2 * MARGIN)
    axes = _blank_sheet(width, MARGIN + sum(heights) + legend_height + MARGIN)

    y = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(axes, tile, MARGIN + column * step, y, step - GAP)
        y += height
    _draw_legend(axes, legend, starts, y)
    return _pixels(axes)


def _legend_layout(legend: list[tuple[str, np.ndarray]], width: int) -> tuple[list[int], int]:
    """Where the columns of a legend start, and its height."""
    starts = _legend_columns([name for name, _ in legend], width)
    return starts, -(-len(legend) // len(starts)) * LINE


def _draw_legend(axes: Axes, legend: list[tuple[str, np.ndarray]], starts: list[int], y: int) -> None:
    for index, (name, color) in enumerate(legend):
        left, top = MARGIN + starts[index % len(starts)], y + index // len(starts) * LINE
        axes.add_patch(Rectangle((left + 0.5, top + 4.5), 24, 24, facecolor=color / 255, edgecolor=RULE))
        _write(axes, left + 34, top + LINE / 2, name)


def _legend_columns(names: list[str], width: int) -> list[int]:
    """Where the columns of a legend start: as few lines as fit into `width`, each column as wide as its names."""
    widths = [62 + int(_text_width(name)) for name in names]
    for lines in range(1, len(names) + 1):
        columns = -(-len(names) // lines)
        column_widths = [max(widths[column::columns]) for column in range(columns)]
        if sum(column_widths) <= width:
            return [sum(column_widths[:column]) for column in range(columns)]
    return [0]


def _draw_tile(axes: Axes, tile: _Tile, x: int, y: int, width: int) -> None:
    title_width = _text_width(tile.title, weight="bold")
    note_widths = [GAP + _text_width(text) for text, _ in tile.notes]
    shrink = min(1, width / (title_width + sum(note_widths)))
    _write(axes, x, y + LINE / 2 - 3, tile.title, size=shrink * FONT, weight="bold")
    right = x + width
    for (text, color), note_width in zip(reversed(tile.notes), reversed(note_widths), strict=True):
        _write(axes, right, y + LINE / 2 - 3, text, color, shrink * FONT, ha="right")
        right -= shrink * note_width
    size = tile.picture.shape[:2]
    _place(axes, tile.picture, x, y + LINE, size)
    frame = (x - 1, y + LINE - 1), size[1] + 2, size[0] + 2
    axes.add_patch(Rectangle(*frame, facecolor=RULE, linewidth=0, zorder=-1))  # beneath the picture
    if tile.decorate:
        tile.decorate(axes, x, y + LINE)


def _class_legend(maps: list[np.ndarray], classes) -> list[tuple[str, np.ndarray]]:
    """(name, colour) of every class in `maps`, then of ignored pixels if there are any."""
    present = sorted(set().union(*(np.unique(ids).tolist() for ids in maps)))
    names = ["ignored" if k == IGNORE else _shortened(classes.names[k]) for k in present]
    return list(zip(names, label_colors(np.array(present, int), classes), strict=True))


def _blank_sheet(width: int, height: int) -> Axes:
    """Axes over a white sheet, in pixels: x right, y down."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="white")  # a point is a pixel
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.axis("off")
    return axes


def _place(axes: Axes, picture: np.ndarray, x: float, y: float, size: tuple[int, int]):
    extent = (x, x + size[1], y + size[0], y)
    return axes.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")


def _write(axes: Axes, x: float, y: float, text: str, color=INK, size=FONT, **style) -> None:
    style = {"va": "center_baseline", "parse_math": False, **style}
    axes.text(x, y, text, color=color, fontsize=size, **style)


def _text_width(text: str, size: float = FONT, weight: str = "normal") -> float:
    font = FontProperties(size=size, weight=weight)
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]


def _pixels(axes: Axes) -> np.ndarray:
    canvas = axes.figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


# ---- maps ----


def _resize_nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _resize_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corner centres on corner centres, as the networks resize their maps."""
    height, width = values.shape[:2]
    x = np.linspace(0, width - 1, size[1], dtype=np.float32)
    y = np.linspace(0, height - 1, size[0], dtype=np.float32)
    return cv2.remap(values, *np.meshgrid(x, y), cv2.INTER_LINEAR)


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"


def _check_size(name: str, values: np.ndarray, image: np.ndarray) -> None:
    size = image.shape[:2]
    if values.shape != size:
        raise ValueError(f"{name} is {list(values.shape)}; expected the image's size, {list(size)}")


def _checked_map(name: str, values: np.ndarray, channels: int) -> np.ndarray:
    """float32 [h, w, channels]; one channel may come without its axis."""
    values = np.asarray(values, np.float32)
    values = values[..., None] if channels == 1 and values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] != channels:
        raise ValueError(f"{name} is {list(values.shape)}; expected [h, w, {channels}]")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds values that are not finite; nothing can be drawn from it")
    return values
