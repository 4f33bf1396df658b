"""A report as one file; what a browser makes of it is tested in tests/browser."""

import re

import numpy as np
import pytest

from ovenet_jax.evaluation.grid import Grid
from ovenet_jax.evaluation.inspection import seeds
from ovenet_jax.evaluation.packing import STEPS, packed
from ovenet_jax.evaluation.page import MOST_BYTES, Section, html
from tests.browser.pages import HOSTILE, made_up, made_up_page


def test_seeds_in_the_networks_pixels():
    """An offset of 2 is a whole side; what lies beyond the map is at its edge."""
    offset = np.zeros((3, 5, 2), np.float32)
    offset[1, 1], offset[0, 4] = (0.5, -1), (1, 1)
    moved = seeds(offset, align_corners=True)
    assert moved[1, 1].tolist() == [1, -1]
    assert moved[0, 4].tolist() == [0, 1]
    assert not moved[2].any()


@pytest.mark.parametrize(("align_corners", "origin", "spacing"), [(True, (0, 0), (4, 5)), (False, (1, 1.5), (3, 4))])
def test_where_the_networks_pixels_lie(align_corners, origin, spacing):
    """Four by three pixels over 16 x 9: corners on corners, or each in the middle of its share."""
    size = (16, 13) if align_corners else (16, 9)
    assert Grid.over(size, (4, 4) if align_corners else (4, 3), align_corners) == (
        (origin[0], origin[1]),
        (spacing[0], spacing[1]),
    )


def test_names_stay_text():
    page = html(made_up_page([made_up(0, (20, 30), name=HOSTILE[0])]))
    assert page.count("</script>") == len(re.findall("<script[ >]", page))


def test_cells_are_shown_by_their_kind():
    rows = [(0, 0.25, 0.1, {"image": "a&b", "x": 3}), (1, None, -0.05, {"image": "elsewhere"})]
    rows.append((2, {"mean": 0.5, "margin": 0.0125}, 0.0, {"image": "a&b"}))
    kinds = ("class", "share", "difference", "pixel")
    page = made_up_page([made_up(0, (20, 30), name="a&b")])
    page = page._replace(sections=[Section("", "", [(kind, kind) for kind in kinds], rows)])
    first, second, third, _ = html(page).partition("<tbody>")[2].split("</tr>")[:4]
    assert 'data-sort="0.25">25.00<' in first
    assert 'width:50.0%"></i></span>+10.00<' in first
    assert '<a href="#image=a%26b&amp;x=3">a&amp;b</a>' in first
    assert ">–<" in second
    assert 'class="worse" style="width:25.0%"></i></span>-5.00<' in second
    assert ">elsewhere<" in second
    assert 'data-sort="0.5">50.00 ± 1.25<' in third
    assert 'width:0.0%"></i></span>+0.00<' in third


def test_nothing_is_fetched():
    page = html(made_up_page([made_up(0, (20, 30), name="a")]))
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "default-src 'none'" in page


def test_noise_is_packed_in_coarser_steps_until_it_fits():
    image = made_up(0, (240, 320), name="noise")
    fine = packed([image], 10**9)
    (view,) = fine.described["views"]
    assert (view["levels"], view["parts"], view["map_stride"]) == STEPS[0]
    size = len(fine.data["maps-0"])
    coarse = packed([image], size)
    assert sum(map(len, coarse.data.values())) <= size
    assert coarse.described["views"][0]["levels"] < view["levels"]


def test_a_large_image_is_reduced_and_says_so():
    image = made_up(0, (40, 60), name="large")
    tall = image._replace(image=np.zeros((5000, 2000, 3), np.uint8), label=np.zeros((5000, 2000), np.uint8))
    entry = packed([tall], 10**6).described
    assert (entry["size"], entry["stride"], entry["label_size"]) == ([2000, 5000], 3, [667, 1667])


def test_sixteen_images_stay_within_the_limit(monkeypatch):
    """With a limit that suits small ones."""
    limit = 3_200_000
    monkeypatch.setattr("ovenet_jax.evaluation.page.MOST_BYTES", limit)
    images = [made_up(i, (200, 300), name=f"{i}") for i in range(16)]
    assert len(html(made_up_page(images))) < limit < MOST_BYTES
