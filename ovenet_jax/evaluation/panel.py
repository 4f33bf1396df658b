"""One sample as one picture: the image, the truth, what a network predicts, and what its offsets do."""

from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np

from ovenet_jax.data.labels import IGNORE, Labels
from ovenet_jax.evaluation.colours import label_colors, offset_colors
from ovenet_jax.evaluation.drawing import FAINT_INK, GAP, MARGIN, arranged, bordered, shown_names, text
from ovenet_jax.models.layers import resized

TILES_WIDTH, TILE_MAX_HEIGHT = 1900, 720  # pixels
ARROW_SPACING = 30
FIXED, BROKEN = (0, 158, 115), (213, 74, 0)  # green and red that colour-blind readers can distinguish


def panel(
    image: np.ndarray,
    label: np.ndarray | None,
    predictions: Mapping[str, np.ndarray],
    offset: np.ndarray | None,
    confidence: np.ndarray | None,
    classes: Labels,
) -> np.ndarray:
    """One sample as one picture, uint8 [h, w, 3], about 1600 to 2200 pixels wide.

    Above: input, offsets, confidence, truth; below them the initial, seed and fused prediction and what fusion
    changed. Up to four tiles stand in one row. The legend names the classes that occur.

    Args:
        image: uint8 [H, W, 3], RGB.
        label: [H, W] train ids with 255 for ignored; None: no tile of the truth, and no accuracies.
        predictions: title -> [H, W] train ids. The first counts as the initial one, the last as the fused one.
        offset: [h, w, 2], x first, any resolution, normalised: [-1, 1] spans the centres of the corner pixels,
            so 2 is a whole side. None where the model has none.
        confidence: [h, w] in [0, 1], any resolution: the weight of the seed prediction in the fused one; or None.

    Raises ValueError: ids outside the table.
    """
    compared = label if len(predictions) > 1 else None
    above = sum(part is not None for part in (image, offset, confidence, label))
    below = len(predictions) + (compared is not None)
    columns = above + below if above + below <= 4 else max(above, below)
    size = _tile_size(image.shape[:2], columns)

    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    tiles = [_tile(small, "input")]
    if offset is not None:
        tiles.append(_offset_tile(offset, image.shape[:2], size))
    if confidence is not None:
        tiles.append(_confidence_tile(confidence, size))
    if label is not None:
        tiles.append(_tile(_resize_nearest(label_colors(label, classes), size), "truth"))
    tiles += [_prediction_tile(title, ids, label, size, classes) for title, ids in predictions.items()]
    if compared is not None:
        initial, *_, fused = predictions.values()
        tiles.append(_changed_tile(small, compared, initial, fused))

    picture = arranged([tiles] if columns == len(tiles) else [tiles[:above], tiles[above:]])
    shown = [*predictions.values(), *([] if label is None else [label])]
    if present := sorted(set().union(*(np.unique(ids).tolist() for ids in shown))):
        picture = arranged([[picture], [legend(classes, present, picture.shape[1])]])
    return bordered(picture, MARGIN)


def legend(classes: Labels, present: Sequence[int], width: int = 900) -> np.ndarray:
    """The `present` train ids (255: ignored) and names, uint8 [h, w, 3], in as few lines as fit `width` pixels."""
    names = [f"{k} {name}" for k, name in enumerate(shown_names(classes.names))] + ["ignored"] * 256
    colors = label_colors(np.array(present, int), classes)
    entries = [
        arranged([[bordered(bordered(np.full((22, 22, 3), color, np.uint8), 1, shade=184), 4), text(names[k])]])
        for k, color in zip(present, colors, strict=True)
    ]
    columns = max(1, (width + GAP) // (max(entry.shape[1] for entry in entries) + GAP))
    return arranged([entries[i : i + columns] for i in range(0, len(entries), columns)], down=0)


# ---- tiles ----


def _tile(picture: np.ndarray, title: str, *notes: np.ndarray, key: np.ndarray | None = None) -> np.ndarray:
    """A picture with a title above and a key below."""
    caption = arranged([[text(title, weight="bold"), *notes]])
    parts = [caption, bordered(picture, 1, shade=184), *([] if key is None else [key])]
    return arranged([[part] for part in parts], down=4)


def _prediction_tile(
    title: str, prediction: np.ndarray, label: np.ndarray | None, size: tuple[int, int], classes: Labels
) -> np.ndarray:
    picture = _resize_nearest(label_colors(prediction, classes), size)
    if label is None or not (label != IGNORE).any():
        return _tile(picture, title)
    accuracy = (prediction == label)[label != IGNORE].mean()
    return _tile(picture, title, text(f"{100 * accuracy:.1f} % correct", FAINT_INK))


def _changed_tile(image: np.ndarray, label: np.ndarray, initial: np.ndarray, fused: np.ndarray) -> np.ndarray:
    """Green where fusion corrected the initial prediction, red where it broke it, over a faded `image` of tile size."""
    valid = label != IGNORE
    fixed = valid & (fused == label) & (initial != label)
    broken = valid & (fused != label) & (initial == label)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((170 + 0.3 * gray).astype(np.uint8)[..., None], 3, axis=-1)
    notes = []
    for changed, color, sign in ((fixed, FIXED, "+"), (broken, BROKEN, "−")):
        picture[_resize_nearest(changed.astype(np.uint8), image.shape[:2]) > 0] = color
        share = 100 * changed.sum() / max(1, valid.sum())
        notes.append(text(f"{sign}{share:.1f} %", f"#{bytes(color).hex()}"))
    return _tile(picture, "changed by fusion", *notes)


def _offset_tile(offset: np.ndarray, image_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Colours and sparse arrows from pixels to their seeds, with the colour wheel as key."""
    height, width = image_size
    shift = offset * np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    length = np.hypot(shift[..., 0], shift[..., 1])
    longest = max(float(np.percentile(length, 99)), 0.01)
    shown = resized(shift, size, align_corners=True)
    picture = offset_colors(shown, longest)
    for y, x in np.ndindex(size[0] // ARROW_SPACING, size[1] // ARROW_SPACING):
        middle = ARROW_SPACING * (np.array([x, y]) + 0.5)
        arrow = shown[tuple(middle.astype(int)[::-1])] / longest
        arrow *= 0.425 * ARROW_SPACING / max(1, np.hypot(*arrow))
        if np.hypot(*arrow) > 0.5:
            tail, head = (np.rint(16 * end).astype(int).tolist() for end in (middle - arrow, middle + arrow))
            cv2.arrowedLine(picture, tail, head, (70, 70, 70), 1, cv2.LINE_AA, shift=4, tipLength=0.3)

    across = np.linspace(-1, 1, 4 * 72, dtype=np.float32)
    disc = np.stack(np.meshgrid(across, across), axis=-1)
    wheel = np.where(np.hypot(*disc.T)[..., None] > 1, np.uint8(255), offset_colors(disc, 1.0))
    said = [[text("hue: where the seed lies")], [text(f"full saturation: {longest:.3g} px")]]
    key = arranged([[cv2.resize(wheel, (72, 72), interpolation=cv2.INTER_AREA), arranged(said, down=4)]])
    return _tile(picture, "offsets", text(f"mean {length.mean():.3g} px", FAINT_INK), key=key)


def _confidence_tile(confidence: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The weight of the seed prediction in the fused one, with its scale as key."""
    colormap = matplotlib.colormaps["viridis"]
    picture = colormap(resized(confidence, size, align_corners=True), bytes=True)[..., :3]
    scale = colormap(np.tile(np.linspace(0, 1, size[1]), (20, 1)), bytes=True)[..., :3]
    marks = [text(mark) for mark in ("0: initial", "0.5", "1: seed")]
    space = (size[1] - sum(mark.shape[1] for mark in marks)) // 2
    key = arranged([[scale], [arranged([marks], across=max(GAP, space))]], down=0)
    note = text(f"mean {confidence.mean():.2f}", FAINT_INK)
    return _tile(picture, "confidence", note, key=key)


def _tile_size(image_size: tuple[int, int], columns: int) -> tuple[int, int]:
    """(height, width) that fills the sheet's width; a whole multiple of the image's where one is near."""
    height, width = image_size
    factor = min(TILES_WIDTH / columns / width, TILE_MAX_HEIGHT / height)
    whole = round(factor)
    if abs(whole / factor - 1) < 0.15:
        factor = whole
    return max(1, round(height * factor)), max(1, round(width * factor))


def _resize_nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
