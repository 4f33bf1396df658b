import numpy as np
import pytest
from cityscapesscripts.helpers import labels as official

from ovenet_jax.data.labels import CITYSCAPES, IGNORE, OFFICIAL, numbered

TABLES = OFFICIAL | {"numbered": numbered(37)}


@pytest.mark.parametrize("name", TABLES)
def test_label_tables_are_complete(name):
    labels = TABLES[name]
    assert len(labels.names) == len(labels.colors) == len(labels.ids) == len(set(labels.names))
    assert len(labels.colors) - len(set(labels.colors)) == (name == "ade20k")  # road and skyscraper
    table = labels.train_ids()
    assert table.dtype == np.uint8 and table.shape == (256,)
    for label_id in range(256):
        classes = [k for k, ids in enumerate(labels.ids) if label_id in ids]
        assert table[label_id] == (classes[0] if classes else IGNORE)
        assert (label_id in labels.known_ids()) == bool(classes or label_id in labels.ignored_ids)


@pytest.mark.parametrize("name", TABLES)
def test_the_way_back_leads_to_an_id_of_the_same_class(name):
    labels = TABLES[name]
    back, forth = labels.label_ids(), labels.train_ids()
    assert back.dtype == np.uint8 and back.shape == (256,)
    train_ids = np.arange(len(labels.names))
    np.testing.assert_array_equal(forth[back[train_ids]], train_ids)
    assert (back[len(labels.names) :] == labels.void_id).all()
    assert forth[labels.void_id] == IGNORE


@pytest.mark.parametrize("name", TABLES)
def test_mirrored_classes_come_in_pairs_of_different_classes(name):
    paired = [train_id for pair in TABLES[name].flip_pairs for train_id in pair]
    assert len(paired) == len(set(paired)) == 2 * len(TABLES[name].flip_pairs)
    assert bool(paired) == (name == "lip")


def test_cityscapes_is_the_table_of_its_own_scripts():
    classes = sorted((row for row in official.labels if not row.ignoreInEval), key=lambda row: row.trainId)
    assert CITYSCAPES.names == tuple(row.name for row in classes)
    assert CITYSCAPES.colors == tuple(row.color for row in classes)
    assert CITYSCAPES.ids == tuple((row.id,) for row in classes)
    void = {row.id % 256 for row in official.labels if row.ignoreInEval}
    assert set(CITYSCAPES.ignored_ids) == void | {34}


def test_ade20k_counts_from_one():
    assert [OFFICIAL["ade20k"].names[i] for i in (0, 6, 12, 20, 149)] == ["wall", "road", "person", "car", "flag"]
    assert OFFICIAL["ade20k"].train_ids()[[0, 1, 150, 151]].tolist() == [IGNORE, 0, 149, IGNORE]
    assert OFFICIAL["ade20k"].label_ids()[[0, 149, IGNORE]].tolist() == [1, 150, 0]


@pytest.mark.parametrize(
    ("name", "count"), [("pascal_context", 59), ("pascal_context_60", 60), ("lip", 20), ("coco_stuff", 171)]
)
def test_the_other_data_sets_have_as_many_classes_as_published(name, count):
    assert len(OFFICIAL[name].names) == count


@pytest.mark.parametrize(("name", "label_id"), [
    ("person", 1), ("stop sign", 13), ("backpack", 27), ("wine glass", 46), ("toilet", 70), ("toothbrush", 90),
    ("banner", 92), ("grass", 124), ("sky-other", 157), ("wood", 182),
])  # fmt: skip
def test_coco_stuff_keeps_its_official_ids(name, label_id):
    assert OFFICIAL["coco_stuff"].ids[OFFICIAL["coco_stuff"].names.index(name)] == (label_id,)


def test_voc_colours_are_those_of_its_development_kit():
    colors = dict(zip(OFFICIAL["pascal_context_60"].names, OFFICIAL["pascal_context_60"].colors, strict=True))
    official = {
        "background": (0, 0, 0), "aeroplane": (128, 0, 0), "car": (128, 128, 128), "cat": (64, 0, 0),
        "person": (192, 128, 128), "train": (128, 192, 0), "tvmonitor": (0, 64, 128),
    }  # fmt: skip
    assert {name: colors[name] for name in official} == official


@pytest.mark.parametrize(("count", "apart"), [(19, 50), (60, 10), (255, 3)])
def test_numbered_classes_have_colours_that_differ(count, apart):
    labels = numbered(count)
    assert labels.names[0] == "class 0" and labels.names[-1] == f"class {count - 1}"
    colors = np.array(labels.colors)
    distance = np.abs(colors[:, None] - colors).max(-1) + 255 * np.eye(count, dtype=int)
    assert distance.min() >= apart
