import numpy as np
import pytest
from ml_collections import ConfigDict

from ovenet_jax.data import pipeline, toy_streets
from ovenet_jax.data.labels import TOY_STREETS
from ovenet_jax.data.street_scene import CAR, POLE, Picture, render_scene


@pytest.fixture(scope="module")
def val_scenes():
    images, labels = zip(*(toy_streets.scene("val", i) for i in range(toy_streets.COUNTS["val"])), strict=True)
    return np.stack(images), np.stack(labels)


def test_a_scene_depends_on_split_and_index_only():
    image, label = toy_streets.scene("train", 7)
    toy_streets.scene("train", 6)
    again = toy_streets.scene("train", 7)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(label, again[1])
    for other in (("train", 8), ("val", 7)):
        assert (toy_streets.scene(*other)[0] != image).mean() > 0.5


@pytest.mark.parametrize("size", [(128, 256), (64, 96)])
def test_scenes_have_the_size_asked_for(size):
    image, label = render_scene(np.random.default_rng(0), size)
    assert image.shape == (*size, 3) and label.shape == size
    assert image.dtype == label.dtype == np.uint8


def test_classes_are_present_and_none_is_rare(val_scenes):
    _, labels = val_scenes
    counts = np.stack([np.bincount(label.ravel(), minlength=8) for label in labels])
    assert counts.shape[1] == len(TOY_STREETS.names)
    assert ((counts > 0).mean(0) >= 0.9).all()
    share = counts.sum(0) / counts.sum()
    assert (share > 0.015).all() and share.max() < 0.5


def test_poles_are_thin_but_wide_enough_to_see(val_scenes):
    _, labels = val_scenes
    edges = np.diff((labels == POLE).astype(np.int8), axis=2, prepend=0, append=0)
    widths = np.nonzero(edges == -1)[2] - np.nonzero(edges == 1)[2]
    assert np.median(widths) <= 8
    assert (widths >= 2).mean() > 0.9


def test_colour_alone_does_not_give_the_class(val_scenes):
    """The best table from coarse colour to class, made from these very pixels, stays far from a good answer."""
    images, labels = val_scenes
    bins = images.astype(int) // 32 @ (64, 8, 1)
    table = np.bincount((bins * 8 + labels).ravel(), minlength=512 * 8).reshape(512, 8)
    answer = table.argmax(1)[bins]
    confusion = np.bincount((labels * 8 + answer).ravel(), minlength=64).reshape(8, 8)
    iou = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))
    assert iou.mean() < 0.35


def test_the_camera_sees_as_similar_triangles_say():
    """Focal length 100 pixels, 2 m above the road: at 10 m a metre takes 10 pixels, 20 below the horizon."""
    picture = Picture(np.random.default_rng(0), (80, 100))
    picture.focal, picture.centre, picture.x, picture.y = 100.0, (50.0, 40.0), 0.0, 2.0
    before = picture.image.copy()
    picture.paint(CAR, np.zeros(3), np.array((-3, 3, 3, -3)), np.array((0, 0, 1, 1)), 10)
    rows, columns = np.nonzero(picture.label == CAR)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 60, 20, 80)
    assert len(rows) == 11 * 61
    changed = (picture.image != before).any(-1)
    assert changed[51:60, 21:80].all() and not changed[:49].any() and not changed[62:].any()


def test_prepared_scenes_are_the_drawn_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_streets.data_set, "__defaults__", ((32, 64), {"train": 3, "val": 2}))
    data = ConfigDict({"name": "toy_streets", "prepared": str(tmp_path), "storage": "compressed"})
    assert pipeline.prepare(data)["splits"]["val"]["images"] == 2
    for split, count in (("train", 3), ("val", 2)):
        source = pipeline.open_split(data, split)
        assert len(source) == count and source.classes is TOY_STREETS
        for i in range(count):
            image, label = toy_streets.scene(split, i, (32, 64))
            assert source[i]["name"] == f"{split}_{i:04d}"
            np.testing.assert_array_equal(source[i]["image"], image)
            np.testing.assert_array_equal(source[i]["label"], label)


def test_other_scenes_are_kept_in_another_folder():
    arguments = ((), ((64, 128),), ((128, 256), {"train": 4, "val": 2}))
    assert len({toy_streets.data_set(*each).digest for each in arguments}) == 3
