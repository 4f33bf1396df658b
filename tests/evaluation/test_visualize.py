"""Pictures: exact colours, true numbers in the texts, every combination of parts, files written whole."""

import subprocess
import sys
from types import SimpleNamespace

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes

from ovenet_jax.evaluation.visualize import (
    confusion_picture,
    label_colors,
    legend,
    offset_colors,
    overlay,
    panel,
    write_picture,
)
from tests.places import ROOT

CLASSES = SimpleNamespace(names=("road", "car", "sky"), colors=((128, 64, 128), (0, 0, 142), (70, 130, 180)))
ROAD, CAR, SKY, IGNORED = 0, 1, 2, 255
GREEN, RED = (0, 158, 115), (213, 74, 0)
WHITE = (255, 255, 255)


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The texts that are drawn, in order."""
    texts, draw = [], Axes.text

    def record(axes, x, y, text, **style):
        texts.append(text)
        return draw(axes, x, y, text, **style)

    monkeypatch.setattr(Axes, "text", record)
    return texts


def sample(height=360, width=480):
    """A grey image, its label (left half road, right half car) and three predictions.

    Initial: the upper half wrong. Seed: all right. Fused: an eighth wrong, below; it mends 1/2 and breaks 1/8.
    """
    image = np.full((height, width, 3), 90, np.uint8)
    label = np.full((height, width), ROAD, np.uint8)
    label[:, width // 2 :] = CAR
    initial = label.copy()
    initial[: height // 2] = SKY
    fused = label.copy()
    fused[height // 2 :, width * 3 // 4 :] = SKY
    return image, label, {"initial S_i": initial, "seed S_s": label.copy(), "fused S_f": fused}


def count(picture: np.ndarray, color) -> int:
    return int((picture == np.array(color, np.uint8)).all(-1).sum())


# ---- colours ----


def test_the_wheel_gives_each_direction_its_hue_and_opposite_ones_complementary_hues():
    right, left, down, up = offset_colors(np.array([[[5, 0], [-5, 0], [0, 5], [0, -5]]], np.float32), 5.0)[0]
    assert right.tolist() == [255, 0, 0]
    assert left.tolist() == [0, 255, 255]
    np.testing.assert_allclose(down, [127.5, 255, 0], atol=1)
    np.testing.assert_allclose(up, [127.5, 0, 255], atol=1)
    np.testing.assert_allclose(down.astype(int) + up, WHITE, atol=1)


def test_a_zero_offset_is_white_and_colour_grows_with_length_up_to_the_maximum():
    colors = offset_colors(np.array([[[0, 0], [2, 0], [4, 0], [40, 0]]], np.float32), 4.0)[0]
    assert colors.tolist() == [[255, 255, 255], [255, 128, 128], [255, 0, 0], [255, 0, 0]]


@pytest.mark.parametrize("length", [0.0, -1.0, float("nan")])
def test_a_wheel_without_length_is_refused(length):
    with pytest.raises(ValueError, match="max_length is .*above 0"):
        offset_colors(np.zeros((2, 2, 2), np.float32), length)


def test_labels_take_the_palettes_colours_and_ignored_pixels_black():
    colors = label_colors(np.array([[SKY, ROAD], [IGNORED, CAR]], np.uint8), CLASSES)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[70, 130, 180], [128, 64, 128]], [[0, 0, 0], [0, 0, 142]]]


@pytest.mark.parametrize(
    ("value", "dtype"), [(3, np.uint8), (254, np.uint8), (-1, np.int32), (256, np.int64)]
)
def test_a_label_value_outside_the_table_is_named(value, dtype):
    with pytest.raises(
        ValueError, match=f"label value {value} is outside the table of 3 classes.*0 to 2, or 255"
    ):
        label_colors(np.array([[0, value]], dtype), CLASSES)


# ---- panels ----


@pytest.mark.parametrize("size", [(128, 256), (360, 480), (1024, 2048), (640, 427)])
def test_a_panel_is_a_sheet_of_readable_width_at_every_image_size(size):
    image, label, predictions = sample(*size)
    offset, confidence = (
        np.full((size[0] // 4, size[1] // 4, 2), 0.1),
        np.full((size[0] // 4, size[1] // 4, 1), 0.5),
    )
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
    assert [text for text in written if "correct" in text] == [
        "50.0 % correct",
        "100.0 % correct",
        "87.5 % correct",
    ]
    written.clear()
    label[:180] = IGNORED  # all that is wrong in the initial prediction
    panel(image, label, predictions, None, None, CLASSES)
    assert [text for text in written if "correct" in text] == [
        "100.0 % correct",
        "100.0 % correct",
        "75.0 % correct",
    ]


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
    assert "sky" not in written
    assert "ignored" not in written
    assert {"road", "car"} <= set(written)
    written.clear()
    label[0, 0] = IGNORED
    panel(image, label, {"prediction": np.full_like(label, SKY)}, None, None, CLASSES)
    assert written[-4:] == ["road", "car", "sky", "ignored"]


def test_offsets_are_shown_in_pixels_of_the_image_in_their_true_direction(written):
    image, label, predictions = sample(361, 481)
    offset = np.full((90, 120, 2), 0.1, np.float32)  # 24 pixels right, 18 down, whatever its resolution
    picture = panel(image, label, predictions, offset, None, CLASSES)
    assert "full colour: 30 px away" in written
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
            [
                "input",
                "offsets",
                "confidence",
                "truth",
                "initial S_i",
                "seed S_s",
                "fused S_f",
                "changed by fusion",
            ],
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
        np.zeros((90, 120, 1), np.float32) if "confidence" in parts else None,
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
    assert [text for text in written if text.startswith("object")] == list(classes.names)
    assert picture.shape[0] < 2000


def test_names_and_titles_are_never_read_as_formulas(written):
    classes = SimpleNamespace(names=("$road", "c_a^r$"), colors=((1, 2, 3), (4, 5, 6)))
    _, label, _ = sample(36, 48)
    panel(np.zeros((36, 48, 3), np.uint8), label, {"$S_{": label}, None, None, classes)
    assert {"$road", "c_a^r$", "$S_{"} <= set(written)


def test_maps_that_do_not_fit_the_image_are_refused_by_name():
    image, label, predictions = sample()
    with pytest.raises(ValueError, match=r"label is \[90, 120\]; expected the image's size, \[360, 480\]"):
        panel(image, label[::4, ::4], predictions, None, None, CLASSES)
    with pytest.raises(ValueError, match=r"fused S_f is \[90, 120\]; expected the image's size"):
        panel(image, label, {"fused S_f": label[::4, ::4]}, None, None, CLASSES)
    with pytest.raises(ValueError, match=r"offset is \[2, 90, 120\]; expected \[h, w, 2\]"):
        panel(image, label, predictions, np.zeros((2, 90, 120)), None, CLASSES)
    with pytest.raises(ValueError, match=r"confidence is \[90, 120, 2\]; expected \[h, w, 1\]"):
        panel(image, label, predictions, None, np.zeros((90, 120, 2)), CLASSES)
    with pytest.raises(ValueError, match="offset holds values that are not finite"):
        panel(image, label, predictions, np.full((90, 120, 2), np.nan), None, CLASSES)


def test_extreme_shapes_still_make_a_panel():
    for height, width in ((12, 1200), (1200, 12), (1, 1)):
        image, label, predictions = sample(height, width)
        picture = panel(image, label, predictions, np.zeros((2, 2, 2)), np.zeros((2, 2)), CLASSES)
        assert picture.shape[1] <= 2200


# ---- confusion ----


def test_a_confusion_picture_states_percentages_ious_and_their_mean(written):
    picture = confusion_picture(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), CLASSES)
    assert picture.dtype == np.uint8
    assert "mIoU 35.7 %  (1 absent, counted as 0)" in written  # (3/6 + 4/7 + 0) / 3
    assert {"75", "25", "33", "67", "50.0", "57.1", "absent"} <= set(written)
    absent_row = 3 * 72 * 72  # three cells of 72 pixels
    assert 0 <= count(picture, (222, 222, 222)) - absent_row < 100  # text edges share this grey


def test_a_predicted_class_that_never_occurs_is_absent_too(written):
    confusion_picture(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]), CLASSES)
    assert "mIoU 58.3 %  (1 absent, counted as 0)" in written  # (3/4 + 1 + 0) / 3


def test_large_confusion_pictures_give_a_scale_instead_of_cell_texts(written):
    classes = SimpleNamespace(names=tuple(f"object {k}" for k in range(60)), colors=np.zeros((60, 3)))
    confusion_picture(np.full((60, 60), 7), classes)
    assert [text for text in written if text.isdigit()] == ["0", "1", "10", "50", "100"]
    assert written.count("object 59") == 2  # at its row and at its column


def test_a_confusion_matrix_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"confusion matrix is \[2, 2\]; expected \[3, 3\]"):
        confusion_picture(np.zeros((2, 2)), CLASSES)


# ---- files ----


def test_a_picture_is_written_whole_with_its_folders_and_nothing_else(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "picture.png"
    write_picture(path, picture)
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], picture)
    write_picture(str(path), 255 - picture)  # over the old one
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], 255 - picture)
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(OSError, match=r"picture\.png"):
        write_picture(tmp_path / "picture.png", np.zeros((2, 2, 3), np.uint8))
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize(
    "picture", [np.zeros((2, 2, 3)), np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2, 4), np.uint8)]
)
def test_what_is_not_a_picture_is_not_written(picture, tmp_path):
    with pytest.raises(ValueError, match=r"a\.png: a picture is uint8 \[h, w, 3\] or \[h, w\], not "):
        write_picture(tmp_path / "a.png", picture)
    assert not list(tmp_path.iterdir())


def test_a_label_map_is_written_as_one_channel(tmp_path):
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    write_picture(tmp_path / "label.png", label)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "label.png"), cv2.IMREAD_UNCHANGED), label)


# ---- overlays ----


def test_an_overlay_is_half_image_half_colours():
    image = np.full((1, 2, 3), 100, np.uint8)
    expected = [[(100 + np.array(CLASSES.colors[k])) / 2 for k in (0, 1)]]
    np.testing.assert_allclose(overlay(image, np.array([[0, 1]]), CLASSES), expected, atol=0.51)


def test_the_legend_names_every_class(written):
    picture = legend(CLASSES)
    assert picture.dtype == np.uint8
    assert set(CLASSES.names) <= set(written)
    for color in CLASSES.colors:
        assert (picture == color).all(-1).any()


def test_drawing_needs_no_tensorflow_and_no_pyplot():
    code = (
        "import sys, ovenet_jax.evaluation.visualize;"
        "print(sorted({'tensorflow', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
