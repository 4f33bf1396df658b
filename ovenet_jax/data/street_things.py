"""What stands on a toy street: cars, trees, poles and people, made of flat polygons."""

from collections.abc import Iterator
from itertools import pairwise, product
from typing import NamedTuple

import cv2
import numpy as np

from ovenet_jax.data.street_world import CAR, PERSON, POLE, VEGETATION, Camera, Light, Street

PAINTS = (
    (196, 40, 38), (36, 74, 150), (226, 226, 224), (40, 42, 46), (130, 134, 140), (232, 190, 52),
    (58, 120, 82), (176, 196, 206), (150, 92, 56), (92, 40, 66), (240, 130, 50), (100, 170, 190),
)  # fmt: skip
CLOTHES = (*PAINTS, (236, 214, 196), (60, 70, 100), (120, 110, 90), (210, 90, 120))
SKINS = ((240, 200, 170), (214, 164, 130), (150, 104, 78), (96, 66, 50))
HAIRS = ((40, 30, 24), (90, 60, 36), (180, 150, 90), (120, 118, 116))
SIGNS = ((206, 40, 36), (38, 84, 170), (240, 240, 236), (244, 200, 40))

SQUARE, RISE = np.asarray(((-1, 1, 1, -1), (0, 0, 1, 1)), np.float32)
TURN = np.linspace(0, 2 * np.pi, 10, endpoint=False, dtype=np.float32)
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)])

# Cars from the side: corners (along, up) in metres, rear to front; glass begins at corners 2 and 4.
SALOON = np.asarray(
    ((-2.05, 0.28), (-2.1, 0.7), (-1.95, 0.95), (-1.45, 1.42), (0.15, 1.46), (0.95, 0.98), (1.95, 0.8),
     (2.1, 0.55), (2.05, 0.28)),
    np.float32,
)  # fmt: skip
VAN = np.asarray(
    ((-2.2, 0.28), (-2.25, 0.8), (-2.2, 1.1), (-2.1, 1.95), (1.0, 2.0), (1.6, 1.2), (2.15, 1.0),
     (2.25, 0.6), (2.2, 0.28)),
    np.float32,
)  # fmt: skip


class Thing(NamedTuple):
    """What stands on the street: polygons in drawing order, world points [n, 3] and colour [3] each.

    z: for the order of things. shadow: a polygon [n, 3] on the ground.
    """

    z: float
    class_id: int
    polygons: list[tuple[np.ndarray, np.ndarray]]
    shadow: np.ndarray


def draw_things(rng, image, label, street: Street, camera: Camera, light: Light) -> None:
    """Draws things and their shadows into an image, uint8 RGB [H, W, 3], and its label, uint8 [H, W], in place.

    Edges are soft in the image and hard in the label.
    """
    cars, poles = _cars(rng, street, camera), _poles(rng, street, camera)
    things = [*cars, *_trees(rng, street), *poles, *_people(rng, street)]
    _draw_shadows(image, camera, light, things)
    for thing in sorted(things, key=lambda thing: -thing.z):
        points, colors = zip(*thing.polygons, strict=True)
        ends = np.cumsum([len(polygon) for polygon in points])
        corners = np.split(_pixels(camera, np.concatenate(points)), ends[:-1])
        colors = light.veil(np.stack(colors) * light.tint, np.full(len(colors), thing.z)).clip(0, 255)
        for polygon, color in zip(corners, colors.tolist(), strict=True):
            cv2.fillPoly(image, [polygon], color, cv2.LINE_AA, shift=4)
            cv2.fillPoly(label, [polygon], thing.class_id, cv2.LINE_8, shift=4)


def _draw_shadows(image: np.ndarray, camera: Camera, light: Light, things: list[Thing]):
    mask = np.zeros(image.shape[:2], np.uint8)
    for thing in things:
        cv2.fillPoly(mask, [_pixels(camera, thing.shadow)], 255, cv2.LINE_AA, shift=4)
    mask = cv2.GaussianBlur(mask, (3, 3), 0).astype(np.float32)
    image[:] = image * (1 - mask * np.float32((0.4 + 0.2 * light.sun) / 255))[..., None]


def _pixels(camera: Camera, points: np.ndarray) -> np.ndarray:
    """World points [n, 3] -> pixels [n, 2] (x, y) in sixteenths, as OpenCV's drawing takes them."""
    return np.rint(camera.project(points).clip(-4096, 4096) * 16).astype(np.int32)


def _points(x, y, z) -> np.ndarray:
    """World points [n, 3] from coordinates that are [n] or one number for all."""
    return np.stack(np.broadcast_arrays(x, y, z), 1)


def _flat(class_id: int, x: float, z: float, parts, shadow: float) -> Thing:
    """A thing that faces along -z. parts: across [n], up [n] in metres and colour [3] each. shadow: its radius."""
    polygons = [(_points(x + across, up, z), color) for across, up, color in parts]
    return Thing(z, class_id, polygons, _points(x + shadow * CIRCLE[0], 0, z + shadow * CIRCLE[1]))


def _cars(rng, street: Street, camera: Camera) -> Iterator[Thing]:
    """Cars in two lanes and, where the road is wide, parked at both kerbs."""
    tracks = [(0.5 * street.kerb, 8.5)]
    if street.kerb > 4.3:
        tracks = [(0.36 * street.kerb, 8.5), (street.kerb - 1.05, 4.5)]
    for side, (x, z) in product((-1, 1), tracks):
        z += rng.uniform(0, 6)
        while z < min(street.end - 4, 32):
            if rng.random() < 0.55:
                yield _car(rng, camera, side * x + rng.normal(0, 0.12), z)
            z += rng.uniform(5.2, 13)


def _car(rng, camera: Camera, x: float, z: float) -> Thing:
    """A side view, extruded; of its faces, those that the camera sees. On the right it drives along z."""
    profile = (VAN if rng.random() < 0.2 else SALOON) * rng.uniform((0.9, 0.95), (1.1, 1.08))
    low, high, length = profile[2, 1], profile[:, 1].max(), profile[:, 0].max()
    paint, glass = rng.choice(PAINTS) + rng.normal(0, 10, 3), (38, 46, 58) + rng.uniform(20, 60, 1)
    heading, side = np.sign(x), np.sign(camera.x - x)
    polygons = []

    def add(across, along, up, color):
        polygons.append((_points(x + across, up, z + heading * along), color))

    def half_width(up):
        return 0.9 - 0.2 * np.clip((up - low) / (high - low), 0, 1)

    for i, (start, stop) in enumerate(pairwise(profile)):
        out_along, out_up = start[1] - stop[1], stop[0] - start[0]
        middle = (start + stop) / 2
        if out_along * (-heading * z - middle[0]) + out_up * (camera.y - middle[1]) > 0:
            along, up = np.stack([start, start, stop, stop], 1)
            shade = 0.8 + 0.25 * out_up / np.hypot(out_along, out_up)
            add(SQUARE * half_width(up), along, up, paint * shade)
            if i in (2, 4):
                along, up = middle[:, None] + 0.78 * (np.stack([along, up]) - middle[:, None])
                add(SQUARE * (half_width(up) - 0.1), along, up, glass)
    lamp, height = ((214, 34, 30), 0.72) if heading > 0 else ((250, 244, 214), 0.6)
    for across in (-0.67, 0.67):
        add(across + 0.17 * SQUARE, -heading * length, height + 0.16 * RISE, lamp)
    if abs(camera.x - x) > 0.9:
        along, up = profile.T
        add(side * half_width(up), along, up, paint * 0.9)
        along = profile[[3, 3, 4, 4], 0] + (-0.2, 0.1, 0, 0.5)
        up = low + 0.04 + (high - low - 0.14) * np.roll(RISE, -1)
        add(side * half_width(up), along, up, glass)
        for end in (-0.63, 0.63):
            add(side * 0.91, end * length + 0.34 * CIRCLE[0], 0.34 + 0.34 * CIRCLE[1], (24, 24, 27))
    return Thing(z, CAR, polygons, _points(x + 1.05 * SQUARE, 0, z + 1.05 * length * (2 * RISE - 1)))


def _trees(rng, street: Street) -> Iterator[Thing]:
    for side in (-1, 1):
        z = rng.uniform(7, 20)
        while z < min(street.end, 40) and rng.random() < 0.7:
            yield _tree(rng, side * (street.kerb + 0.7), z, street.leaves + rng.normal(0, 8, 3))
            z += rng.uniform(5, 12)


def _tree(rng, x: float, z: float, green: np.ndarray) -> Thing:
    """A trunk, and a crown of overlapping discs: the low ones first and darker."""
    trunk, radius = rng.uniform(2.0, 3.2), rng.uniform(1.1, 2.0)
    parts = [(0.12 * radius * SQUARE, (trunk + 0.4) * RISE, (96, 78, 62))]
    for level in np.sort(rng.triangular(-0.8, 0, 0.8, 40)):
        leaves = rng.uniform(0.2, 0.36) * CIRCLE
        across, up = rng.triangular(-0.8, 0, 0.8) + leaves[0], 0.75 + 0.9 * level + leaves[1]
        tone = 0.9 + 0.35 * level + rng.normal(0, 0.08)
        parts.append((radius * across, trunk + radius * up, tone * green))
    return _flat(VEGETATION, x, z, parts, 0.7 * radius)


def _poles(rng, street: Street, camera: Camera) -> Iterator[Thing]:
    """Street lamps, road signs and traffic lights at both kerbs."""
    for side in (-1, 1):
        x, z = side * (street.kerb + 0.35), rng.uniform(5, 10)
        for _ in range(rng.integers(2, 4)):
            half = max(0.1, 1.8 * z / camera.focal)  # at least four pixels wide
            kind = rng.choice((_lamp, _sign, _signal), p=(0.5, 0.35, 0.15))
            parts = kind(rng, half, metal=np.full(3, rng.uniform(45, 95)))
            yield _flat(POLE, x, z, [(-side * across, up, color) for across, up, color in parts], 0.25)
            z += rng.uniform(4, 9)


def _lamp(rng, half, metal):
    """Parts as `_flat` takes them, but across towards the road; the post is 2 * half wide."""
    height = rng.uniform(5, 6.2)
    post = half * SQUARE, height * RISE, metal
    arm = 0.65 + 0.65 * SQUARE, height - 0.2 + 0.3 * RISE, metal
    head = 1.3 + max(0.4, 3 * half) * SQUARE, height + 0.3 * RISE, (232, 226, 200)
    return [post, arm, head]


def _sign(rng, half, metal):
    """Parts as of a `_lamp`."""
    turn = np.linspace(0, 2 * np.pi, rng.choice((3, 4, 12)), endpoint=False) + np.pi / 2
    radius, height = max(0.42, 2.2 * half), rng.uniform(2.3, 2.9)
    parts = [(half * SQUARE, height * RISE, metal)]
    for r, color in ((radius, 190 + 0.5 * metal), (0.78 * radius, rng.choice(SIGNS))):
        parts.append((r * np.cos(turn), height + r * np.sin(turn), color))
    return parts


def _signal(rng, half, metal):
    """Parts as of a `_lamp`."""
    wide, on = max(0.2, 1.6 * half), rng.integers(3)
    parts = [(half * SQUARE, 3 * RISE, metal), (wide * SQUARE, 2.5 + 1.1 * RISE, 0.5 * metal)]
    for i, color in enumerate(((230, 50, 40), (240, 190, 50), (60, 210, 120))):
        shine = np.multiply(color, 1 if i == on else 0.35)
        parts.append((0.6 * wide * CIRCLE[0], 3.38 - 0.33 * i + 0.13 * CIRCLE[1], shine))
    return parts


def _people(rng, street: Street) -> Iterator[Thing]:
    """On the pavements, and some who cross the road before the first car and between those that park."""
    for _ in range(rng.integers(4, 8)):
        x, z = rng.uniform(street.kerb + 0.5, street.front - 0.4), rng.uniform(4.2, 9)
        if rng.random() < 0.2:
            x, z = rng.uniform(0, street.kerb - 2.2), rng.uniform(4.8, 6)
        yield _person(rng, rng.choice((-1, 1)) * x, z)


def _person(rng, x: float, z: float) -> Thing:
    scale = rng.choice((rng.uniform(0.86, 1.08), rng.uniform(0.58, 0.74)), p=(0.85, 0.15))
    shirt, trousers, skin, hair = (rng.choice(colors) for colors in (CLOTHES, CLOTHES, SKINS, HAIRS))
    stride, swing = rng.uniform(0.05, 0.3), rng.uniform(-0.16, 0.16)
    parts = [
        ((-stride - 0.08, -stride + 0.1, 0.14, -0.12), 0.9 * RISE, trousers * (0.65 - 0.3 * stride)),
        ((stride - 0.08, stride + 0.1, 0.14, -0.12), 0.9 * RISE, trousers * (0.65 + 0.3 * stride)),
        ((-0.3 - swing, -0.2 - swing, -0.14, -0.24), (0.8, 0.78, 1.4, 1.42), shirt * 0.8),
        ((-0.17, 0.17, 0.24, -0.24), 0.86 + 0.58 * RISE, shirt),
        ((0.2 + swing, 0.3 + swing, 0.24, 0.14), (0.78, 0.8, 1.42, 1.4), shirt * 0.9),
        (0.13 * CIRCLE[0], 1.62 + 0.16 * CIRCLE[1], hair),
        (0.105 * CIRCLE[0], 1.585 + 0.12 * CIRCLE[1], skin),
    ]
    parts = [(np.multiply(1.2 * scale, across), np.multiply(scale, up), color) for across, up, color in parts]
    return _flat(PERSON, x, z, parts, 0.4)
