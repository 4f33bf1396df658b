"""Exact colours, true numbers in the texts, every combination of parts."""

import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from ovenet_jax.evaluation.colours import offset_colors
from ovenet_jax.evaluation.panel import panel
from tests.drawing import CAR, CLASSES, IGNORED, SKY, WHITE, count, sample
from tests.places import ROOT

GREEN, RED = (0, 158, 115), (213, 74, 0)


@pytest.mark.parametrize("size", [(128, 256), (360, 480), (1024, 2048), (640, 427)])
def test_a_panel_is_a_sheet_of_readable_width_at_every_image_size(size):
    image, label, predictions = sample(*size)
    offset, confidence = (np.full((size[0] // 4, size[1] // 4, 2), 0.1), np.full((size[0] // 4, size[1] // 4), 0.5))
    picture = panel(image, label, predictions, offset, confidence, CLASSES)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert 1600 <= picture.shape[1] <= 2200


def test_tiles_show_every_pixel_in_its_exact_colour():
    image, label, predictions = sample()  # 360x480: shown pixel by pixel
    picture = panel(image, label, predictions, np.zeros((90, 120, 2)), np.zeros((90, 120)), CLASSES)
    swatch = 25 * 25
    for k, name in enumerate(CLASSES.names):
        pixels = sum(int((ids == k).sum()) for ids in (label, *predictions.values()))
        assert pixels <= count(picture, CLASSES.colors[k]) <= pixels + swatch, name
    assert 360 * 480 <= count(picture, (90, 90, 90)) < 360 * 480 + 2000  # the input; a few pixels of text


def test_enlarged_labels_keep_their_edges():
    label = np.random.default_rng(0).integers(0, 3, (128, 256), dtype=np.uint8)
    picture = panel(np.full((128, 256, 3), 90, np.uint8), label, {}, None, None, CLASSES)
    for k, color in enumerate(CLASSES.colors):
        exact = 16 * int((label == k).sum())  # the tile is four times the image's size
        assert exact <= count(picture, color) <= exact + 25 * 25


def test_predictions_carry_their_accuracy_over_the_pixels_that_count(written):
    image, label, predictions = sample()
    panel(image, label, predictions, None, None, CLASSES)
    assert [text for text in written if "correct" in text] == ["50.0 % correct", "100.0 % correct", "87.5 % correct"]
    written.clear()
    label[:180] = IGNORED  # all that is wrong in the initial prediction
    panel(image, label, predictions, None, None, CLASSES)
    assert [text for text in written if "correct" in text] == ["100.0 % correct", "100.0 % correct", "75.0 % correct"]


def test_what_fusion_changed_is_green_where_mended_and_red_where_broken(written):
    image, label, predictions = sample()
    picture = panel(image, label, predictions, None, None, CLASSES)
    assert {"changed by fusion", "+50.0 %", "−12.5 %"} <= set(written)
    assert 0 <= count(picture, GREEN) - 360 * 480 // 2 < 200  # the tile, and the note in the same colour
    assert 0 <= count(picture, RED) - 360 * 480 // 8 < 200


@pytest.mark.parametrize("unsure", ["initial S_i", "fused S_f"])
def test_ignored_pixels_are_neither_mended_nor_broken(unsure, written):
    image, label, predictions = sample()
    label[:] = IGNORED
    predictions[unsure][:] = IGNORED  # even a prediction that "agrees" there
    picture = panel(image, label, predictions, None, None, CLASSES)
    assert {"+0.0 %", "−0.0 %"} <= set(written)
    assert max(count(picture, GREEN), count(picture, RED)) < 200
    assert not [text for text in written if "correct" in text]


def test_the_legend_names_only_the_classes_that_occur(written):
    image, label, _ = sample()
    panel(image, label, {"prediction": np.full_like(label, CAR)}, None, None, CLASSES)
    assert "2 sky" not in written
    assert "ignored" not in written
    assert {"0 road", "1 car"} <= set(written)
    written.clear()
    label[0, 0] = IGNORED
    panel(image, label, {"prediction": np.full_like(label, SKY)}, None, None, CLASSES)
    assert written[-4:] == ["0 road", "1 car", "2 sky", "ignored"]


def test_offsets_are_shown_in_pixels_of_the_image_in_their_true_direction(written):
    image, label, predictions = sample(361, 481)
    offset = np.full((90, 120, 2), 0.1, np.float32)  # 24 pixels right, 18 down, whatever its resolution
    picture = panel(image, label, predictions, offset, None, CLASSES)
    assert "full saturation: 30 px" in written
    assert "mean 30 px" in written
    expected = offset_colors(np.array([[[24.0, 18.0]]]), 30.0)[0, 0]
    assert count(picture, expected) > 0.8 * 361 * 481  # less the arrows


def test_offsets_of_zero_are_drawn_white():
    image, label, predictions = sample()
    picture = panel(image, label, predictions, np.zeros((90, 120, 2)), None, CLASSES)
    without = panel(image, label, predictions, None, None, CLASSES)
    assert count(picture, WHITE) > count(without, WHITE)


def test_confidence_spans_the_tile_from_corner_to_corner_and_has_its_scale(written):
    image = np.full((360, 480, 3), 90, np.uint8)
    ramp = np.tile(np.array([0.0, 1.0]), (2, 1))
    picture = panel(image, None, {}, None, ramp, CLASSES)
    assert {"confidence", "mean 0.50", "0: initial", "0.5", "1: seed"} <= set(written)
    low, high = (matplotlib.colormaps["viridis"](share, bytes=True)[:3] for share in (0.0, 1.0))
    frame = np.flatnonzero((picture != 255).any(axis=(0, 2)))[-1]
    assert count(picture[:, frame - 1], high) >= 720  # the last column of a tile of twice the image's size
    assert count(picture[:, frame - 960], low) >= 720


@pytest.mark.parametrize(
    ("parts", "titles"),
    [
        ({"image"}, ["input"]),
        ({"image", "label"}, ["input", "truth"]),
        ({"image", "baseline"}, ["input", "prediction"]),
        ({"image", "label", "baseline"}, ["input", "truth", "prediction"]),
        (
            {"image", "three", "offset", "confidence"},
            ["input", "offsets", "confidence", "initial S_i", "seed S_s", "fused S_f"],
        ),
        (
            {"image", "label", "three", "offset", "confidence"},
            ["input", "offsets", "confidence", "truth", "initial S_i", "seed S_s", "fused S_f", "changed by fusion"],
        ),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else "",
)
def test_a_panel_has_the_tiles_of_the_parts_that_are_given(parts, titles, written):
    image, label, predictions = sample()
    if "three" not in parts:
        predictions = {"prediction": predictions["fused S_f"]} if "baseline" in parts else {}
    picture = panel(
        image,
        label if "label" in parts else None,
        predictions,
        np.zeros((90, 120, 2), np.float32) if "offset" in parts else None,
        np.zeros((90, 120), np.float32) if "confidence" in parts else None,
        CLASSES,
    )
    known = {"input", "truth", "prediction", "offsets", "confidence", "changed by fusion", *predictions}
    assert [text for text in written if text in known] == titles
    rows = 1 if len(titles) <= 4 else 2
    tile_height = {1: 720, 2: 720, 3: 470, 6: 470, 8: 360}[len(titles)]
    assert rows * tile_height < picture.shape[0] < rows * (tile_height + 140)


def test_a_panel_with_150_classes_lists_them_all(written):
    colors = np.random.default_rng(0).integers(0, 256, (150, 3))
    classes = SimpleNamespace(names=tuple(f"object number {k}" for k in range(150)), colors=colors)
    label = (np.arange(150 * 150).reshape(150, 150) % 150).astype(np.uint8)
    picture = panel(np.zeros((150, 150, 3), np.uint8), label, {}, None, None, classes)
    assert [text for text in written if "object" in text] == [f"{k} {name}" for k, name in enumerate(classes.names)]
    assert picture.shape[0] < 2000


def test_names_and_titles_are_never_read_as_formulas(written):
    classes = SimpleNamespace(names=("$road", "c_a^r$"), colors=((1, 2, 3), (4, 5, 6)))
    _, label, _ = sample(36, 48)
    panel(np.zeros((36, 48, 3), np.uint8), label, {"$S_{": label}, None, None, classes)
    assert {"0 $road", "1 c_a^r$", "$S_{"} <= set(written)


def test_extreme_shapes_still_make_a_panel():
    for height, width in ((12, 1200), (1200, 12), (1, 1)):
        image, label, predictions = sample(height, width)
        picture = panel(image, label, predictions, np.zeros((2, 2, 2)), np.zeros((2, 2)), CLASSES)
        assert picture.shape[1] <= 2200


def test_drawing_needs_no_tensorflow_and_no_pyplot():
    code = (
        "import sys, ovenet_jax.evaluation.panel;print(sorted({'tensorflow', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
