"""Class tables: names, colours and label ids of the classes of a data set. Those of official data sets are JSON files
in class_tables/, in the form of an own data set's classes.yaml."""

import colorsys
import itertools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IGNORE = 255
KEYS = ("classes", "ignored", "ignored_colors", "void", "flip", "source", "image_end", "label_end", "channels")
COLORS = ("red", "green", "blue")  # the channels of usual images
MOST_CHANNELS = 128  # that OpenCV resizes


@dataclass(frozen=True)
class Labels:
    """The classes of one data set, in the order of their train ids 0 to K - 1.

    names: K class names. colors: K RGB colours, 0 to 255. ids: for each class the label ids that the data set's
    files use for it. ignored_ids: label ids that belong to no class; they become IGNORE and never count.
    void_id: the label id that IGNORE becomes where label maps are written. flip_pairs: pairs of train ids that are
    swapped when the image is mirrored, such as left and right arm. ignored_colors: where files hold colours instead of
    ids, those that belong to no class. channels: the names of the channels of images; () for usual ones.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ids: tuple[tuple[int, ...], ...]
    ignored_ids: tuple[int, ...] = ()
    void_id: int = IGNORE
    flip_pairs: tuple[tuple[int, int], ...] = ()
    ignored_colors: tuple[tuple[int, int, int], ...] | None = None
    channels: tuple[str, ...] = ()

    def train_ids(self) -> np.ndarray:
        """Lookup table, uint8 [256]: label id -> train id, IGNORE for every id that belongs to no class."""
        table = np.full(256, IGNORE, np.uint8)
        for train_id, ids in enumerate(self.ids):
            table[list(ids)] = train_id
        return table

    def label_ids(self) -> np.ndarray:
        """Lookup table, uint8 [256]: train id -> first label id of the class, void_id for all others."""
        table = np.full(256, self.void_id, np.uint8)
        table[: len(self.ids)] = [ids[0] for ids in self.ids]
        return table

    def known_ids(self) -> frozenset[int]:
        """All label ids that may occur in a label file."""
        return frozenset(self.ignored_ids).union(*self.ids)


def numbered(count: int) -> Labels:
    """Classes "class 0" to "class <count - 1>" for a model of no known data set; label ids are train ids."""
    hues = [i * 0.618 % 1 for i in range(count)]  # golden section: neighbours in the order are far apart
    shades = [((1.0, 1.0), (0.55, 1.0), (1.0, 0.6))[i % 3] for i in range(count)]
    colors = [colorsys.hsv_to_rgb(hue, *shade) for hue, shade in zip(hues, shades, strict=True)]
    return Labels(
        names=tuple(f"class {i}" for i in range(count)),
        colors=tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colors),
        ids=tuple((i,) for i in range(count)),
    )


def described(content: object) -> Labels:
    """The classes that the content of a class table describes.

    classes: [{name, color: [red, green, blue], ids: [label id, ...]}, ...]. Optional are ignored: label ids that belong
    to no class; ignored_colors: where labels are colours, those of no class; void: the label id of ignored pixels in
    written maps (by default the highest free one); flip: pairs of names that are swapped when an image is mirrored;
    source: a text; channels: names of the channels of images. Raises ValueError: another form.
    """
    content = {key: x for key, x in content.items() if x is not None} if isinstance(content, dict) else {}
    rows = content.get("classes")
    if not isinstance(rows, list) or not rows:
        raise ValueError("expected 'classes:' with a list of classes")
    if unknown := content.keys() - KEYS:
        raise ValueError(f"{unknown.pop()!r} is unknown; known are {', '.join(map(repr, KEYS))}")
    classes: list[tuple[str, tuple[int, int, int], tuple[int, ...]]] = []
    for row in rows:
        if not isinstance(row, dict) or row.keys() != {"name", "color", "ids"}:
            raise ValueError(f"expected a class with name, color and ids, got {row!r}")
        if not isinstance(row["name"], str):
            raise ValueError(f"name {row['name']!r}: expected a text; put it in quotation marks")
        color = _color(row["color"], f"color of {row['name']}")
        classes.append((row["name"], color, _ids(row["ids"], f"ids of {row['name']}")))
    names, colors, ids = zip(*classes, strict=True)
    ignored = _ids(content.get("ignored", []), "ignored")
    flip = content.get("flip", [])
    if not isinstance(flip, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in flip):
        raise ValueError(f"flip: expected a list of pairs of classes, got {flip!r}")
    mirrored = list(itertools.chain(*flip))
    if foreign := [name for name in mirrored if name not in names]:
        raise ValueError(f"flip: {foreign[0]!r} is not a class")
    without = content.get("ignored_colors")
    if not isinstance(without, list | None):
        raise ValueError(f"ignored_colors: expected a list of colours, got {without!r}")
    ignored_colors = None if without is None else tuple(_color(color, "ignored_colors") for color in without)
    all_ids, all_colors = [*itertools.chain(*ids), *ignored], () if ignored_colors is None else colors + ignored_colors
    channels = content.get("channels", [])
    named = isinstance(channels, list) and all(isinstance(name, str) for name in channels)
    if not named or len(channels) == 1 or len(channels) > MOST_CHANNELS:
        raise ValueError(f"channels: expected a list of 2 to {MOST_CHANNELS} names, got {channels!r}")
    once = {"name": names, "id": all_ids, "color": all_colors, "flipped class": mirrored, "channel": channels}
    for what, values in once.items():
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise ValueError(f"the {what} {twice[0]} is there twice")
    if any(not of_class for of_class in ids):
        raise ValueError("every class needs an id")
    free = set(range(256)).difference(*ids)
    if not free:
        raise ValueError("at most 255 of the ids 0 to 255 can belong to classes")
    void = content.get("void", max(free))
    if type(void) is not int or void not in free:
        raise ValueError(f"void: expected an id from 0 to 255 that belongs to no class, got {void!r}")
    if len(names) == 1:
        raise ValueError(f"{names[0]} is the only class; the background is a class, too: describe both")
    flip_pairs = tuple((names.index(a), names.index(b)) for a, b in flip)
    return Labels(names, colors, ids, ignored, void, flip_pairs, ignored_colors, tuple(channels))


def _color(values: object, what: str) -> tuple[int, int, int]:
    color = _ids(values, what)
    if len(color) != 3:
        raise ValueError(f"{what}: expected [red, green, blue], got {values}")
    return color[0], color[1], color[2]


def _ids(values: object, what: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v <= 255 for v in values):
        raise ValueError(f"{what}: expected a list of whole numbers from 0 to 255, got {values!r}")
    return tuple(values)


_TABLES = (Path(__file__).parent / "class_tables").glob("*.json")
OFFICIAL = {path.stem: described(json.loads(path.read_bytes())) for path in _TABLES}  # by the names of data sets
CITYSCAPES = OFFICIAL["acdc"] = OFFICIAL["cityscapes"]  # Sakaridis, Dai, Van Gool, "ACDC", ICCV 2021
TOY_STREETS = OFFICIAL["toy_streets"]
