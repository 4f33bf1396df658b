"""One small street scene, drawn by formula.

A scene is a pinhole picture of a straight street: a planar road with markings that run to the
vanishing point, pavements, two rows of facades, and in front of them trees, poles, cars and people
that hide one another by depth. Light, haze, colours, textures and noise are drawn anew for every
scene, and road, pavement and facades share their greys: what a pixel is shows in its surroundings
and in the geometry, not in its colour.

World frame, in metres: x to the right, y up from the road, z along the street; x = 0 is its middle.
Colours are RGB, 0 to 255.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, POLE, CAR, PERSON = range(8)

FACADES = (
    (176, 96, 74), (150, 74, 60), (205, 170, 120), (222, 196, 150), (196, 190, 180), (152, 150, 148),
    (120, 122, 126), (228, 222, 208), (160, 178, 186), (190, 150, 140), (134, 146, 128), (212, 154, 96),
)  # fmt: skip
ROOFS = ((150, 78, 58), (96, 92, 94), (120, 84, 70), (74, 78, 86))
PAINTS = (
    (196, 40, 38), (36, 74, 150), (226, 226, 224), (40, 42, 46), (130, 134, 140), (232, 190, 52),
    (58, 120, 82), (176, 196, 206), (150, 92, 56), (92, 40, 66), (240, 130, 50), (100, 170, 190),
)  # fmt: skip
CLOTHES = (*PAINTS, (236, 214, 196), (60, 70, 100), (120, 110, 90), (210, 90, 120))
SKINS = ((240, 200, 170), (214, 164, 130), (150, 104, 78), (96, 66, 50))
HAIRS = ((40, 30, 24), (90, 60, 36), (180, 150, 90), (120, 118, 116))
LEAVES = ((70, 112, 52), (92, 132, 60), (56, 92, 62), (136, 140, 62), (184, 128, 56))
METALS = ((50, 54, 60), (72, 76, 82), (96, 98, 102), (54, 68, 60))
SIGNS = ((206, 40, 36), (38, 84, 170), (240, 240, 236), (244, 200, 40))
SKIES = (  # zenith, horizon, tint of the light, strength of direct sun
    ((86, 142, 206), (206, 222, 236), (1.04, 1.00, 0.94), 1.0),
    ((122, 160, 200), (232, 226, 212), (1.05, 0.99, 0.90), 0.8),
    ((176, 184, 192), (214, 216, 218), (0.92, 0.94, 0.98), 0.0),
    ((116, 128, 172), (250, 206, 160), (1.08, 0.92, 0.78), 0.9),
    ((148, 158, 172), (196, 204, 214), (0.90, 0.94, 1.00), 0.15),
)

SQUARE = np.float32((-1, 1, 1, -1))
CIRCLE = np.stack(
    [f(np.linspace(0, 2 * np.pi, 10, endpoint=False, dtype=np.float32)) for f in (np.cos, np.sin)]
)

# Cars from the side: corners (along, up) in metres, rear to front; glass begins at corners 2 and 4.
SALOON = np.float32(
    ((-2.05, 0.28), (-2.1, 0.7), (-1.95, 0.95), (-1.45, 1.42), (0.15, 1.46), (0.95, 0.98), (1.95, 0.8),
     (2.1, 0.55), (2.05, 0.28))
)  # fmt: skip
VAN = np.float32(
    ((-2.2, 0.28), (-2.25, 0.8), (-2.2, 1.1), (-2.1, 1.95), (1.0, 2.0), (1.6, 1.2), (2.15, 1.0),
     (2.25, 0.6), (2.2, 0.28))
)  # fmt: skip


def render_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws one street scene of size (H, W).

    Returns:
      image, uint8 RGB [H, W, 3], and label, uint8 class ids [H, W].
    """
    light = _light(rng)
    street = _street(rng)
    camera = _camera(rng, street, size)
    image, label = _draw_street(rng, street, camera, light, size)
    things = [
        *_cars(rng, street, camera),
        *_trees(rng, street, camera),
        *_poles(rng, street, camera),
        *_people(rng, street),
    ]
    _draw_shadows(image, camera, light, things)
    _draw_things(image, label, camera, light, things)
    return _photograph(rng, image), label


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in the street, level but for its roll.

    focal: pixels. centre: (x, y) of the principal point in pixels; without roll y is the horizon's.
    x, y: metres, at z = 0. yaw, roll: radians.
    """

    focal: float
    centre: tuple[float, float]
    x: float
    y: float
    yaw: float
    roll: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points [N, 3] (x, y, z) -> pixels [N, 2] (x, y)."""
        x, y, z = points[:, 0] - self.x, points[:, 1] - self.y, points[:, 2]
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        scale = self.focal / np.maximum(x * sin + z * cos, 0.3)
        right, down = scale * (x * cos - z * sin), -scale * y
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        return np.stack([right * cos - down * sin, right * sin + down * cos], 1) + self.centre

    def rays(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World directions x, y, z, each [H, W], through the pixels of a picture of size (H, W); x is never 0."""
        v, u = np.indices(size, np.float32)
        u, v = (u - self.centre[0]) / self.focal, (v - self.centre[1]) / self.focal
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        right, down = u * cos + v * sin, v * cos - u * sin
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        x = right * cos + sin
        return np.where(x == 0, np.float32(1e-6), x), -down, cos - right * sin


@dataclass(frozen=True)
class Light:
    """Hour and weather. Colours are float32 [3], tint a factor per channel.

    sun: strength of direct light, 0 to 1. side: the x direction it comes from, -1 or 1. reach, slant: a
    shadow's length along x per metre of height, and along -z per metre along x. haze: metres of air that
    take away 63 % of a colour.
    """

    zenith: np.ndarray
    horizon: np.ndarray
    tint: np.ndarray
    sun: float
    side: int
    reach: float
    slant: float
    haze: float

    def shade(self, facing: float) -> np.ndarray:
        """Factor per channel [3] for a wall that faces along x by `facing`, -1 to 1."""
        return (0.84 + 0.24 * self.sun * self.side * facing) * self.tint

    def veil(self, color: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Colours [N, 3] through depth [N] metres of air."""
        return self.horizon + (color - self.horizon) * np.exp(depth / -self.haze)[:, None]


@dataclass(frozen=True)
class Street:
    """The planes of a scene, in metres.

    kerb, front: |x| where the road and the pavement end. end: z where the street ends before trees or houses.
    Buildings are arrays [2, N] (left and right row, near to far): begin (their z), wall and roof (heights, both
    0 for a gap), bay and floor (from window to window), glass (a window's share of its bay), shop (whether the
    ground floor is one), color and roof_color [2, N, 3].
    """

    kerb: float
    front: float
    end: float
    end_class: int
    begin: np.ndarray
    wall: np.ndarray
    roof: np.ndarray
    bay: np.ndarray
    floor: np.ndarray
    glass: np.ndarray
    shop: np.ndarray
    color: np.ndarray
    roof_color: np.ndarray

    def building(self, right: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Flat index of the building beside z [...] in the right or the left row [...]."""
        rows = [np.searchsorted(begin, z, side="right").clip(1) - 1 for begin in self.begin]
        return np.where(right, rows[1] + self.begin.shape[1], rows[0])


class Thing(NamedTuple):
    """What stands on the street: polygons in drawing order, world points [n, 3] and colour [3] each.

    z: for the order of things. shadow: a polygon [n, 3] on the ground.
    """

    z: float
    class_id: int
    polygons: list[tuple[np.ndarray, np.ndarray]]
    shadow: np.ndarray


def _light(rng) -> Light:
    zenith, horizon, tint, sun = SKIES[rng.integers(len(SKIES))]
    return Light(
        zenith=np.float32(zenith + rng.normal(0, 8, 3)),
        horizon=np.float32(horizon + rng.normal(0, 5, 3)),
        tint=np.float32(tint * rng.uniform(0.9, 1.1, 1)),
        sun=sun,
        side=int(rng.choice((-1, 1))),
        reach=rng.uniform(0.3, 1.3),
        slant=rng.uniform(-1, 1),
        haze=rng.uniform(80, 300),
    )


def _street(rng) -> Street:
    kerb = rng.uniform(3.2, 5.2)
    shape = (2, 14)
    house = rng.random(shape) > 0.16
    floor = rng.uniform(2.7, 3.4, shape)
    return Street(
        kerb=kerb,
        front=kerb + rng.uniform(2.0, 3.8),
        end=rng.uniform(38, 100),
        end_class=int(rng.choice((BUILDING, VEGETATION))),
        begin=np.float32(np.cumsum(rng.uniform(6, 13, shape), 1) - rng.uniform(8, 14, (2, 1))),
        wall=np.float32(house * (floor * rng.choice((1, 2, 3, 4), shape, p=(0.2, 0.4, 0.3, 0.1)) + 0.5)),
        roof=np.float32(house * rng.uniform(0.3, 2.4, shape)),
        bay=np.float32(rng.uniform(1.9, 3.2, shape)),
        floor=np.float32(floor),
        glass=np.float32(rng.uniform(0.34, 0.6, shape)),
        shop=rng.random(shape) < 0.4,
        color=np.float32(rng.choice(FACADES, shape) + rng.normal(0, 10, (*shape, 3))),
        roof_color=np.float32(rng.choice(ROOFS, shape) + rng.normal(0, 8, (*shape, 3))),
    )


def _camera(rng, street: Street, size: tuple[int, int]) -> Camera:
    height, width = size
    return Camera(
        focal=width * rng.uniform(0.5, 0.66),
        centre=(width * 0.5, height * rng.uniform(0.40, 0.54)),
        x=street.kerb * rng.uniform(-0.2, 0.6),
        y=rng.uniform(1.3, 2.7),
        yaw=rng.uniform(-0.16, 0.16),
        roll=rng.normal(0, 0.015),
    )


def _draw_street(rng, street: Street, camera: Camera, light: Light, size) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of the empty street: of each pixel, the first plane that its ray meets."""
    x, y, z = camera.rays(size)
    noise = rng.standard_normal((128, 128), np.float32)
    image = _sky(rng, light, x, y, z)
    label = np.full(size, SKY, np.uint8)
    green = _pick(rng, LEAVES) * light.tint
    crowns = rng.uniform(0, 6, 3)

    def paint(mask, color, class_id, depth):
        image[mask], label[mask] = light.veil(color, depth), class_id

    def paint_trees(mask, along, up, depth, tone):
        mask = mask & (up > 0) & (up < 9.3)
        top = np.sin(along[mask] * 2.3 + crowns[2]) + 1.8 * np.abs(np.sin(along[mask] * 0.7 + crowns[1]))
        mask[mask] = up[mask] < 3.5 + 0.5 * crowns[0] + top
        rough = 1 + 0.16 * _texture(noise, along[mask] * 3, up[mask] * 3)
        paint(mask, green * tone * rough[:, None], VEGETATION, depth[mask])

    # where the street ends
    depth = np.full(size, street.end, np.float32)
    along, up = camera.x + street.end / z * x, camera.y + street.end / z * y
    if street.end_class == VEGETATION:
        paint_trees(True, along, up, depth, 1)
    else:
        mask = (up > 0) & (up < 5 + 4 * (np.floor(along / 9) % 2))
        windows = (along[mask] / 2.4 % 1 < 0.45) & (up[mask] / 3 % 1 < 0.6)
        color = _pick(rng, FACADES) * light.shade(0)
        paint(mask, color * (1 - 0.35 * windows[:, None]), BUILDING, depth[mask])

    # trees behind the houses, seen through the gaps
    side = np.sign(x)
    reach = (side * (street.front + 9) - camera.x) / x
    depth = reach * z
    paint_trees(depth < street.end, depth, camera.y + reach * y, depth, 0.8)

    # the ground
    reach = camera.y / np.maximum(-y, 1e-6)
    mask = (y < 0) & (reach * z < street.end) & (np.abs(camera.x + reach * x) < street.front + 9)
    depth = (reach * z)[mask]
    color, class_id = _ground(rng, street, light, noise, green, (camera.x + reach * x)[mask], depth)
    paint(mask, color, class_id, depth)

    # gable walls, far to near, that rise above the house before them
    heights = street.wall + street.roof
    for row, sign in enumerate((-1, 1)):
        for i in range(len(heights[row]) - 1, 0, -1):
            begin, height = street.begin[row, i], heights[row, i]
            if 1 < begin < street.end and height > heights[row, i - 1]:
                along, up = sign * (camera.x + begin / z * x) - street.front, camera.y + begin / z * y
                mask = (along > 0) & (along < 9) & (up > 0) & (up < height)
                rough = 0.86 + 0.04 * _texture(noise, along[mask] * 8, up[mask] * 8)
                color = street.color[row, i] * light.shade(0) * rough[:, None]
                paint(mask, color, BUILDING, np.full(len(color), begin))

    # the facades
    reach = (side * street.front - camera.x) / x
    depth, up = reach * z, camera.y + reach * y
    index = street.building(side > 0, depth)
    mask = (up >= 0) & (up < heights.ravel()[index]) & (depth < street.end)
    paint(mask, _facade(street, light, noise, index[mask], up[mask], depth[mask]), BUILDING, depth[mask])
    return np.clip(image, 0, 255).astype(np.uint8), label


def _sky(rng, light: Light, x, y, z) -> np.ndarray:
    """A gradient, and clouds on a plane overhead: float32 [H, W, 3] for rays x, y, z, each [H, W]."""
    height = np.sqrt(np.clip(y / 0.45, 0, 1))[..., None]
    color = light.horizon + (light.zenith - light.horizon) * height
    clouds = cv2.resize(rng.standard_normal((32, 32), np.float32), (256, 256), interpolation=cv2.INTER_CUBIC)
    scale = 20 / (np.maximum(y, 0) + 0.16)
    cover = cv2.remap(clouds, x * scale + 128, z * scale, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    cover = np.clip(cover - rng.uniform(-0.2, 0.7), 0, 0.8) * np.clip(y * 8, 0, 1)
    return color + (248 * light.tint - color) * cover[..., None]


def _ground(rng, street: Street, light: Light, noise, green, x, z) -> tuple[np.ndarray, np.ndarray]:
    """Colours [N, 3] and classes [N] of the ground at x, z, each [N]."""
    away = np.abs(x)
    road, grass = away < street.kerb, away > street.front
    rough = _texture(noise, x * 16, z * 7)
    asphalt, stone, slab = np.float32((rng.uniform(70, 125), rng.uniform(115, 185), rng.uniform(0.5, 1.0)))

    tone = np.where(road, asphalt, stone) + 5 * rough + 3 * _texture(noise, x * 1.3, z * 0.5)
    joints = ((x / slab % 1 < 0.1) | (z / slab % 1 < 0.1)) & ~road
    tone -= 26 * joints * np.exp(z / -16)
    tone += 30 * (np.abs(away - street.kerb - 0.1) < 0.1) - 22 * (np.abs(away - street.kerb + 0.12) < 0.12)
    tone -= 7 * road * np.cos((away - street.kerb / 2) * 3.6)  # where the wheels run
    for _ in range(rng.integers(0, 3)):  # mended places
        mend_x, mend_z, half_width, half_length = rng.uniform(
            (-street.kerb, 4, 0.4, 0.6), (street.kerb, 22, 1.2, 3)
        )
        mend = (np.abs(x - mend_x) < half_width) & (np.abs(z - mend_z) < half_length) & road
        tone += np.float32(rng.normal(0, 16)) * mend

    cast = np.float32((rng.normal((9, 0, -12), 6), rng.normal(0, 3, 3)))[road.astype(int)]
    color = tone[:, None] + cast
    color[grass] = green * (1 + 0.14 * rough[grass, None])
    lines = (away < 0.08) & (z / 5 % 1 < 0.55)
    if rng.random() < 0.6:
        lines |= np.abs(away - street.kerb + 0.45) < 0.07
    if rng.random() < 0.45:
        lines |= (np.abs(z - rng.uniform(7, 24)) < 1.5) & (away < street.kerb - 0.4) & (x % 1 < 0.5)
    color[lines & (rough > -1.2)] = rng.uniform(175, 215)

    across = street.front - light.side * x
    caster = street.building(light.side > 0, z + light.slant * across)
    shadow = np.clip(((street.wall + street.roof).ravel()[caster] * light.reach - across) / 0.3, 0, 1)
    color *= (1 - 0.45 * light.sun * shadow)[:, None] * light.tint
    return color, np.where(road, ROAD, np.where(grass, VEGETATION, PAVEMENT))


def _facade(street: Street, light: Light, noise, index, y, z) -> np.ndarray:
    """Colours [N, 3] of facade points: flat index of the building, height y and z, each [N]."""
    wall, shop = street.wall.ravel()[index], street.shop.ravel()[index]
    bays = (z - street.begin.ravel()[index]) / street.bay.ravel()[index]
    floors = y / street.floor.ravel()[index]
    bay, floor = np.floor(bays), np.floor(floors)
    aside, up = np.abs(bays - bay - 0.5), floors - floor
    chance = np.sin(bay * 12.9898 + floor * 78.233 + index * 37.719) * 43758.5453 % 1
    half = street.glass.ravel()[index] / 2
    shop = shop & (floor == 0)
    upper = (y < wall - 0.4) & ~shop
    rough = _texture(noise, z * 9, y * 9)

    color = street.color.reshape(-1, 3)[index]
    color *= (1 + 0.04 * rough - 0.1 * np.exp(z / -20) * (y / 0.3 % 1 < 0.2) - 0.2 * (y < 0.5))[:, None]
    mask = (y > wall - 0.3) & (y < wall)  # the cornice
    color[mask] = color[mask] * 0.5 + 110
    mask = y > wall
    color[mask] = street.roof_color.reshape(-1, 3)[index[mask]] * (1 + 0.08 * rough[mask, None])
    mask = upper & (aside < half + 0.05) & (up > 0.2) & (up < 0.84)  # window frames
    color[mask] = color[mask] * 0.4 + 135
    mask = (floor == 0) & ~shop & (chance < 0.3) & (aside < 0.2) & (up < 0.72)  # doors
    color[mask] = np.float32(PAINTS)[index[mask] * 5 % len(PAINTS)] * 0.7
    mask = shop & (up > 0.74) & (up < 0.95)  # awnings
    color[mask] = np.float32(PAINTS)[index[mask] * 7 % len(PAINTS)]
    color[mask & (z / 0.5 % 1 < 0.5)] = 236
    right = index >= street.begin.shape[1]
    color *= (
        np.stack([light.shade(1), light.shade(-1)])[right.astype(int)]
        * (0.8 + 0.1 * np.clip(y, 0, 2))[:, None]
    )

    mask = (upper & (aside < half) & (up > 0.26) & (up < 0.8)) | (
        shop & (aside < 0.44) & (up > 0.16) & (up < 0.7)
    )
    chance, up = chance[mask], up[mask]
    glass = np.float32((50, 62, 80)) + (0.4 * chance * np.maximum(up, 0.3))[:, None] * light.horizon
    if light.horizon[0] > light.horizon[2] + 60:  # in the evening
        glass[chance > 0.75] = (255, 214, 132)
    color[mask] += (glass - color[mask]) * np.exp(z[mask] / -90)[:, None]
    return color


def _cars(rng, street: Street, camera: Camera) -> Iterator[Thing]:
    """Cars in two lanes and, where the road is wide, parked at both kerbs; now and then one across."""
    parking = street.kerb > 4.3
    lane = street.kerb * (0.36 if parking else 0.5)
    tracks = [(lane, 0, 7.0), (-lane, np.pi, 7.0)]
    if parking:
        tracks += [(street.kerb - 1.05, 0, 4.5), (1.05 - street.kerb, np.pi, 4.5)]
    for x, heading, z in tracks:
        z += rng.uniform(0, 6)
        while z < min(street.end - 4, 32):
            if rng.random() < 0.55:
                yield _car(rng, camera, x + rng.normal(0, 0.12), z, heading + rng.normal(0, 0.04))
            z += rng.uniform(5.2, 13)
    if rng.random() < 0.15:
        yield _car(rng, camera, rng.uniform(-1.5, 1.5), rng.uniform(9, 20), rng.choice((-1, 1)) * np.pi / 2)


def _car(rng, camera: Camera, x: float, z: float, heading: float) -> Thing:
    """A side view, extruded; of its faces, those that the camera sees."""
    profile = (VAN if rng.random() < 0.2 else SALOON) * np.float32(
        (rng.uniform(0.9, 1.1), rng.uniform(0.95, 1.08))
    )
    low, high, length = profile[2, 1], profile[:, 1].max(), profile[:, 0].max()
    paint = _pick(rng, PAINTS) + np.float32(rng.normal(0, 10, 3))
    glass = np.float32((38, 46, 58)) + np.float32(rng.uniform(20, 60))
    black, white = np.float32((24, 24, 27)), np.float32((226, 222, 190))
    cos, sin = math.cos(heading), math.sin(heading)
    eye_across, eye_along = (camera.x - x) * cos + z * sin, (camera.x - x) * sin - z * cos
    side, tip = np.sign(eye_across), length * np.sign(eye_along)

    def place(across, along, up):
        """Car coordinates [n] or one number each -> world points [n, 3]."""
        points = np.empty((max(map(np.size, (across, along, up))), 3), np.float32)
        points[:, 0] = x + across * cos + along * sin
        points[:, 1] = up
        points[:, 2] = z - across * sin + along * cos
        return points

    def half_width(up):
        return 0.9 - 0.2 * np.clip((up - low) / (high - low), 0, 1)

    def wheel(across, along, radius):
        return place(across, along + radius * CIRCLE[0], 0.34 + radius * CIRCLE[1])

    polygons = [(place(SQUARE * 0.8, length * SQUARE[[0, 0, 1, 1]] * 0.9, 0.3), black)]
    polygons += [(wheel(-side * 0.85, end * length, 0.34), black) for end in (-0.63, 0.63)]
    for i, (start, stop) in enumerate(zip(profile[:-1], profile[1:], strict=True)):
        out_along, out_up = start[1] - stop[1], stop[0] - start[0]
        middle = (start + stop) / 2
        if out_along * (eye_along - middle[0]) + out_up * (camera.y - middle[1]) > 0:
            along, up = np.stack([start, start, stop, stop], 1)
            shade = 0.8 + 0.25 * out_up / np.hypot(out_along, out_up)
            polygons.append((place(SQUARE * half_width(up), along, up), paint * shade))
            if i in (2, 4):
                along, up = middle[:, None] + 0.78 * (np.stack([along, up]) - middle[:, None])
                polygons.append((place(SQUARE * (half_width(up) - 0.1), along, up), glass))
    if abs(eye_along) > length:
        lamp, height = ((214, 34, 30), 0.72) if tip < 0 else ((250, 244, 214), 0.6)
        rise = np.float32((0, 0, 1, 1))
        polygons += [
            (place(s * (0.67 + 0.17 * SQUARE), tip, height + 0.16 * rise), np.float32(lamp)) for s in (-1, 1)
        ]
        polygons.append((place(0.26 * SQUARE, tip, 0.42 + 0.13 * rise), white))
        polygons.append((place(0.86 * SQUARE, tip, 0.27 + 0.1 * rise), 1.6 * black))
    if abs(eye_across) > 0.9:
        along, up = profile.T
        polygons.append((place(side * half_width(up), along, up), paint * 0.9))
        up = np.float32((low + 0.04, high - 0.1, high - 0.1, low + 0.04))
        rear, front = profile[3, 0] + 0.1, profile[4, 0]
        for along in ((rear - 0.3, rear, -0.68, -0.68), (-0.6, -0.6, front, front + 0.5)):
            polygons.append((place(side * half_width(up), np.float32(along), up), glass))
        for end in (-0.63, 0.63):
            polygons.append((wheel(side * 0.91, end * length, 0.34), black))
            polygons.append((wheel(side * 0.92, end * length, 0.18), np.float32((150, 152, 156))))
    return Thing(z, CAR, polygons, place(SQUARE * 1.05, length * SQUARE[[0, 0, 1, 1]] * 1.05, 0))


def _trees(rng, street: Street, camera: Camera) -> Iterator[Thing]:
    green = _pick(rng, LEAVES)
    for side in (-1, 1):
        z = rng.uniform(7, 20)
        while z < min(street.end, 40) and rng.random() < 0.62:
            yield _tree(rng, camera, side * (street.kerb + 0.7), z, green + np.float32(rng.normal(0, 8, 3)))
            z += rng.uniform(5, 12)


def _tree(rng, camera: Camera, x: float, z: float, green: np.ndarray) -> Thing:
    """A trunk, and a crown of overlapping discs: the low ones first and darker."""
    trunk, radius = rng.uniform(2.0, 3.2), rng.uniform(1.1, 2.0)
    thin = max(0.09 * radius, 0.8 * z / camera.focal)
    bark = _upright(x, z, thin * np.float32((-1.3, 1.3, 0.8, -0.8)), (0, 0, trunk + 0.4, trunk + 0.4))
    polygons = [(bark, np.float32((96, 78, 62)))]
    aside, up = rng.standard_normal((2, 40, 1)).clip(-1.9, 1.9) * 0.4
    up.sort(0)
    tones = 0.9 + 0.35 * up + rng.normal(0, 0.08, (40, 1))
    sizes = rng.uniform(0.2, 0.36, (40, 1))
    across = radius * (aside + sizes * CIRCLE[0])
    up = trunk + radius * (0.75 + 0.9 * up + sizes * CIRCLE[1])
    polygons += zip(_upright(x, z, across, up), green * np.float32(tones), strict=True)
    return Thing(z, VEGETATION, polygons, _disc(x, z, 0.7 * radius))


def _poles(rng, street: Street, camera: Camera) -> Iterator[Thing]:
    """Street lamps, road signs and traffic lights at both kerbs."""
    for side in (-1, 1):
        x, z = side * (street.kerb + 0.35), rng.uniform(5, 10)
        for _ in range(rng.integers(2, 4)):
            half = max(0.1, 1.8 * z / camera.focal)  # at least four pixels wide
            kind, metal = rng.choice((_lamp, _sign, _signal), p=(0.5, 0.35, 0.15)), _pick(rng, METALS)
            height, parts = kind(rng, metal, half)
            polygons = [(_upright(x, z, half * SQUARE, (0, 0, height, height)), metal)]
            polygons += [(_upright(x, z, -side * across, up), color) for across, up, color in parts]
            yield Thing(z, POLE, polygons, _disc(x, z, 0.25))
            z += rng.uniform(4, 9)


def _lamp(rng, metal, half):
    """Height, and polygons in front of the post: across towards the road [n], up [n], colour [3]."""
    height = rng.uniform(5, 6.2)
    arm = np.float32((0, 1.3, 1.3, 0)), height + np.float32((-0.2, 0, 0.25, 0.05)), metal
    wide = max(0.4, 3 * half)
    head = 1.3 + wide * SQUARE, height + np.float32((0, 0, 0.3, 0.3)), np.float32((232, 226, 200))
    return height, [arm, head]


def _sign(rng, metal, half):
    """Height, and polygons in front of the post, as `_lamp`."""
    turn = np.linspace(0, 2 * np.pi, rng.choice((3, 4, 12)), endpoint=False) + np.pi / 2
    radius, height = max(0.42, 2.2 * half), rng.uniform(2.3, 2.9)
    plates = ((radius, 190 + 0.5 * metal), (0.78 * radius, _pick(rng, SIGNS)))
    return height, [(r * np.cos(turn), height + r * np.sin(turn), color) for r, color in plates]


def _signal(rng, metal, half):
    """Height, and polygons in front of the post, as `_lamp`."""
    wide, on = max(0.2, 1.6 * half), rng.integers(3)
    parts = [(wide * SQUARE, (2.5, 2.5, 3.6, 3.6), 0.5 * metal)]
    for i, color in enumerate(((230, 50, 40), (240, 190, 50), (60, 210, 120))):
        shine = np.float32(color) * (1 if i == on else 0.35)
        parts.append((0.6 * wide * CIRCLE[0], 3.38 - 0.33 * i + 0.13 * CIRCLE[1], shine))
    return 3.0, parts


def _people(rng, street: Street) -> Iterator[Thing]:
    """On the pavements, and some who cross the road."""
    for _ in range(rng.integers(4, 8)):
        z = rng.uniform(4.2, 9)
        if rng.random() < 0.3:
            yield _person(rng, rng.uniform(-street.kerb, street.kerb), z + 3)
        else:
            yield _person(rng, rng.choice((-1, 1)) * rng.uniform(street.kerb + 0.5, street.front - 0.4), z)


def _person(rng, x: float, z: float) -> Thing:
    scale = rng.choice((rng.uniform(0.86, 1.08), rng.uniform(0.58, 0.74)), p=(0.85, 0.15))
    shirt, trousers, skin, hair = (_pick(rng, colors) for colors in (CLOTHES, CLOTHES, SKINS, HAIRS))
    stride, swing = rng.uniform(0.05, 0.3), rng.uniform(-0.16, 0.16)
    parts = [
        ((s - 0.08, s + 0.1, 0.14, -0.12), (0, 0, 0.9, 0.9), trousers * (0.65 + 0.3 * s))
        for s in (-stride, stride)
    ]
    if rng.random() < 0.3:
        parts.append(((-0.26, 0.26, 0.15, -0.15), (0.45, 0.45, 0.95, 0.95), shirt * 0.9))
    parts += [
        ((-0.3 - swing, -0.2 - swing, -0.14, -0.24), (0.8, 0.78, 1.4, 1.42), shirt * 0.8),
        ((-0.17, 0.17, 0.24, -0.24), (0.86, 0.86, 1.44, 1.44), shirt),
        ((0.2 + swing, 0.3 + swing, 0.24, 0.14), (0.78, 0.8, 1.42, 1.4), shirt * 0.9),
        (0.13 * CIRCLE[0], 1.62 + 0.16 * CIRCLE[1], hair),
        (0.105 * CIRCLE[0], 1.585 + 0.12 * CIRCLE[1], skin),
    ]
    if rng.random() < 0.3:
        bag = 0.22 + swing
        parts.append(((bag, bag + 0.18, bag + 0.18, bag), (0.5, 0.5, 0.78, 0.78), _pick(rng, PAINTS)))
    polygons = [
        (_upright(x, z, 1.2 * scale * np.float32(across), scale * np.float32(up)), color)
        for across, up, color in parts
    ]
    return Thing(z, PERSON, polygons, _disc(x, z, 0.4))


def _draw_shadows(image: np.ndarray, camera: Camera, light: Light, things: list[Thing]):
    """Darkens the ground under the things, in place."""
    mask = np.zeros(image.shape[:2], np.uint8)
    for thing in things:
        cv2.fillPoly(mask, [_pixels(camera, thing.shadow)], 255, cv2.LINE_AA, shift=4)
    mask = cv2.GaussianBlur(mask, (3, 3), 0).astype(np.float32)
    image[:] = image * (1 - mask * np.float32((0.4 + 0.2 * light.sun) / 255))[..., None]


def _draw_things(image: np.ndarray, label: np.ndarray, camera: Camera, light: Light, things: list[Thing]):
    """Draws far things first, in place: soft edges in the image, hard ones in the label."""
    for thing in sorted(things, key=lambda thing: -thing.z):
        points = _pixels(camera, np.concatenate([points for points, _ in thing.polygons]))
        corners = np.split(points, np.cumsum([len(points) for points, _ in thing.polygons])[:-1])
        colors = np.stack([color for _, color in thing.polygons]) * light.tint
        colors = light.veil(colors, np.full(len(colors), thing.z)).clip(0, 255).tolist()
        for polygon, color in zip(corners, colors, strict=True):
            cv2.fillPoly(image, [polygon], color, cv2.LINE_AA, shift=4)
            cv2.fillPoly(label, [polygon], thing.class_id, cv2.LINE_8, shift=4)


def _photograph(rng, image: np.ndarray) -> np.ndarray:
    """Lens and sensor, uint8 RGB [H, W, 3] to the same: blur, vignette, exposure, white balance, noise."""
    image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.35, 0.7)).astype(np.float32)
    height, width = image.shape[:2]
    v, u = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image *= np.float32(rng.uniform(0.85, 1.12) * (1 - 0.08 * (u**2 + v**2)))[..., None]
    image *= np.float32(rng.normal(1, 0.035, 3))
    image += np.float32(rng.uniform(1.5, 4)) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _pick(rng, colors) -> np.ndarray:
    return np.float32(colors[rng.integers(len(colors))])


def _texture(noise: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Values [N] of the noise [128, 128], repeated for ever, at a, b [N]."""
    return noise[a.astype(np.int32) & 127, b.astype(np.int32) & 127]


def _upright(x: float, z: float, across, up) -> np.ndarray:
    """World points [..., 3] of a flat shape at x, z that faces along -z: across and up [...] in metres."""
    points = np.empty((*np.shape(across), 3), np.float32)
    points[..., 0] = across
    points[..., 0] += x
    points[..., 1] = up
    points[..., 2] = z
    return points


def _disc(x: float, z: float, radius: float) -> np.ndarray:
    """World points [10, 3] of a disc on the ground."""
    return np.stack([x + radius * CIRCLE[0], np.zeros_like(CIRCLE[0]), z + radius * CIRCLE[1]], 1)


def _pixels(camera: Camera, points: np.ndarray) -> np.ndarray:
    """World points [n, 3] -> pixels [n, 2] (x, y) in sixteenths, as OpenCV's drawing takes them."""
    return np.rint(camera.project(points).clip(-4096, 4096) * 16).astype(np.int32)
