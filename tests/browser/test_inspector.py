"""The page of a report in Debian's chromium: `make browser-test`."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from tests.browser.pages import CLASSES, HOSTILE, SIZES, made_up, made_up_page

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LAPTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}

IMAGES = [
    *[made_up(i, size, name=f"image {i}") for i, size in enumerate(SIZES)],
    made_up(3, (40, 50), name=HOSTILE[0]),
    made_up(4, (45, 83), name="without labels", labelled=False),
    made_up(5, (45, 83), name="without offsets", offsets=False),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(made_up_page(IMAGES), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def engine() -> Iterator:
    if CHROMIUM is None:
        pytest.fail("chromium is not installed; apt-get install chromium")
    with playwright.sync_playwright() as started:
        yield started.chromium


@pytest.fixture
def opened(engine, file, tmp_path):
    """Opens the page; at its end nothing may have gone wrong in it or left it."""

    @contextmanager
    def open_page(fragment: str = "", **options):
        folder = str(tmp_path / f"profile_{fragment[:9]}_{len(options)}")
        context = engine.launch_persistent_context(
            folder, executable_path=CHROMIUM, args=ARGUMENTS, **(LAPTOP | options)
        )
        page = context.pages[0]
        wrong, requests = [], []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{file.as_uri()}{fragment}")
        page.wait_for_selector("#inspector[data-ready]")
        yield page
        assert wrong == []
        assert {urlsplit(url).scheme for url in requests} <= {"file", "blob", "data"}
        assert sum(url.startswith("file:") for url in requests) == 1
        assert page.evaluate("window.attacked") is None
        context.close()

    return open_page


def canvas(page):
    return page.locator(".marks").first


def settle(page) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def choose(page, number: int) -> None:
    page.locator(".images").select_option(str(number))
    page.wait_for_function(
        "name => document.querySelector('#inspector').dataset.ready === name", arg=IMAGES[number].name
    )


def link(page) -> dict[str, str]:
    """What the link to this pixel names; the address follows a moment later."""
    fragment = page.locator(".link").get_attribute("href").removeprefix("#")
    return {key: values[0] for key, values in parse_qs(fragment).items()}


def shown(page, field: str) -> str:
    return page.locator(f"[data-field={field}]").first.inner_text()


def numbers(text: str) -> list[float]:
    return [float(value) for value in re.findall(r"[-+]?\d+(?:\.\d+)?", text.replace("−", "-"))]


def index_of(image, x: float, y: float) -> tuple[int, int]:
    """The network's pixel (row, column) nearest to a position of the image; the later one of two."""
    origin, spacing, (rows, columns) = image.grid
    column, row = np.floor((np.array((x, y)) - origin) / spacing + 0.5).astype(int).tolist()
    return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


def assert_ranking(page, field: str, columns: list, at: tuple[int, int]) -> None:
    """The table has the classes of `columns` (rankings) at a pixel, by falling probability."""
    rows = page.locator(f"table[data-field={field}] tbody tr")
    cells = rows.evaluate_all(
        """rows => rows.map(row => [...row.cells].map(
            cell => [...cell.querySelectorAll(".name, .share")].map(part => part.textContent)))"""
    )
    for column, ranking in enumerate(columns):
        for rank in range(3):
            probability = ranking.probabilities[at][rank]
            cell = cells[rank][column]
            if not cell:
                assert probability < 0.001
                continue
            assert cell[0] == CLASSES.names[ranking.classes[at][rank]]
            assert abs(numbers(cell[1])[0] - 100 * probability) <= 0.0501


def test_what_200_pixels_show_is_what_the_arrays_hold(opened):
    rng = np.random.default_rng(0)
    with opened() as page:
        page.locator(".blend").fill("100")
        box = canvas(page).bounding_box()
        for visit in range(20):
            number = visit % len(SIZES)
            image = IMAGES[number]
            choose(page, number)
            box = canvas(page).bounding_box()
            middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
            canvas(page).focus()
            page.keyboard.press("0")
            for _ in range(visit % 4):  # zoomed
                page.mouse.move(*(m + d for m, d in zip(middle, rng.uniform(-60, 60, 2), strict=True)))
                page.mouse.wheel(0, -200)
            page.mouse.move(*middle)
            page.mouse.down()  # and panned
            page.mouse.move(middle[0] + rng.uniform(20, 90), middle[1] - rng.uniform(20, 90), steps=3)
            page.mouse.up()
            settle(page)
            view = link(page)
            scale = min(box["width"] / SIZES[number][1], box["height"] / SIZES[number][0])
            center = [side / 2 for side in SIZES[number][::-1]]
            if "zoom" in view:
                scale, center = float(view["zoom"]), [float(view["cx"]), float(view["cy"])]
            for _ in range(10):
                assert_pixel(page, image, box, scale, center, rng)


def assert_pixel(page, image, box, scale, center, rng) -> None:
    """Points at a random pixel and compares what is shown with the arrays."""
    sides = image.image.shape[1::-1]
    corner, size = np.array([box["x"], box["y"]]), np.array([box["width"], box["height"]])
    low = np.maximum(0, center - (size / 2 - 2) / scale)
    high = np.minimum(np.array(sides) - 1, center + (size / 2 - 2) / scale - 1)
    position = rng.integers(np.ceil(low), np.maximum(np.ceil(low), np.floor(high)) + 1)
    screen = corner + (position + 0.5 - center) * scale + size / 2
    page.mouse.move(*screen)
    settle(page)
    got = numbers(shown(page, "pixel"))
    assert np.abs(got - position).max() <= 1  # what is measured on the screen is whole pixels of it
    at = index_of(image, *got)
    rankings = image.rankings
    assert_ranking(page, "pixel", list(rankings.values()), at)
    assert abs(numbers(shown(page, "confidence"))[0] - 100 * image.confidence[at]) <= 0.0501
    spacing = np.array(image.grid.spacing)
    offset = image.seed[at] * spacing
    seed = np.array(at[::-1]) * spacing + offset
    near = 0.0501 + spacing.max() / 64 / 2  # of the last digit and of half a step
    assert np.abs(numbers(shown(page, "offset")) - offset).max() <= near
    assert np.abs(numbers(shown(page, "seed")) - seed).max() <= near
    packed = np.array(at) + np.rint(image.seed[at] * 64)[::-1] / 64
    at_seed = tuple(np.floor(packed + 0.5).astype(int))
    assert_ranking(page, "seed", [rankings["initial"], rankings["fused"]], at_seed)
    within = ((np.array(got) - image.grid.origin) / spacing + 0.5) % 1
    if np.abs(within - 0.5).max() < 0.4:  # its screen's pixel belongs to one of the network's alone
        color = page.evaluate(
            """([x, y]) => {
                const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
                pixel.drawImage(document.querySelector(".picture"), -Math.floor(x), -Math.floor(y));
                return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
            }""",
            (screen - corner).tolist(),
        )
        assert tuple(color) == CLASSES.colors[rankings["fused"].classes[at][0]]


def test_a_click_keeps_a_pixel_and_the_link_brings_it_back(opened):
    with opened() as page:
        choose(page, 1)
        page.locator("[data-layer=offsets]").click()
        page.locator(".base").select_option("truth")
        page.locator(".zoom-in").click()
        canvas(page).click(position={"x": 150, "y": 120})
        settle(page)
        before, pixel, seed = link(page), shown(page, "pixel"), shown(page, "seed")
        canvas(page).hover(position={"x": 20, "y": 30})
        settle(page)
        assert shown(page, "pixel") == pixel
        fragment = page.locator(".link").get_attribute("href")
        page.wait_for_function("fragment => location.hash === fragment", arg=fragment)
    with opened(fragment) as page:
        settle(page)
        assert link(page) == before
        assert (shown(page, "pixel"), shown(page, "seed")) == (pixel, seed)
        assert page.locator("[data-layer=offsets]").get_attribute("aria-pressed") == "true"
        assert page.locator(".images").input_value() == "1"
        page.keyboard.press("Escape")
        canvas(page).focus()
        page.keyboard.press("Escape")
        settle(page)
        assert "x" not in link(page)


def test_keys_move_from_pixel_to_pixel(opened):
    image = IMAGES[0]
    with opened() as page:
        canvas(page).click(position={"x": 200, "y": 120})
        settle(page)
        row, column = index_of(image, *numbers(shown(page, "pixel")))
        for key, step in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 0)), ("Shift+ArrowLeft", (0, -10))):
            page.keyboard.press(key)
            settle(page)
            row, column = row + step[0], column + step[1]
            assert index_of(image, *numbers(shown(page, "pixel"))) == (row, column)
        page.keyboard.press("2")
        settle(page)
        assert link(page)["layer"] == "truth"
        page.keyboard.press("n")
        page.wait_for_function("() => document.querySelector('#inspector').dataset.ready === 'image 1'")


def test_a_stroke_counts_its_pixels(opened):
    with opened() as page:
        box = canvas(page).bounding_box()
        page.keyboard.down("Shift")
        page.mouse.move(box["x"] + 100, box["y"] + 150)
        page.mouse.down()
        page.mouse.move(box["x"] + 400, box["y"] + 150, steps=8)
        page.mouse.up()
        page.keyboard.up("Shift")
        settle(page)
        text = page.locator(".stroke").inner_text()
        scale = box["width"] / SIZES[0][1]
        expected = 300 / scale / IMAGES[0].grid.spacing[0]
        assert abs(numbers(text.partition("network")[2])[0] - expected) <= 2


def test_touch_taps_and_fits_a_phone(opened):
    with opened(**PHONE) as page:
        box = canvas(page).bounding_box()
        page.touchscreen.tap(box["x"] + 60, box["y"] + 50)
        settle(page)
        x, y = numbers(shown(page, "pixel"))
        scale = box["width"] / SIZES[0][1]
        assert abs(x - 60 / scale) <= 2 and abs(y - 50 / scale) <= 2
        assert page.locator(".badge").inner_text() == "kept"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_tables_sort_and_charts_come(opened):
    with opened() as page:
        table = page.locator(".sortable").first
        for head, column in (("S_i", 2), ("S_f − S_i", 4)):
            for falling in (True, False):
                page.get_by_role("button", name=head, exact=True).click()
                values = table.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()
                values = [numbers(value)[0] for value in values]
                assert values == sorted(values, reverse=falling)
        names = table.locator("tbody tr th").all_inner_texts()
        assert sorted(name.strip() for name in names) == sorted(CLASSES.names)
        for chart, drawn in (("loss", ".scatterlayer path"), ("confusion", ".heatmaplayer image")):
            page.locator(f"[data-chart={chart}]").scroll_into_view_if_needed()
            page.wait_for_selector(f"[data-chart={chart}][data-drawn] {drawn}", state="attached")
        heat = page.evaluate("document.querySelector('[data-chart=confusion]').data[0]")
        counts = np.array(heat["customdata"])[..., 0]
        np.testing.assert_allclose(np.array(heat["customdata"])[..., 1], counts / counts.sum(1, keepdims=True))
        assert heat["x"][0] == HOSTILE[0].replace("<", "&lt;").replace(">", "&gt;")


def test_images_of_the_inspector_are_linked(opened):
    with opened() as page:
        page.locator("td a, th a").nth(1).click()
        page.wait_for_function("() => document.querySelector('#inspector').dataset.ready === 'image 1'")


def test_names_are_text(opened):
    with opened() as page:
        choose(page, 3)
        assert page.title() == f"Report {HOSTILE[0]} on val"
        for name in CLASSES.names:
            assert page.locator(".sortable").first.locator("th", has_text=name).count() == 1
        canvas(page).click(position={"x": 50, "y": 50})
        settle(page)
        assert link(page)["image"] == HOSTILE[0]


@pytest.mark.parametrize(
    ("number", "absent"),
    [(4, {"truth", "errors"}), (5, {"initial", "seed", "fused", "changed", "confidence", "offsets"})],
)
def test_what_is_missing_has_no_layer(opened, number: int, absent: set[str]):
    with opened() as page:
        choose(page, number)
        layers = page.locator("[data-layer]").evaluate_all("all => all.map(one => one.dataset.layer)")
        assert not absent & set(layers)
        for layer in layers:
            page.locator(f"[data-layer={layer}]").click()
            settle(page)
        canvas(page).click(position={"x": 50, "y": 50})
        settle(page)
        assert page.locator("table[data-field=pixel] .share").count() > 0


def test_a_segfix_has_boundary_and_direction_as_layers(engine, tmp_path):
    image = made_up(0, SIZES[0], name="one", boundaries=True)
    with shown_page(engine, made_up_page([image]), tmp_path) as page:
        layers = page.locator("[data-layer]").all_inner_texts()
        assert layers == ["input", "truth", "direction", "errors", "boundary"]
        page.locator("[data-layer=confidence]").click()
        canvas(page).click(position={"x": 100, "y": 90})
        settle(page)
        assert page.locator(".key").inner_text().split("\n") == ["0: interior", "1: boundary"]
        at = index_of(image, *numbers(shown(page, "pixel")))
        assert abs(numbers(shown(page, "confidence"))[0] - 100 * image.confidence[at]) <= 0.0501
        assert_ranking(page, "pixel", list(image.rankings.values()), at)


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_dark_mode(opened, scheme: str, dark: bool):
    with opened(color_scheme=scheme) as page:
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(numbers(color)[:3]) < 200) == dark


@contextmanager
def shown_page(engine, content: str, folder: Path):
    """Another page, in which nothing may go wrong either."""
    file = folder / "page.html"
    file.write_text(content, encoding="utf-8")
    options = {"executable_path": CHROMIUM, "args": ARGUMENTS, **LAPTOP}
    context = engine.launch_persistent_context(str(folder / "profile"), **options)
    page, wrong = context.pages[0], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("#inspector[data-ready]")
    yield page
    assert wrong == []
    context.close()


@pytest.mark.parametrize("order", [1, -1])
def test_two_networks_are_pointed_at_together(engine, tmp_path, order):
    """They share image, view and pixel; what one has no offsets of has none drawn."""
    image = made_up(0, SIZES[0], name="one")
    other = made_up(1, SIZES[0], name="one", offsets=False)
    views = {"first": [image], HOSTILE[1]: [other]}
    names = list(views)[::order]
    with shown_page(engine, made_up_page([image], {name: views[name] for name in names}), tmp_path) as page:
        assert page.locator(".pane h3").all_inner_texts() == names
        assert link(page)["layer"] == "fused"
        for layer in page.locator("[data-layer]").evaluate_all("all => all.map(one => one.dataset.layer)"):
            page.locator(f"[data-layer={layer}]").click()
            settle(page)
        page.locator(".marks").nth(1).hover(position={"x": 100, "y": 90})
        settle(page)
        first, second = page.locator("b[data-field=pixel]").all_inner_texts()
        assert first == second
