"""A report as one file; what a browser makes of it is tested in tests/browser."""

import re

import numpy as np
import pytest

from ovenet_jax.evaluation.inspection import STEPS, Grid, packed, seeds
from ovenet_jax.evaluation.page import MOST_BYTES, html
from tests.browser.pages import HOSTILE, made_up, made_up_page


def test_seeds_in_the_networks_pixels():
    """An offset of 2 is a whole side; what lies beyond the map is at its edge."""
    offset = np.zeros((3, 5, 2), np.float32)
    offset[1, 1], offset[0, 4] = (0.5, -1), (1, 1)
    moved = seeds(offset, align_corners=True)
    assert moved[1, 1].tolist() == [1, -1]
    assert moved[0, 4].tolist() == [0, 1]
    assert not moved[2].any()


@pytest.mark.parametrize(
    ("align_corners", "origin", "spacing"), [(True, (0, 0), (4, 5)), (False, (1, 1.5), (3, 4))]
)
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


def test_nothing_is_fetched():
    page = html(made_up_page([made_up(0, (20, 30), name="a")]))
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "default-src 'none'" in page


def test_noise_is_packed_in_coarser_steps_until_it_fits():
    image = made_up(0, (240, 320), name="noise")
    fine = packed([image], 10**9)["views"][0]
    assert (fine["levels"], fine["parts"], fine["map_stride"]) == (*STEPS[0], 1)
    size = len(fine["maps"])
    coarse = packed([image], size)
    assert len(coarse["picture"]) + len(coarse["label"]) + len(coarse["views"][0]["maps"]) <= size
    assert coarse["views"][0]["levels"] < fine["levels"]


def test_a_large_image_is_reduced_and_says_so():
    image = made_up(0, (40, 60), name="large")
    tall = image._replace(image=np.zeros((5000, 2000, 3), np.uint8), label=np.zeros((5000, 2000), np.uint8))
    entry = packed([tall], 10**6)
    assert (entry["size"], entry["stride"], entry["label_size"]) == ([2000, 5000], 3, [667, 1667])


def test_sixteen_images_stay_within_the_limit(monkeypatch):
    """With a limit that suits small ones."""
    limit = 3_200_000
    monkeypatch.setattr("ovenet_jax.evaluation.page.MOST_BYTES", limit)
    images = [made_up(i, (200, 300), name=f"{i}") for i in range(16)]
    assert len(html(made_up_page(images))) < limit < MOST_BYTES
