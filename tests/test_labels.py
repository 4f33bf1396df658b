import numpy as np
import pytest
from cityscapesscripts.helpers import labels as official

from ovenet_jax.data.labels import ACDC, ADE20K, CAMVID, CITYSCAPES, IGNORE, TOY_STREETS, numbered
from tests.conftest import SHARED

GOLDEN = SHARED / "goldens/13_preprocessing/io.npz"
TABLES = {
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "acdc": ACDC,
    "ade20k": ADE20K,
    "toy_streets": TOY_STREETS,
    "numbered": numbered(37),
}


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


def test_cityscapes_is_the_table_of_its_own_scripts():
    classes = sorted((row for row in official.labels if not row.ignoreInEval), key=lambda row: row.trainId)
    assert CITYSCAPES.names == tuple(row.name for row in classes)
    assert CITYSCAPES.colors == tuple(row.color for row in classes)
    assert CITYSCAPES.ids == tuple((row.id,) for row in classes)
    void = {row.id % 256 for row in official.labels if row.ignoreInEval}
    assert set(CITYSCAPES.ignored_ids) == void | {34}


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}")
def test_ids_are_converted_as_published():
    golden = np.load(GOLDEN)
    np.testing.assert_array_equal(
        CITYSCAPES.train_ids()[golden["city_ids"].astype(np.uint8)], golden["city_ids_to_train"]
    )
    np.testing.assert_array_equal(CITYSCAPES.label_ids()[golden["city_train"]], golden["city_train_to_ids"])
    np.testing.assert_array_equal(CITYSCAPES.train_ids()[golden["city_map"]], golden["city_map_train"])
    np.testing.assert_array_equal(ADE20K.train_ids()[golden["ade_map"]], golden["ade_reduced"])


def test_ade20k_counts_from_one():
    assert [ADE20K.names[i] for i in (0, 6, 12, 20, 149)] == ["wall", "road", "person", "car", "flag"]
    assert ADE20K.train_ids()[[0, 1, 150, 151]].tolist() == [IGNORE, 0, 149, IGNORE]
    assert ADE20K.label_ids()[[0, 149, IGNORE]].tolist() == [1, 150, 0]


@pytest.mark.parametrize(("count", "apart"), [(19, 50), (60, 10), (255, 3)])
def test_numbered_classes_have_colours_that_differ(count, apart):
    labels = numbered(count)
    assert labels.names[0] == "class 0" and labels.names[-1] == f"class {count - 1}"
    colors = np.array(labels.colors)
    distance = np.abs(colors[:, None] - colors).max(-1) + 255 * np.eye(count, dtype=int)
    assert distance.min() >= apart
