"""One sample as one picture: the image, the truth, what a network predicts, and what its offsets do."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.patches import Circle

from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.evaluation.colours import label_colors, offset_colors
from ovenet_jax.evaluation.legend import Legend
from ovenet_jax.evaluation.sheet import FAINT_INK, FONT, GAP, INK, LINE, MARGIN, RULE, Sheet, text_width

TILES_WIDTH, TILE_MIN_WIDTH, TILE_MAX_HEIGHT = 1900, 430, 720  # pixels
KEY_HEIGHT = 86
ARROW_SPACING = 30
RIGHT_NOW, WRONG_NOW = (0, 158, 115), (213, 74, 0)  # green and red that colour-blind readers tell apart


def panel(
    image: np.ndarray,
    label: np.ndarray | None,
    predictions: Mapping[str, np.ndarray],
    offset: np.ndarray | None,
    confidence: np.ndarray | None,
    classes: Labels,
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

    Raises:
        ValueError: ids whose size is not the image's or that are outside the table; offsets or confidences of
            another shape or not finite.
    """
    for title, prediction in predictions.items():
        _check_size(title, prediction, image)
    if label is not None:
        _check_size("label", label, image)

    maps = list(predictions.values())
    compared = label if len(maps) > 1 else None
    above = 1 + sum(part is not None for part in (offset, confidence, label))
    below = len(maps) + (compared is not None)
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
    if compared is not None:
        lower.append(_changed_tile(image, compared, initial=maps[0], fused=maps[-1], size=size))

    rows = [upper + lower] if columns == above + below else [upper, lower]
    return _drawn(rows, [ids for ids in [label, *maps] if ids is not None], classes)


# ---- tiles ----


class _Tile(NamedTuple):
    title: str
    picture: np.ndarray  # uint8 [h, w, 3], as shown
    notes: tuple[tuple[str, str], ...] = ()  # (text, colour), at the right of the title
    decorate: Callable[[Sheet, int, int], None] | None = None  # draws on the tile at (x, y) and its key below


def _prediction_tile(
    title: str, prediction: np.ndarray, label: np.ndarray | None, size: tuple[int, int], classes: Labels
) -> _Tile:
    picture = _resize_nearest(label_colors(prediction, classes), size)
    if label is None or not (label != IGNORE).any():
        return _Tile(title, picture)
    accuracy = (prediction == label)[label != IGNORE].mean()
    return _Tile(title, picture, ((f"{100 * accuracy:.1f} % correct", FAINT_INK),))


def _changed_tile(
    image: np.ndarray, label: np.ndarray, initial: np.ndarray, fused: np.ndarray, size: tuple[int, int]
) -> _Tile:
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
        notes.append((f"{sign}{share:.1f} %", f"#{bytes(color).hex()}"))
    return _Tile("changed by fusion", picture, tuple(notes))


def _offset_tile(offset: np.ndarray, image_size: tuple[int, int], size: tuple[int, int]) -> _Tile:
    """Colours and sparse arrows from pixels to their seeds, the wheel beneath."""
    offset = _checked_map("offset", offset, channels=2)
    height, width = image_size
    pixels = offset * np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    length = np.hypot(pixels[..., 0], pixels[..., 1])
    longest = max(float(np.percentile(length, 99)), 0.01)
    shown = _resize_map(pixels, size)

    def decorate(sheet: Sheet, x: int, y: int) -> None:
        ys, xs = (
            np.arange(ARROW_SPACING // 2, side - ARROW_SPACING // 2 + 1, ARROW_SPACING) for side in size
        )
        arrows = shown[np.ix_(ys, xs)] / longest
        arrows /= np.maximum(1, np.linalg.norm(arrows, axis=-1, keepdims=True))
        sheet.axes.quiver(
            *np.meshgrid(x + xs, y + ys), arrows[..., 0], arrows[..., 1], color=INK, alpha=0.75, pivot="mid",
            angles="xy", scale_units="xy", scale=1 / (0.85 * ARROW_SPACING), units="xy", width=1.2, headwidth=5,
            minlength=0.5,
        )  # fmt: skip
        radius = KEY_HEIGHT // 2 - 7
        center = (x + radius + 2, y + size[0] + KEY_HEIGHT // 2)
        across = np.linspace(-1, 1, 4 * radius, dtype=np.float32)
        wheel = offset_colors(np.stack(np.meshgrid(across, across), axis=-1), 1.0)
        circle = Circle(center, radius, facecolor="none", edgecolor=RULE)
        sheet.axes.add_patch(circle)
        disc = sheet.place(wheel, center[0] - radius, center[1] - radius, (2 * radius, 2 * radius))
        disc.set_clip_path(circle)
        sheet.write(center[0] + radius + 14, center[1] - 14, "hue: where the seed lies")
        sheet.write(center[0] + radius + 14, center[1] + 14, f"full colour: {longest:.3g} px away")

    note = (f"mean {length.mean():.3g} px", FAINT_INK)
    return _Tile("offsets", offset_colors(shown, longest), (note,), decorate)


def _confidence_tile(confidence: np.ndarray, size: tuple[int, int]) -> _Tile:
    """The seed prediction's share in the fused one, with its scale bar beneath."""
    confidence = _checked_map("confidence", confidence, channels=1)
    colormap = matplotlib.colormaps["viridis"]

    def decorate(sheet: Sheet, x: int, y: int) -> None:
        scale = colormap(np.linspace(0, 1, 256)[None], bytes=True)[..., :3]
        top, width = y + size[0] + 14, max(size[1], TILE_MIN_WIDTH)
        sheet.place(scale, x, top, (20, width))
        for share, text, side in ((0, "0: initial", "left"), (0.5, "0.5", "center"), (1, "1: seed", "right")):
            sheet.write(x + share * width, top + 38, text, ha=side)

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


# ---- the sheet ----


def _drawn(rows: list[list[_Tile]], maps: list[np.ndarray], classes: Labels) -> np.ndarray:
    tile_height, tile_width = rows[0][0].picture.shape[:2]
    step = max(tile_width, TILE_MIN_WIDTH) + GAP
    width = 2 * MARGIN + max(len(row) for row in rows) * step - GAP
    heights = [LINE + tile_height + (KEY_HEIGHT if any(t.decorate for t in row) else GAP) for row in rows]
    legend = Legend(maps, classes, width - 2 * MARGIN)
    sheet = Sheet(width, MARGIN + sum(heights) + legend.height + MARGIN)

    y = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(sheet, tile, MARGIN + column * step, y, step - GAP)
        y += height
    legend.draw(sheet, y)
    return sheet.pixels()


def _draw_tile(sheet: Sheet, tile: _Tile, x: int, y: int, width: int) -> None:
    title_width = text_width(tile.title, weight="bold")
    note_widths = [GAP + text_width(text) for text, _ in tile.notes]
    shrink = min(1.0, width / (title_width + sum(note_widths)))
    sheet.write(x, y + LINE / 2 - 3, tile.title, size=shrink * FONT, weight="bold")
    right = float(x + width)
    for (text, color), note_width in zip(reversed(tile.notes), reversed(note_widths), strict=True):
        sheet.write(right, y + LINE / 2 - 3, text, color, shrink * FONT, ha="right")
        right -= shrink * note_width
    size = tile.picture.shape[:2]
    sheet.place(tile.picture, x, y + LINE, size)
    frame = (x - 1, y + LINE - 1, size[1] + 2, size[0] + 2)
    sheet.box(*frame, facecolor=RULE, linewidth=0, zorder=-1)  # beneath the picture
    if tile.decorate:
        tile.decorate(sheet, x, y + LINE)


# ---- maps ----


def _resize_nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _resize_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corner centres on corner centres, as the networks resize their maps."""
    height, width = values.shape[:2]
    x = np.linspace(0, width - 1, size[1], dtype=np.float32)
    y = np.linspace(0, height - 1, size[0], dtype=np.float32)
    return cv2.remap(values, *np.meshgrid(x, y), cv2.INTER_LINEAR)


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
