"""One small street scene, painted from far to near in flat polygons that a pinhole camera sees.

A road with markings that run to the vanishing point, pavements and two rows of facades; in front of them trees, poles,
cars and people that hide one another. Light, haze, colours and noise are drawn anew for every scene, and road,
pavement, walls and poles share their greys: a pixel's class follows from context and geometry, not from its colour
alone.

World frame, in metres: x to the right from the middle of the street, y up from the road, z along it from the camera.
Colours are RGB, 0 to 255.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, POLE, CAR, PERSON = range(8)
NEAREST = 1.0  # near plane: polygons are clipped at this z

# Of skies: zenith, horizon, tint of the light.
SKIES, WALLS, LEAVES, PAINTS, SKINS, (GLASS, DARK, BARK) = map(
    np.array, json.loads(Path(__file__).with_name("street_colors.json").read_bytes()).values()
)

# Corners of polygons: the four of a square from x = -1 to 1 and y = 0 to 1, and those of a circle.
ACROSS, UP = np.array(((-1, 1, 1, -1), (0, 0, 1, 1)))
COS, SIN = (wave(np.arange(12) * np.pi / 6) for wave in (np.cos, np.sin))


def render_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One street scene of size (H, W): image, uint8 RGB [H, W, 3], and label, uint8 class ids [H, W]."""
    kerb = rng.uniform(3.2, 5.2)
    front, end = kerb + rng.uniform(2.0, 3.8), rng.uniform(38, 100)
    picture = Picture(rng, size)
    _paint_ground(rng, picture, kerb, front, end)
    _paint_houses(rng, picture, front, end)
    for z, x, paint in sorted(_things(rng, kerb, front), key=lambda thing: -thing[0]):
        paint(rng, picture, x, z)
    return _photograph(rng, picture.image), picture.label


class Picture:
    """An image, uint8 RGB [H, W, 3], and its label, uint8 [H, W], of sky at first, with a camera and the air before it.

    focal: pixels. centre: the vanishing point (x, y) in pixels. x, y: where the camera is, in metres, at z = 0.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]):
        height, width = size
        self.focal = width * rng.uniform(0.5, 0.66)
        self.centre = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.40, 0.54)
        self.x, self.y = rng.uniform(-0.8, 2.4), rng.uniform(1.3, 2.7)
        zenith, self._horizon, self._tint = SKIES[rng.integers(len(SKIES))]
        self._haze = rng.uniform(80, 300)  # metres of air that take away 63 % of a colour
        share = np.clip(np.arange(height) / self.centre[1], 0, 1)[:, None, None]
        clouds = cv2.resize(rng.standard_normal((6, 8)), (width, height), interpolation=cv2.INTER_CUBIC)
        cover = np.clip(clouds - rng.uniform(0, 1), 0, 0.8)[..., None]
        sky = zenith + (self._horizon - zenith) * share
        self.image = (sky + (248 * self._tint - sky) * cover).clip(0, 255).astype(np.uint8)
        self.label = np.full(size, SKY, np.uint8)

    def paint(self, class_id: int | None, color: np.ndarray, x, y, z) -> None:
        """Polygons of one colour [3], soft at their edges in the image and hard in the label; None: not in the label.

        x, y, z: of their corners, [n] or [..., n] of several polygons, or one number for all.
        """
        x, y, z = np.broadcast_arrays(x, y, z)
        scale = self.focal / np.maximum(z, NEAREST)
        corners = np.stack([scale * (x - self.x), scale * (self.y - y)], -1) + self.centre
        sixteenths = np.rint(16 * corners.clip(-4096, 4096)).astype(np.int32)
        polygons = list(sixteenths.reshape(-1, *corners.shape[-2:]))
        color = self._horizon + (color * self._tint - self._horizon) * np.exp(-z.mean() / self._haze)
        cv2.fillPoly(self.image, polygons, color.clip(0, 255).tolist(), cv2.LINE_AA, shift=4)
        if class_id is not None:
            cv2.fillPoly(self.label, polygons, class_id, cv2.LINE_8, shift=4)


def _paint_ground(rng, picture: Picture, kerb: float, front: float, end: float) -> None:
    """Paints the ground in stripes across the street, each in its own tone, and road markings."""
    tones = (70, 125), (115, 185), (175, 215)
    asphalt, stone, white = (rng.uniform(*tone) + rng.normal(0, 5, 3) for tone in tones)
    lawn, edges = rng.choice(LEAVES), np.geomspace(end, NEAREST, 25)
    for far, near in zip(edges[:-1], edges[1:], strict=True):
        rough, z = rng.normal(0, 3), near + (far - near) * UP
        picture.paint(VEGETATION, lawn + rough, (front + 9) * ACROSS, 0, z)
        picture.paint(PAVEMENT, stone + rough, front * ACROSS, 0, z)
        picture.paint(ROAD, asphalt - 22, kerb * ACROSS, 0, z)
        picture.paint(ROAD, asphalt + rough, (kerb - 0.2) * ACROSS, 0, z)
    dashes = np.arange(NEAREST, end, 5)[:, None] + 2.7 * UP
    picture.paint(ROAD, white, 0.08 * ACROSS, 0, dashes)
    stripes = np.arange(0.5 - kerb, kerb - 0.5)[:, None] + 0.5 * np.roll(UP, 1)
    picture.paint(ROAD, white, stripes, 0, rng.uniform(7, 45) + 3 * UP)


def _paint_houses(rng, picture: Picture, front: float, end: float) -> None:
    """Paints houses at the street's end and on both sides: gables, facades with windows, and trees in the gaps."""
    for x in np.arange(-60, 60, 8):
        picture.paint(BUILDING, rng.choice(WALLS), x + 4.1 * ACROSS, rng.uniform(4, 11) * UP, end)
    shades = 1 + rng.uniform(-0.15, 0.15) * np.array((-1, 1))
    for side, shade in zip((-1, 1), shades, strict=True):
        stop = end
        while stop > NEAREST:
            start = stop - rng.uniform(6, 13)
            if rng.random() < 0.16:
                for z in np.arange(stop, max(start, 3), -2.5):
                    _paint_tree(rng, picture, side * (front + 2.5), z)
            else:
                floors, height, bays = rng.integers(1, 5), rng.uniform(2.7, 3.4), rng.integers(2, 6)
                color, top = rng.choice(WALLS) + rng.normal(0, 10, 3), floors * height + 0.8
                if start > NEAREST:
                    picture.paint(BUILDING, 0.8 * color, side * (front + 9 * UP), top * np.roll(UP, 1), start)
                depth = np.maximum(start + (stop - start) * np.roll(UP, 1), NEAREST)
                picture.paint(BUILDING, shade * color, side * front, top * UP, depth)
                picture.paint(BUILDING, 0.6 * color, side * front, top - 0.5 * UP, depth)
                bay = (stop - start) / bays
                windows = start + bay * (np.arange(bays)[:, None, None] + 0.5 + rng.uniform(0.18, 0.35) * ACROSS)
                sills = height * np.arange(floors)[:, None] + 0.9
                color = GLASS + rng.uniform(-20, 60)
                picture.paint(BUILDING, color, side * front, sills + (height - 1.5) * UP, windows)
            stop = start


def _things(rng, kerb: float, front: float) -> Iterator[tuple[float, float, Callable]]:
    """z, x and what paints it there: cars in lanes and, where the road is wide, parked; poles and trees at the kerbs;
    people on the pavements, and some who cross the road."""
    for side in (-1, 1):
        for lane in (0.5 * kerb,) if kerb < 4.3 else (0.36 * kerb, kerb - 1.05):
            for z in rng.uniform(6, 18) + 9 * np.arange(rng.integers(0, 4)):
                yield z + rng.uniform(-2, 2), side * lane, _paint_car
        for z in rng.uniform(5, 12) + 7 * np.arange(rng.integers(2, 4)):
            yield z + rng.uniform(-2, 2), side * (kerb + 0.35), _paint_pole
        for z in rng.uniform(10, 25) + 8 * np.arange(rng.integers(0, 4)):
            yield z, side * (kerb + 0.7), _paint_tree
    for _ in range(rng.integers(4, 8)):
        x = rng.uniform(0, kerb) if rng.random() < 0.2 else rng.uniform(kerb + 0.5, front - 0.4)
        yield rng.uniform(4.2, 9), rng.choice((-1, 1)) * x, _paint_person


def _paint_car(rng, picture: Picture, x: float, z: float) -> None:
    """Paints the visible faces of a car, a box with a cabin."""
    color, glass, roof = (rng.choice(PAINTS) + rng.normal(0, 10, 3), GLASS - rng.uniform(0, 30), rng.uniform(1.4, 1.9))
    side = x + np.sign(picture.x - x) * 0.9
    picture.paint(None, DARK, x + 1.1 * ACROSS, 0, z - 2.2 + 4.4 * UP)  # the shadow
    along, up = (-2.1, 2.1, 2.1, 1, 0.4, -1.4, -2.1), (0.25, 0.25, 0.8, 0.95, roof, roof, 0.95)
    picture.paint(CAR, 0.85 * color, side, up, z + np.array(along))
    picture.paint(CAR, glass, side, 1 + (roof - 1.1) * UP, z + np.array((-1.7, 0.7, 0.3, -1.4)))
    wheels = np.array(((-1.3,), (1.3,))) + 0.34 * COS
    picture.paint(CAR, DARK, side, 0.34 + 0.34 * SIN, z + wheels)
    picture.paint(CAR, 1.1 * color, x + 0.9 * ACROSS, roof, z - 1.4 + 1.8 * UP)
    picture.paint(CAR, glass, x + 0.9 * ACROSS, 0.95 + (roof - 0.95) * UP, z - 2.1 + 0.7 * UP)
    picture.paint(CAR, color, x + 0.9 * ACROSS, 0.25 + 0.7 * UP, z - 2.1)
    lamps = np.array(((-0.67,), (0.67,))) + 0.17 * ACROSS
    picture.paint(CAR, np.array((214, 34, 30) if x > 0 else (250, 244, 214)), x + lamps, 0.68 + 0.16 * UP, z - 2.1)


def _paint_pole(rng, picture: Picture, x: float, z: float) -> None:
    """A street lamp or a road sign; its post is at least four pixels wide."""
    half, metal = max(0.1, 1.8 * z / picture.focal), np.full(3, rng.uniform(45, 95))
    is_lamp = rng.random() < 0.5
    height = rng.uniform(5, 6.2) if is_lamp else rng.uniform(2.4, 3)
    picture.paint(POLE, metal, x + half * ACROSS, height * UP, z)
    if is_lamp:
        picture.paint(POLE, metal, x - np.sign(x) * 1.3 * np.roll(UP, 1), height - 0.2 + 0.3 * UP, z)
    else:
        radius = max(0.42, 2.2 * half)
        picture.paint(POLE, rng.choice(PAINTS), x + radius * COS, height + radius * SIN, z)


def _paint_tree(rng, picture: Picture, x: float, z: float) -> None:
    trunk, radius, leaves = rng.uniform(2.0, 3.2), rng.uniform(1.1, 2.0), rng.choice(LEAVES)
    picture.paint(VEGETATION, BARK, x + 0.15 * ACROSS, (trunk + 0.4) * UP, z)
    for level in np.linspace(-0.6, 0.8, 20):
        aside, size = rng.triangular(-0.8, 0, 0.8), rng.uniform(0.25, 0.4)
        color = (0.9 + 0.3 * level + rng.normal(0, 0.08)) * leaves
        up = trunk + radius * (0.75 + level + size * SIN)
        picture.paint(VEGETATION, color, x + radius * (aside + size * COS), up, z)


def _paint_person(rng, picture: Picture, x: float, z: float) -> None:
    tall, stride = rng.uniform(0.7, 1.1), rng.uniform(0.05, 0.3)
    shirt, trousers = rng.choice(PAINTS, 2)
    picture.paint(None, DARK, x + 0.35 * COS, 0, z + 0.35 * SIN)  # the shadow
    for foot in (-stride, stride):
        leg = np.array((foot - 0.1, foot + 0.1, 0.15, -0.15))
        picture.paint(PERSON, (0.65 + foot) * trousers, x + tall * leg, tall * 0.9 * UP, z)
    picture.paint(PERSON, shirt, x + tall * (0.2 + 0.12 * UP) * ACROSS, tall * (0.85 + 0.6 * UP), z)
    picture.paint(PERSON, rng.choice(SKINS), x + tall * 0.16 * COS, tall * (1.62 + 0.17 * SIN), z)


def _photograph(rng, image: np.ndarray) -> np.ndarray:
    """Lens and sensor, uint8 RGB [H, W, 3] to the same: blur, exposure, white balance, noise."""
    exposed = cv2.GaussianBlur(image, (3, 3), 0.5) * (rng.uniform(0.85, 1.12) * rng.normal(1, 0.035, 3))
    noise = rng.uniform(2, 5) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(exposed + noise), 0, 255).astype(np.uint8)
