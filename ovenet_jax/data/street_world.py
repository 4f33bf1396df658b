"""Where a toy scene takes place: its light, street and camera.

World frame, in metres: x to the right, y up from the road, z along the street; x = 0 is its middle.
Colours are RGB, 0 to 255.
"""

import math
from dataclasses import dataclass

import numpy as np

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, POLE, CAR, PERSON = range(8)

FACADES = (
    (176, 96, 74), (150, 74, 60), (205, 170, 120), (222, 196, 150), (196, 190, 180), (152, 150, 148),
    (120, 122, 126), (228, 222, 208), (160, 178, 186), (190, 150, 140), (134, 146, 128), (212, 154, 96),
)  # fmt: skip
LEAVES = ((70, 112, 52), (92, 132, 60), (56, 92, 62), (136, 140, 62), (184, 128, 56))
SKIES = (  # zenith, horizon, tint of the light, strength of direct sun
    ((86, 142, 206), (206, 222, 236), (1.04, 1.00, 0.94), 1.0),
    ((122, 160, 200), (232, 226, 212), (1.05, 0.99, 0.90), 0.8),
    ((176, 184, 192), (214, 216, 218), (0.92, 0.94, 0.98), 0.0),
    ((116, 128, 172), (250, 206, 160), (1.08, 0.92, 0.78), 0.9),
    ((148, 158, 172), (196, 204, 214), (0.90, 0.94, 1.00), 0.15),
)


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

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Light":
        zenith, horizon, tint, sun = SKIES[rng.integers(len(SKIES))]
        return cls(
            zenith=np.asarray(zenith + rng.normal(0, 8, 3), np.float32),
            horizon=np.asarray(horizon + rng.normal(0, 5, 3), np.float32),
            tint=np.asarray(tint * rng.uniform(0.9, 1.1, 1), np.float32),
            sun=sun,
            side=int(rng.choice((-1, 1))),
            reach=rng.uniform(0.3, 1.3),
            slant=rng.uniform(-1, 1),
            haze=rng.uniform(80, 300),
        )

    def shade(self, facing: np.ndarray | float) -> np.ndarray:
        """Factors per channel [..., 3] for walls that face along x by `facing` [...], -1 to 1."""
        return np.multiply.outer(0.84 + 0.24 * self.sun * self.side * facing, self.tint)

    def veil(self, color: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Colours [N, 3] through depth [N] metres of air."""
        return self.horizon + (color - self.horizon) * np.exp(depth / -self.haze)[:, None]


@dataclass(frozen=True)
class Street:
    """The planes of a scene, in metres.

    kerb, front: |x| where the road and the pavement end. end: z where houses end the street. leaves: colour of
    its trees. Buildings are arrays [N] (the left row from behind the camera on, then the right one):
    begin (their z), wall and top (heights of eaves and ridge, both 0 for a gap), bay and floor (from window to
    window), glass [2, N] (a window's share of its bay, on the ground floor and above), color [N, 3].
    """

    kerb: float
    front: float
    end: float
    leaves: np.ndarray
    begin: np.ndarray
    wall: np.ndarray
    top: np.ndarray
    bay: np.ndarray
    floor: np.ndarray
    glass: np.ndarray
    color: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Street":
        kerb = rng.uniform(3.2, 5.2)
        begin = np.cumsum(rng.uniform(6, 13, (2, 14)), 1) - rng.uniform(14, 20, (2, 1))
        count = begin.size
        house = rng.random(count) > 0.16
        floor = rng.uniform(2.7, 3.4, count)
        wall = house * (floor * rng.choice((1, 2, 3, 4), count, p=(0.2, 0.4, 0.3, 0.1)) + 0.5)
        return cls(
            kerb=kerb,
            front=kerb + rng.uniform(2.0, 3.8),
            end=rng.uniform(38, 100),
            leaves=np.asarray(rng.choice(LEAVES), np.float32),
            begin=np.asarray(begin.ravel(), np.float32),
            wall=np.asarray(wall, np.float32),
            top=np.asarray(wall + house * rng.uniform(0.3, 2.4, count), np.float32),
            bay=np.asarray(rng.uniform(1.9, 3.2, count), np.float32),
            floor=np.asarray(floor, np.float32),
            glass=np.asarray((rng.uniform(0.34, 0.9, count), rng.uniform(0.34, 0.6, count)), np.float32),
            color=np.asarray(rng.choice(FACADES, count) + rng.normal(0, 10, (count, 3)), np.float32),
        )

    def building(self, right: np.ndarray | bool, z: np.ndarray) -> np.ndarray:
        """Index of the building beside z [...] in the right or the left row [...]."""
        rows = np.split(self.begin, 2)
        left_index, right_index = (np.searchsorted(row, z, side="right").clip(1) - 1 for row in rows)
        return np.where(right, len(rows[0]) + right_index, left_index)


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

    @classmethod
    def random(cls, rng: np.random.Generator, street: Street, size: tuple[int, int]) -> "Camera":
        """A camera for pictures of size (H, W)."""
        height, width = size
        return cls(
            focal=width * rng.uniform(0.5, 0.66),
            centre=(width * 0.5, height * rng.uniform(0.40, 0.54)),
            x=street.kerb * rng.uniform(-0.2, 0.6),
            y=rng.uniform(1.3, 2.7),
            yaw=rng.uniform(-0.16, 0.16),
            roll=rng.normal(0, 0.015),
        )

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
