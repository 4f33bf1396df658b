"""Made-up images as a network might see them, a report on them, and what is in a report."""

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

import cv2
import numpy as np

from ovenet_jax.data.labels import TOY_STREETS, Labels
from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.inspection import Inspected
from ovenet_jax.evaluation.page import html
from ovenet_jax.evaluation.results import ImageScore
from ovenet_jax.models.predictions import Ranking

HOSTILE = (
    "</script><script>window.attacked = 1</script>",
    'quote " and \' <img src=x onerror="window.attacked=1">',
    "路&amp;",
)
CLASSES = Labels(HOSTILE + TOY_STREETS.names[3:], TOY_STREETS.colors, TOY_STREETS.ids)
SIZES = ((203, 331), (97, 61), (64, 250))  # (H, W), odd and narrow


def made_up(
    seed: int,
    size: tuple[int, int],
    *,
    name: str,
    labelled: bool = True,
    offsets: bool = True,
    boundaries: bool = False,
) -> Inspected:
    """An image of `size` (H, W) as an OVeNet, a baseline without offsets or a SegFix sees it: smooth scores at a
    quarter of it, seeds within the map."""
    rng = np.random.default_rng(seed)
    height, width = size
    small = h, w = -(-height // 4), -(-width // 4)
    names = ("offset",) if boundaries else ("initial", "seed", "fused") if offsets else ("main",)
    scores = {key: _probabilities(rng, small) for key in names}
    label = cv2.resize(_probabilities(rng, small).argmax(-1).astype(np.uint8), (width, height), interpolation=0)
    label[:3, :5] = 255
    y, x = np.mgrid[:h, :w]
    ends = np.stack([x, y], -1) + rng.normal(0, 5, (h, w, 2))
    seed_offset = np.clip(ends, 0, [w - 1, h - 1]) - np.stack([x, y], -1)
    return Inspected(
        name=name,
        image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        label=label if labelled else None,
        rankings={key: _ranking(values) for key, values in scores.items()},
        grid=Grid.over(size, small, align_corners=True),
        seed=seed_offset.astype(np.float32) if offsets and not boundaries else None,
        confidence=rng.random((h, w), np.float32) if offsets or boundaries else None,
        score=0.25 * seed,
    )


def made_up_page(
    images: list[Inspected],
    runs: Mapping[str, list[Inspected]] | None = None,
    /,
    classes: Labels = CLASSES,
    **changes: Any,
) -> str:
    """With made-up numbers. runs: `images` as several networks see them. changes: other variables of run.html.j2."""
    rng = np.random.default_rng(0)
    count = len(CLASSES.names)
    line = {"name": HOSTILE[0], "x": [1, 2, 3], "y": [3, 1, 2]}
    content = {
        "headline": [("mIoU", 0.712), ("of two", {"mean": 0.5, "margin": 0.01})],
        "run": f"Report {HOSTILE[0]}",
        "what": {"split": "val", "step": 7, "data": {"digest": "0123456789abcdef"}},
        "data_set": HOSTILE[1],
        "made": {"date": "2020-02-20", "versions": {"jax": "1"}},
        "scores": {name: {"iou": rng.random(count), "accuracy": rng.random(count)} for name in ("S_i", "S_f")},
        "pixels": rng.integers(1, 9, count),
        "damaged_lines": 0,
        "suspects": None,
        "images": [ImageScore(i, image.name, image.score) for i, image in enumerate(images)],
        "changed": [("steps", HOSTILE[0])],
        "unchanged": [("seed", "0")],
    }
    charts = {"loss": [line], "confusion": np.random.default_rng(1).integers(0, 9, (count, count)).tolist()}
    return html("run.html.j2", classes, runs or {"run": images}, charts, **content | changes)


def section(page: str, title: str) -> str:
    """A section of a page as HTML."""
    return page.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]


def table(page: str, title: str) -> list[list[str]]:
    """The texts of the table in a section, row by row, its heads first."""
    rows = re.findall(r"<tr>(.*?)</tr>", section(page, title), re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells]


def _ranking(probabilities: np.ndarray) -> Ranking:
    classes = np.argsort(-probabilities, axis=-1)[..., :3]
    return Ranking(classes.astype(np.uint8), np.take_along_axis(probabilities, classes, axis=-1))


def _probabilities(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """float32 [h, w, K]."""
    coarse = rng.normal(0, 4, (5, 6, len(CLASSES.names))).astype(np.float32)
    scores = np.exp(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR))
    return scores / scores.sum(-1, keepdims=True)
