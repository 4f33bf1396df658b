"""A report as one file; what a browser makes of it is tested in tests/browser."""

import re

import numpy as np
import pytest

from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.packing import STEPS, packed
from ovenet_jax.evaluation.page import MOST_BYTES
from ovenet_jax.evaluation.results import ImageScore, Region
from tests.browser.pages import HOSTILE, made_up, made_up_page, section, table


@pytest.mark.parametrize(("align_corners", "origin", "spacing"), [(True, (0, 0), (4, 5)), (False, (1, 1.5), (3, 4))])
def test_where_the_networks_pixels_lie(align_corners, origin, spacing):
    """Four by three pixels over 16 x 9: corners on corners, or each in the middle of its share."""
    size, network = ((16, 13), (4, 4)) if align_corners else ((16, 9), (4, 3))
    assert Grid.over(size, network, align_corners) == (origin, spacing, network)


def test_names_stay_text():
    page = made_up_page([made_up(0, (20, 30), name=HOSTILE[0])])
    assert page.count("</script>") == len(re.findall("<script[ >]", page))


def test_cells_are_shown_by_their_kind():
    ious = {"S_i": np.array([0.1, 0.2, 0.5]), "S_f": np.array([0.2, 0.15, 0.5])}
    page = made_up_page(
        [made_up(0, (20, 30), name="a&b")],
        scores={name: {"iou": iou, "accuracy": iou} for name, iou in ious.items()},
        classes=Labels(("road", "<b>", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)), ((0,), (1,), (2,))),
        pixels=np.array([10, 20, 10]),
        suspects=[("a&b", 0.5, Region(0, 1, 20, 3, 4, 0.0625)), ("elsewhere", 0.25, Region(2, 0, 30, 5, 6, 0.125))],
        images=[ImageScore(0, "a&b", None)],
    )
    assert table(page, "Classes") == [
        ["class", "share", "S_i", "S_f", "S_f − S_i", "accuracy"],
        ["road", "25.00", "10.00", "20.00", "+10.00", "20.00"],
        ["<b>", "50.00", "20.00", "15.00", "-5.00", "15.00"],
        ["sky", "25.00", "50.00", "50.00", "+0.00", "50.00"],
    ]
    first, second, third = section(page, "Classes").partition("<tbody>")[2].split("</tr>")[:3]
    assert 'data-sort="0.25">25.00<' in first and "rgb(128 64 128)" in first
    assert 'class="better" style="width:50.0%"></i></span>+10.00<' in first
    assert 'class="worse" style="width:25.0%"></i></span>-5.00<' in second
    assert 'width:0.0%"></i></span>+0.00<' in third
    assert table(page, "Labels that look wrong")[1:] == [
        ["a&b", "road", "<b>", "3, 4", "6.25", "50.00"],
        ["elsewhere", "sky", "road", "5, 6", "12.50", "25.00"],
    ]
    assert '<a href="#image=a%26b&amp;layer=truth&amp;x=3&amp;y=4">a&amp;b</a>' in page
    assert "<a" not in section(page, "Labels that look wrong").partition("a&amp;b</a>")[2]
    assert table(page, "Images")[1] == ["a&b", "–"]
    assert "50.00 ± 1.00 %" in page


def test_nothing_is_fetched():
    page = made_up_page([made_up(0, (20, 30), name="a")])
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "default-src 'none'" in page


def test_noise_is_packed_in_coarser_steps_until_it_fits():
    image = made_up(0, (240, 320), name="noise")
    fine, arrays = packed([image], 10**9)
    (view,) = fine["views"]
    assert (view["levels"], view["parts"], view["map_stride"]) == STEPS[0]
    size = len(arrays["maps-0"])
    coarse, arrays = packed([image], size)
    assert sum(map(len, arrays.values())) <= size
    assert coarse["views"][0]["levels"] < view["levels"]


def test_a_large_image_is_reduced_and_says_so():
    image = made_up(0, (40, 60), name="large")
    tall = image._replace(image=np.zeros((5000, 2000, 3), np.uint8), label=np.zeros((5000, 2000), np.uint8))
    entry, _ = packed([tall], 10**6)
    assert (entry["size"], entry["stride"], entry["label_size"]) == ([2000, 5000], 3, [667, 1667])


def test_sixteen_images_stay_within_the_limit(monkeypatch):
    """With a limit that suits small ones."""
    limit = 3_200_000
    monkeypatch.setattr("ovenet_jax.evaluation.page.MOST_BYTES", limit)
    images = [made_up(i, (200, 300), name=f"{i}") for i in range(16)]
    assert len(made_up_page(images)) < limit < MOST_BYTES
