import numpy as np
import pytest

from ovenet_jax.data.augment import (
    IGNORE,
    PhotometricDistortion,
    RandomBrightness,
    RandomFlip,
    RandomScaleCrop,
    pad,
    resize,
    resize_short_side,
    resized_window,
)
from ovenet_jax.data.sizes import scaled_size


def numbered(height, width):
    """A sample whose image says, at each pixel, where it is from: red the row, green the column, blue the label."""
    rows, columns = np.indices((height, width), np.uint8)
    label = (rows // 3 + columns // 4) % 7
    return {"image": np.stack([rows, columns, label], -1), "label": label}


@pytest.mark.parametrize(
    ("size", "base", "scale", "expected"),
    [
        ((48, 97), 97, 0.5, (24, 49)),
        ((83, 60), 97, 0.5, (49, 35)),
        ((48, 97), 97, 0.75, (36, 73)),
        ((83, 60), 97, 1.3, (126, 91)),
        ((48, 97), 97, 2.1, (101, 204)),
        ((360, 480), 480, 1.0, (360, 480)),
        ((1024, 2048), 2048, 0.7, (717, 1434)),
        ((50, 50), 33, 1.0, (33, 33)),
    ],
)
def test_scaled_sizes_are_rounded_as_published(size, base, scale, expected):
    assert scaled_size(size, base * scale) == expected


def test_every_scale_is_drawn_about_equally_often():
    act = RandomScaleCrop(base_size=40, crop=(84, 84), scale_factor=16)  # nothing is cut off: 40 x 2.1 = 84
    sample = {"image": np.ones((20, 40, 3), np.uint8), "label": np.zeros((20, 40), np.uint8)}
    rng = np.random.default_rng(0)
    widths = [int((act(sample, rng)["label"][0] != IGNORE).sum()) for _ in range(1700)]
    drawn, counts = np.unique(widths, return_counts=True)
    assert drawn.tolist() == [int(40 * (0.5 + i / 10) + 0.5) for i in range(17)]
    assert counts.min() > 60 and counts.max() < 150


def test_padding_is_black_and_ignored_at_the_bottom_and_right():
    sample = {"image": np.full((3, 5, 3), 9, np.uint8), "label": np.full((3, 5), 2, np.uint8)}
    padded = pad(sample, (4, 7))
    assert padded["image"].shape == (4, 7, 3) and padded["label"].shape == (4, 7)
    assert (padded["image"][:3, :5] == 9).all() and (padded["label"][:3, :5] == 2).all()
    assert padded["image"].sum() == 9 * 3 * 5 * 3
    assert (padded["label"] == IGNORE).sum() == 4 * 7 - 3 * 5
    assert pad(sample, (2, 5))["label"].shape == (3, 5)


def test_windows_lie_anywhere_and_keep_image_and_label_together():
    sample = numbered(30, 40)
    act = RandomScaleCrop(base_size=80, crop=(20, 24), scale_factor=0)  # 80 x 0.5: the size it has
    rng = np.random.default_rng(1)
    corners = set()
    for _ in range(800):
        window = act(sample, rng)
        y, x, _ = (int(v) for v in window["image"][0, 0])
        np.testing.assert_array_equal(window["image"], sample["image"][y : y + 20, x : x + 24])
        np.testing.assert_array_equal(window["label"], sample["label"][y : y + 20, x : x + 24])
        corners.add((y, x))
    assert {y for y, _ in corners} == set(range(11)) and {x for _, x in corners} == set(range(17))


def test_a_crop_is_what_resizing_padding_and_cutting_give():
    """With the same random numbers, on noise, which leaves interpolation nothing to hide in."""
    act = RandomScaleCrop(base_size=90, crop=(60, 75), scale_factor=16)
    sizes, padded = np.random.default_rng(8), set()
    for i in range(60):
        height, width = sizes.integers(20, 130, 2)
        sample = noise(height, width, seed=i)
        window, rng = act(sample, np.random.default_rng(i)), np.random.default_rng(i)
        scale = 0.5 + rng.integers(16, endpoint=True) / 10
        size = scaled_size((height, width), 90 * scale)
        whole = pad(resize(sample, size), (60, 75))
        y, x = rng.integers(np.subtract(whole["label"].shape, (60, 75)), endpoint=True)
        assert_alike(window, {key: array[y : y + 60, x : x + 75] for key, array in whole.items()})
        padded.add((size[0] < 60, size[1] < 75))
    assert len(padded) == 4  # at the bottom, at the right, at both, not at all


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (41, 57), (64, 64), (200, 33), (331, 503)], ids=str)
@pytest.mark.parametrize("source", [(1, 3), (64, 64), (97, 120), (150, 31)], ids=str)
def test_any_window_of_any_resize_is_what_the_whole_gives(source, size):
    sample = noise(*source, seed=9)
    whole, rng = resize(sample, size), np.random.default_rng(10)
    for _ in range(5):
        y, x = rng.integers(size)
        height, width = rng.integers(1, (90, 90))
        window = resized_window(sample, size, (y, x), (height, width))
        assert_alike(window, {key: array[y : y + height, x : x + width] for key, array in whole.items()})


def noise(height, width, seed):
    """Pixels of 0 and 255 and labels, all independent."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 2, (height, width, 3), np.uint8) * 255,
        "label": rng.integers(0, 256, (height, width), np.uint8),
    }


def assert_alike(sample, other):
    np.testing.assert_array_equal(sample["label"], other["label"])
    np.testing.assert_allclose(sample["image"].astype(int), other["image"], rtol=0, atol=1)


@pytest.mark.parametrize(
    ("settings", "first"), [({"short_side": 20}, (20, 28)), ({"resize": (24, 18)}, (24, 18)), ({}, (31, 43))]
)
def test_the_random_scale_is_of_the_size_that_images_are_first_resized_to(settings, first):
    act = RandomScaleCrop(base_size=30, crop=(90, 90), scale_factor=16, **settings)  # nothing is cut off
    sample = {"image": np.ones((31, 43, 3), np.uint8), "label": np.zeros((31, 43), np.uint8)}
    rng = np.random.default_rng(11)
    labels = [act(sample, rng)["label"] == 0 for _ in range(200)]
    drawn = {(int(label[:, 0].sum()), int(label[0].sum())) for label in labels}
    assert drawn == {scaled_size(first, 30 * (0.5 + i / 10)) for i in range(17)}


def test_scale_and_aspect_are_any_number_between_their_bounds():
    """Of a square the area says the scale, and the sides' ratio the aspect; both uniform, independent."""
    act = RandomScaleCrop(0, (8, 8), 0, scale_range=(0.5, 2.0), aspect_range=(0.9, 1.1), short_side=4000)
    rng = np.random.default_rng(16)
    heights, widths = np.array([act.drawn_size((50, 50), rng) for _ in range(2000)]).T
    scale, aspect = np.sqrt(heights * widths) / 4000, widths / heights
    for drawn, (least, most) in ((scale, (0.5, 2.0)), (aspect, (0.9, 1.1))):
        assert least - 0.001 < drawn.min() and drawn.max() < most + 0.001
        quarters, _ = np.histogram(drawn, np.linspace(least - 0.001, most + 0.001, 5))
        assert (abs(quarters - 500) < 100).all()
    assert abs(np.corrcoef(scale, aspect)[0, 1]) < 0.1


def test_padding_lies_anywhere_in_its_colour():
    sample = numbered(3, 5)
    act = RandomScaleCrop(0, (6, 7), 0, scale_range=(1.0, 1.0), pad_color=(9, 8, 7), pad_anywhere=True)
    rng, places = np.random.default_rng(17), set()
    for _ in range(200):
        padded = act(sample, rng)
        rows, columns = (np.flatnonzero((padded["label"] != IGNORE).any(axis)) for axis in (1, 0))
        inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.testing.assert_array_equal(padded["label"][inside], sample["label"])
        np.testing.assert_array_equal(padded["image"][inside], sample["image"])
        outside = padded["label"] == IGNORE
        assert (padded["image"][outside] == (9, 8, 7)).all() and outside.sum() == 6 * 7 - 3 * 5
        places.add((int(rows[0]), int(columns[0])))
    assert places == {(y, x) for y in range(4) for x in range(3)}


@pytest.mark.parametrize("zoom", [1, 6])  # 600 pixels: not all of them are counted
def test_crops_for_rare_classes_hold_them_in_the_share_that_is_asked_for(zoom):
    label = np.zeros((100, 100), np.uint8)
    label[70:, 80:] = 1  # 600 pixels
    label[:50, :4] = IGNORE
    label = np.kron(label, np.ones((zoom, zoom), np.uint8))
    sample = {"image": np.zeros((*label.shape, 3), np.uint8), "label": label}
    side, crop = 200 * zoom, (20 * zoom, 20 * zoom)
    shares = {}
    for wanted in (0.0, 0.5, 1.0):
        act = RandomScaleCrop(side, crop, scale_factor=0, rare_class_crops=wanted)  # times 0.5: as it is
        rng = np.random.default_rng(12)
        shares[wanted] = np.mean([(act(sample, rng)["label"] == 1).any() for _ in range(400)])
    # of the 81 x 81 windows 30 x 20 reach class 1, and it is drawn with probability 9200 / 9800
    uniform, drawn = 30 * 20 / 81**2, 9200 / 9800
    assert shares[0.0] == pytest.approx(uniform, abs=0.05)
    assert shares[1.0] == pytest.approx(drawn, abs=0.05)
    assert shares[0.5] == pytest.approx((uniform + drawn) / 2, abs=0.06)


def test_crops_for_rare_classes_lie_anywhere_around_them_and_inside_the_image():
    label = np.zeros((40, 60), np.uint8)
    label[0, 59] = label[25, 30] = 1
    rows, columns = np.indices(label.shape, np.uint8)
    sample = {"image": np.stack([rows, columns, rows], -1), "label": label}
    act, rng = RandomScaleCrop(120, (10, 12), scale_factor=0, rare_class_crops=1.0), np.random.default_rng(13)
    windows = [window for window in (act(sample, rng) for _ in range(1500)) if (window["label"] == 1).any()]
    corners = {tuple(int(v) for v in window["image"][0, 0, :2]) for window in windows}
    assert corners == {(0, 48)} | {(y, x) for y in range(16, 26) for x in range(19, 31)}


def test_crops_for_rare_classes_of_an_image_without_labels_are_any():
    sample = numbered(30, 40) | {"label": np.full((30, 40), IGNORE, np.uint8)}
    act, rng = RandomScaleCrop(80, (20, 24), scale_factor=0, rare_class_crops=1.0), np.random.default_rng(14)
    assert len({act(sample, rng)["image"].tobytes() for _ in range(50)}) > 30


@pytest.mark.parametrize("scale", [0.5, 1.3, 2.1])
def test_resized_image_and_label_stay_aligned(scale):
    label = np.zeros((40, 60), np.uint8)
    label[12:, 20:] = 1
    sample = {"image": np.repeat(label[..., None] * 200, 3, 2), "label": label}
    resized = resize(sample, scaled_size((40, 60), 60 * scale))
    differ = (resized["image"][..., 0] > 100) != (resized["label"] == 1)
    edge_y, edge_x = 12 * scale, 20 * scale
    y, x = np.nonzero(differ)
    assert ((np.abs(y - edge_y) <= scale + 1) | (np.abs(x - edge_x) <= scale + 1)).all()
    assert set(np.unique(resized["label"])) == {0, 1}


@pytest.mark.parametrize(
    ("size", "short_side", "multiple", "inner", "outer"),
    [
        ((48, 97), 40, 1, (40, 81), (40, 81)),
        ((48, 97), 24, 16, (24, 49), (32, 64)),
        ((83, 60), 37, 8, (51, 37), (56, 40)),
        ((512, 683), 520, 8, (520, 694), (520, 696)),
        ((50, 50), 33, 8, (33, 33), (40, 40)),
    ],
)
def test_the_short_side_is_resized_and_both_are_padded_with_the_mean_colour(size, short_side, multiple, inner, outer):
    sample = {"image": np.full((*size, 3), 7, np.uint8), "label": np.full(size, 3, np.uint8), "name": "x"}
    resized = resize_short_side(sample, short_side, multiple)
    inside = np.zeros(outer, bool)
    inside[: inner[0], : inner[1]] = True
    np.testing.assert_array_equal(resized["label"], np.where(inside, 3, IGNORE))
    np.testing.assert_array_equal(resized["image"], np.where(inside[..., None], 7, (124, 116, 104)))
    assert resized["name"] == "x"
    del sample["label"]
    unlabelled = resize_short_side(sample, short_side, multiple)
    assert unlabelled.keys() == sample.keys()
    np.testing.assert_array_equal(unlabelled["image"], resized["image"])


def test_half_of_the_samples_are_mirrored_and_the_others_as_before():
    sample = numbered(6, 8)
    rng = np.random.default_rng(2)
    mirrored = 0
    for _ in range(400):
        result = RandomFlip()(sample, rng)
        flip = np.s_[:, ::-1] if result["image"][0, 0, 1] else np.s_[:, :]
        mirrored += int(result["image"][0, 0, 1] > 0)
        np.testing.assert_array_equal(result["image"], sample["image"][flip])
        np.testing.assert_array_equal(result["label"], sample["label"][flip])
    assert 160 < mirrored < 240


def test_left_and_right_change_places_in_mirrored_labels():
    label = np.array([[14, 15, 3], [16, 17, IGNORE]], np.uint8)
    sample, rng = {"image": np.zeros((2, 3, 3), np.uint8), "label": label}, np.random.default_rng(15)
    act = RandomFlip(pairs=((14, 15), (16, 17)))
    labels = {act(sample, rng)["label"].tobytes() for _ in range(20)}
    assert labels == {label.tobytes(), np.array([[3, 14, 15], [IGNORE, 16, 17]], np.uint8).tobytes()}


def test_brightness_adds_one_clipped_number_to_half_of_the_samples():
    image = np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)
    sample = {"image": image, "label": np.zeros((8, 8), np.uint8)}
    rng = np.random.default_rng(4)
    shifts = []
    for _ in range(600):
        result = RandomBrightness(10, 0.5)(sample, rng)
        difference = result["image"].astype(int) - image
        shift = int(difference[np.abs(difference) == np.abs(difference).max()][0])
        np.testing.assert_array_equal(result["image"], np.clip(image.astype(int) + shift, 0, 255))
        np.testing.assert_array_equal(result["label"], sample["label"])
        shifts.append(shift)
    assert set(shifts) == set(range(-10, 11))
    assert 250 < shifts.count(0) < 390  # half of them, and one of 21 shifts


def test_brightness_changes_the_share_of_the_samples_that_is_asked_for():
    sample = {"image": np.full((2, 2, 3), 100, np.uint8), "label": np.zeros((2, 2), np.uint8)}
    rng = np.random.default_rng(18)
    for share in (0.0, 1.0):
        values = [int(RandomBrightness(10, share)(sample, rng)["image"][0, 0, 0]) for _ in range(630)]
        changed = np.mean([value != 100 for value in values])
        assert changed == pytest.approx(share * 20 / 21, abs=0.05)  # one of 21 shifts is none


class Drawn:
    """In place of a random generator: these changes happen, contrast last or second, and each draws its `value`."""

    def __init__(self, changes, contrast_last=True, **value):
        order = ["brightness", "saturation", "hue"]
        order.insert(3 if contrast_last else 1, "contrast")
        self.chances = iter([0.5 if contrast_last else 0.4, *(0.4 if name in changes else 0.5 for name in order)])
        self.values = iter([value[name] for name in order if name in value])

    def random(self):
        return next(self.chances)

    def uniform(self, least, most):
        value = next(self.values)
        assert least <= value <= most
        return value

    def integers(self, least, above):
        value = next(self.values)
        assert least <= value < above
        return value


@pytest.mark.parametrize(
    ("value", "before", "after"),
    [
        ({}, (1, 2, 3), (1, 2, 3)),
        ({"brightness": 31.9}, (100, 224, 0), (131, 255, 31)),
        ({"brightness": -20.5}, (100, 20, 21), (79, 0, 0)),
        ({"contrast": 1.5}, (101, 170, 171), (151, 255, 255)),
        ({"contrast": 0.5}, (101, 1, 0), (50, 0, 0)),
        ({"saturation": 1.5}, (200, 100, 100), (200, 51, 51)),  # S 127 of 255, then 190
        ({"saturation": 1.5}, (200, 20, 20), (200, 0, 0)),
        ({"hue": -18}, (200, 100, 100), (200, 100, 160)),  # from red to 324 degrees
        ({"hue": 15}, (200, 100, 100), (200, 150, 100)),  # 30 degrees
        ({"brightness": 30.0, "contrast": 0.5}, (250, 100, 0), (127, 65, 15)),
        ({"contrast": 0.5, "saturation": 1.5}, (200, 100, 100), (100, 25, 25)),
    ],
)
def test_photometric_distortion_by_hand(value, before, after):
    sample = {"image": np.uint8([[before]]), "label": np.uint8([[7]])}
    result = PhotometricDistortion()(sample, Drawn(value.keys(), **value))
    assert result["image"][0, 0].tolist() == pytest.approx(after, abs=1 if {"saturation", "hue"} & value.keys() else 0)
    assert result["label"] is sample["label"]


def test_contrast_is_changed_second_or_last():
    sample = {"image": np.uint8([[(200, 100, 100)]])}
    values = {"contrast": 1.5, "saturation": 0.5}
    second, last = (
        PhotometricDistortion()(sample, Drawn(values.keys(), contrast_last, **values))["image"][0, 0].tolist()
        for contrast_last in (False, True)
    )
    assert second == pytest.approx((255, 202, 202), abs=1)  # 255 150 150, then S 105 becomes 52
    assert last == pytest.approx((255, 225, 225), abs=1)  # 200 150 150, then all times 1.5


def test_each_photometric_change_happens_to_half_of_the_samples():
    sample = {"image": np.full((1, 1, 3), 90, np.uint8)}  # grey: only brightness and contrast show
    rng = np.random.default_rng(6)
    same = [np.array_equal(PhotometricDistortion()(sample, rng)["image"], sample["image"]) for _ in range(600)]
    assert np.mean(same) == pytest.approx(0.25, abs=0.06)


def test_acts_leave_their_input_alone_and_return_uint8():
    sample = numbered(12, 16)
    for array in sample.values():
        array.flags.writeable = False
    rng = np.random.default_rng(5)
    crop = RandomScaleCrop(16, (10, 12), 16, rare_class_crops=0.5)
    for act in (crop, RandomBrightness(10, 0.5), PhotometricDistortion(), RandomFlip(pairs=((0, 1),))):
        for _ in range(20):
            assert all(array.dtype == np.uint8 for array in act(sample, rng).values())


def test_an_image_thin_as_a_line_is_cropped():
    sample = {"image": np.zeros((1, 1200, 3), np.uint8), "label": np.zeros((1, 1200), np.uint8)}
    crop = RandomScaleCrop(base_size=512, crop=(32, 32), scale_factor=16)(sample, np.random.default_rng(0))
    assert crop["image"].shape == (32, 32, 3)
