"""One small street scene, drawn by formula.

A scene is a pinhole picture of a straight street: a planar road with markings that run to the
vanishing point, pavements, two rows of facades, and in front of them trees, poles, cars and people
that hide one another by depth. Light, haze, colours, textures and noise are drawn anew for every
scene, and road, pavement and facades share their greys: what a pixel is shows in its surroundings
and in the geometry, not in its colour. World frame as in `street_world`.
"""

import cv2
import numpy as np

from ovenet_jax.data.street_things import draw_things
from ovenet_jax.data.street_world import BUILDING, PAVEMENT, ROAD, SKY, VEGETATION, Camera, Light, Street


def render_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws one street scene of size (H, W).

    Returns:
      image, uint8 RGB [H, W, 3], and label, uint8 class ids [H, W].
    """
    light = Light.random(rng)
    street = Street.random(rng)
    camera = Camera.random(rng, street, size)
    image, label = _draw_street(rng, street, camera, light, size)
    draw_things(rng, image, label, street, camera, light)
    return _photograph(rng, image), label


def _draw_street(rng, street: Street, camera: Camera, light: Light, size) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of the empty street: of each pixel, the first plane that its ray meets."""
    x, y, z = camera.rays(size)
    noise = rng.standard_normal((128, 128), np.float32)
    image = _sky(rng, light, x, y, z)
    label = np.full(size, SKY, np.uint8)

    def paint(mask, color, class_id, depth):
        image[mask], label[mask] = light.veil(color, depth), class_id

    # the houses where the street ends
    along, up = camera.x + street.end / z * x, camera.y + street.end / z * y
    mask = (up > 0) & (up < 5 + 4 * (np.floor(along / 9) % 2))
    windows = ((along / 2.4 % 1 < 0.45) & (up / 3 % 1 < 0.6))[mask, None]
    color = street.color[0] * light.shade(0) * (1 - 0.35 * windows)
    paint(mask, color, BUILDING, np.full(len(color), street.end))

    # trees behind the houses, seen through the gaps
    side = np.sign(x)
    reach = (side * (street.front + 9) - camera.x) / x
    depth, up = reach * z, camera.y + reach * y
    top = 4.5 + np.sin(depth * 2.3) + 1.8 * np.abs(np.sin(depth * 0.7 + street.end))
    mask = (up > 0) & (up < top) & (depth < street.end)
    rough = _texture(noise, depth[mask] * 3, up[mask] * 3)[:, None]
    paint(mask, street.leaves * light.tint * (0.8 + 0.13 * rough), VEGETATION, depth[mask])

    # the ground
    reach = camera.y / np.maximum(-y, 1e-6)
    along, depth = camera.x + reach * x, reach * z
    mask = (y < 0) & (depth < street.end) & (np.abs(along) < street.front + 9)
    paint(mask, *_ground(rng, street, light, noise, along[mask], depth[mask]), depth[mask])

    # gable walls, far to near, that rise above the house before them
    for i in np.argsort(-street.begin):
        begin, top = street.begin[i], street.top[i]
        if 1 < begin < street.end and top > street.top[i - 1]:
            sign = 1 if i >= len(street.begin) // 2 else -1
            along, up = sign * (camera.x + begin / z * x) - street.front, camera.y + begin / z * y
            mask = (along > 0) & (along < 9) & (up > 0) & (up < top)
            rough = 0.86 + 0.04 * _texture(noise, along[mask] * 8, up[mask] * 8)
            color = street.color[i] * light.shade(0) * rough[:, None]
            paint(mask, color, BUILDING, np.full(len(color), begin))

    # the facades
    reach = (side * street.front - camera.x) / x
    depth, up = reach * z, camera.y + reach * y
    index = street.building(side > 0, depth)
    mask = (up >= 0) & (up < street.top[index]) & (depth < street.end)
    color = _facade(street, light, noise, index[mask], up[mask], depth[mask]) * light.shade(-side[mask])
    paint(mask, color, BUILDING, depth[mask])
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


def _ground(rng, street: Street, light: Light, noise, x, z) -> tuple[np.ndarray, np.ndarray]:
    """Colours [N, 3] and classes [N] of the ground at x, z, each [N]."""
    away = np.abs(x)
    road, grass = away < street.kerb, away > street.front
    rough = _texture(noise, x * 16, z * 7)
    tones = rng.uniform(70, 125), rng.uniform(115, 185), rng.uniform(0.5, 1.0)
    asphalt, stone, slab = np.asarray(tones, np.float32)

    tone = np.where(road, asphalt, stone) + 5 * rough + 3 * _texture(noise, x * 1.3, z * 0.5)
    joints = ((x / slab % 1 < 0.1) | (z / slab % 1 < 0.1)) & ~road
    tone -= 26 * joints * np.exp(z / -16)
    tone += 30 * (np.abs(away - street.kerb - 0.1) < 0.1) - 22 * (np.abs(away - street.kerb + 0.12) < 0.12)
    cast = np.asarray((rng.normal((9, 0, -12), 6), rng.normal(0, 3, 3)), np.float32)[road.astype(int)]
    color = tone[:, None] + cast
    color[grass] = street.leaves * (1 + 0.14 * rough[grass, None])
    lines = ((away < 0.08) & (z / 5 % 1 < 0.55)) | (np.abs(away - street.kerb + 0.45) < 0.07)
    lines |= (np.abs(z - rng.uniform(7, 45)) < 1.5) & (away < street.kerb - 0.4) & (x % 1 < 0.5)
    color[lines & (rough > -1.2)] = rng.uniform(175, 215)

    across = street.front - light.side * x
    caster = street.building(light.side > 0, z + light.slant * across)
    shadow = np.clip((street.top[caster] * light.reach - across) / 0.3, 0, 1)
    color *= (1 - 0.45 * light.sun * shadow)[:, None] * light.tint
    return color, np.where(road, ROAD, np.where(grass, VEGETATION, PAVEMENT))


def _facade(street: Street, light: Light, noise, index, y, z) -> np.ndarray:
    """Colours [N, 3] of facade points: index of the building, height y and z, each [N]."""
    bays, floors = (z - street.begin[index]) / street.bay[index], y / street.floor[index]
    bay, floor = np.floor(bays), np.floor(floors)
    aside, aloft = np.abs(bays - bay - 0.5), np.abs(floors - floor - 0.53)
    glass = street.glass[(floor > 0).astype(int), index] / 2
    below = street.wall[index] - y
    rough = _texture(noise, z * 9, y * 9)[:, None]
    courses = np.exp(z / -20) * (y / 0.3 % 1 < 0.2)

    color = street.color[index] * (1 + 0.04 * rough - (0.1 * courses + 0.2 * (y < 0.5))[:, None])
    roof, cornice = below < 0, (below > 0) & (below < 0.3)
    color[roof] *= 0.6
    color[cornice] = color[cornice] * 0.5 + 110
    frame = (below > 0) & (aside < glass + 0.05) & (aloft < 0.32)
    color[frame] = color[frame] * 0.4 + 135
    color *= (0.8 + 0.1 * np.clip(y, 0, 2))[:, None]

    pane = frame & (aside < glass) & (aloft < 0.27)
    chance = np.sin(bay * 12.9898 + floor * 78.233 + index * 37.719)[pane, None] * 43758.5453 % 1
    shine = (50, 62, 80) + 0.3 * chance * light.horizon
    if light.horizon[0] > light.horizon[2] + 60:  # in the evening
        shine = np.where(chance > 0.75, (255, 214, 132), shine)
    color[pane] += (shine - color[pane]) * np.exp(z[pane] / -90)[:, None]
    return color


def _photograph(rng, image: np.ndarray) -> np.ndarray:
    """Lens and sensor, uint8 RGB [H, W, 3] to the same: blur, vignette, exposure, white balance, noise."""
    image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.35, 0.7)).astype(np.float32)
    height, width = image.shape[:2]
    v, u = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image *= np.asarray(rng.uniform(0.85, 1.12) * (1 - 0.08 * (u**2 + v**2)), np.float32)[..., None]
    image *= np.float32(rng.normal(1, 0.035, 3))
    image += np.float32(rng.uniform(1.5, 4)) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _texture(noise: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Values [N] of the noise [128, 128], repeated for ever, at a, b [N]."""
    return noise[a.astype(np.int32) & 127, b.astype(np.int32) & 127]
