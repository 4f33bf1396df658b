"""A report as one HTML file: the seed inspector, tables and charts, and all that they need; nothing is fetched."""

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

from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.inspection import Inspected, packed
from ovenet_jax.models.predictions import TITLES

FILES = resources.files("ovenet_jax.evaluation") / "page"
SCRIPTS = ("maps.js", "layers.js", "pane.js", "inspector.js", "report.js")  # one program, in this order
MOST_BYTES = 12_000_000
FOR_THE_REST = 600_000  # of a page besides images and plotly
CONFIDENCE = ("confidence F", "0: initial", "1: seed")
ROLES = {
    "initial": ("S_i", "before"),
    "seed": ("S_s", "at the seed"),
    "fused": ("S_f", "after"),
    "main": ("prediction", ""),
    "offset": ("direction", ""),
}
BOUNDARY = ("boundary", "0: interior", "1: boundary")


class Cell(NamedTuple):
    """A table's cell. sort: what it is sorted by, or None: its text. bar: -1 to 1, or None. color: CSS, or ""."""

    text: str
    sort: float | None = None
    color: str = ""
    bar: float | None = None
    href: str = ""


class Table(NamedTuple):
    """columns: their titles. rows: a cell for each. sorted: the column by which rows are in falling order, or None."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sorted: int | None = None


class Section(NamedTuple):
    """charts: Plotly's figures by name. facts, and those that are shown when asked for: (name, value)."""

    title: str
    text: str = ""
    table: Table | None = None
    charts: Mapping[str, dict] = {}
    facts: Sequence[tuple[str, str]] = ()
    folded: Sequence[tuple[str, str]] = ()


class Page(NamedTuple):
    """All that a report shows.

    images: of each image one view per run, in the order of `runs`; notes: what is said of an image in the list.
    """

    title: str
    subtitle: str
    headline: Sequence[tuple[str, str]]
    classes: Labels
    runs: Sequence[str]
    images: Sequence[Sequence[Inspected]]
    notes: Sequence[str]
    sections: Sequence[Section]


def html(page: Page) -> str:
    """One self-contained file, at most about MOST_BYTES."""
    library = _plotly() if any(section.charts for section in page.sections) else ""
    share = (MOST_BYTES - FOR_THE_REST - len(library)) // max(1, len(page.images))
    with ThreadPoolExecutor() as threads:
        images = list(threads.map(lambda views: packed(views, share), page.images))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        page._asdict()
        | {
            "images": images,
            "setup": _setup(page, images),
            "charts": {name: chart for section in page.sections for name, chart in section.charts.items()},
            "plotly": library,
            "style": Markup(_read("style.css")),
            "scripts": Markup("".join(map(_read, SCRIPTS))),
        }
    )


def _setup(page: Page, images: Sequence[dict]) -> dict[str, Any]:
    """What the inspector knows beside the arrays."""
    data = ("picture", "label")
    described = [
        {key: value for key, value in image.items() if key not in (*data, "views")}
        | {"note": note, "views": [{k: v for k, v in view.items() if k != "maps"} for view in image["views"]]}
        for image, note in zip(images, page.notes, strict=True)
    ]
    is_segfix = any("offset" in view["predictions"] for image in images for view in image["views"])
    confidence, *ends = BOUNDARY if is_segfix else CONFIDENCE
    colormap = matplotlib.colormaps["viridis"]
    return {
        "names": page.classes.names,
        "colors": page.classes.colors,
        "runs": page.runs,
        "titles": {**TITLES, "offset": "direction", "confidence": confidence},
        "roles": ROLES,
        "confidence_ends": ends,
        "scale": [to_hex(colormap(step)).removeprefix("#") for step in range(256)],
        "images": described,
    }


@lru_cache(maxsize=1)
def _plotly() -> str:
    return base64.b64encode(zlib.compress(plotly.offline.get_plotlyjs().encode(), 9)).decode("ascii")


def _read(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")
