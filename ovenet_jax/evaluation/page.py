"""A report as one HTML file: seed inspector, tables and charts with all their resources; it loads nothing else."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import matplotlib
import plotly.offline
from markupsafe import Markup
from matplotlib.colors import to_hex

from ovenet_jax import files
from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.inspection import Inspected
from ovenet_jax.evaluation.packing import packed
from ovenet_jax.models.predictions import TITLES

FILES = resources.files("ovenet_jax.evaluation") / "page"
SCRIPTS = ("maps.js", "layers.js", "pane.js", "inspector.js", "report.js")  # one program, in this order
MOST_BYTES = 12_000_000
FOR_THE_REST = 600_000  # of a page besides images and plotly


class Section(NamedTuple):
    """A part of a page, with a table, charts, or facts.

    columns: (title, kind); rows: one value per column. Kinds are "text"; "class", a train id; "share", shown in
    percent: a number, an interval of comparison.py, or None; "difference" of two shares, with a bar; and "pixel", a
    link to the inspector: a dict with "image" (its name), "layer", "x" and "y".
    charts: what report.js draws, by name: {"lines": ...} or {"counts": ...}. facts, folded (collapsed at first): (name,
    value).
    """

    title: str
    text: str = ""
    columns: Sequence[tuple[str, str]] = ()
    rows: Sequence[Sequence[Any]] = ()
    charts: Mapping[str, dict] = {}
    facts: Sequence[tuple[str, str]] = ()
    folded: Sequence[tuple[str, str]] = ()


class Page(NamedTuple):
    """The content of a report.

    headline: (title, share). images: per image one view for each of `runs`; notes: text after each image's name in the
    list.
    """

    title: str
    subtitle: str
    headline: Sequence[tuple[str, Any]]
    classes: Labels
    runs: Sequence[str]
    images: Sequence[Sequence[Inspected]]
    notes: Sequence[str]
    sections: Sequence[Section]


def html(page: Page) -> str:
    """One self-contained file, at most about MOST_BYTES."""
    charts = {name: chart for section in page.sections for name, chart in section.charts.items()}
    plotly = _plotly() if charts else ""
    share = (MOST_BYTES - FOR_THE_REST - len(plotly)) // max(1, len(page.images))
    with ThreadPoolExecutor() as threads:
        images = list(threads.map(lambda views: packed(views, share), page.images))
    colormap = matplotlib.colormaps["viridis"]
    setup = {
        "names": page.classes.names,
        "colors": page.classes.colors,
        "runs": page.runs,
        "titles": TITLES,
        "scale": [to_hex(colormap(step)).removeprefix("#") for step in range(256)],
        "images": [image.described | {"note": note} for image, note in zip(images, page.notes, strict=True)],
    }
    data = {f"{part}-{i}": x for i, image in enumerate(images) for part, x in image.data.items()}
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        page=page,
        data=data | {"plotly": plotly},
        setup=files.finite(setup),
        charts=files.finite(charts),
        style=Markup(_read("style.css")),
        scripts=Markup("".join(map(_read, SCRIPTS))),
    )


@lru_cache(maxsize=1)
def _plotly() -> str:
    return base64.b64encode(zlib.compress(plotly.offline.get_plotlyjs().encode(), 9)).decode("ascii")


def _read(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")
