"""A report as one HTML file: seed inspector, tables and charts with all their resources; it loads nothing else."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jinja2
import matplotlib
import plotly.offline
from matplotlib.colors import to_hex

from ovenet_jax import files
from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation import packing
from ovenet_jax.evaluation.inspection import Inspected
from ovenet_jax.models.predictions import TITLES

MOST_BYTES = 12_000_000
FOR_THE_REST = 600_000  # bytes reserved for everything but images and plotly


def html(
    template: str, classes: Labels, runs: Mapping[str, Sequence[Inspected]], charts: Mapping[str, Any], **content: Any
) -> str:
    """The `template` in page/ as one self-contained file, at most about MOST_BYTES.

    runs: run -> images, the same for all. charts: data that report.js draws, by name; charts without data are left out.
    content: other variables of the template.
    """
    charts = {name: data for name, data in charts.items() if data}
    plotly = _plotly() if charts else ""
    images = list(zip(*runs.values(), strict=True))
    share = (MOST_BYTES - FOR_THE_REST - len(plotly)) // max(1, len(images))
    with ThreadPoolExecutor() as threads:
        all_packed = list(threads.map(lambda views: packing.packed(views, share), images))
    setup = {
        "names": classes.names,
        "colors": classes.colors,
        "runs": list(runs),
        "titles": TITLES,
        "scale": list(map(to_hex, matplotlib.colormaps["viridis"](range(256)))),
        "images": [described for described, _ in all_packed],
    }
    data = {f"{part}-{i}": x for i, (_, arrays) in enumerate(all_packed) for part, x in arrays.items()}
    loader = jinja2.PackageLoader("ovenet_jax.evaluation", "page")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(template).render(
        **content, data=data | {"plotly": plotly}, setup=files.finite(setup), charts=files.finite(charts)
    )


@lru_cache(maxsize=1)
def _plotly() -> str:
    return packing.deflated(plotly.offline.get_plotlyjs().encode())
