from pathlib import Path

import numpy as np
import pytest

from ovenet_jax.data import pipeline
from ovenet_jax.data.inventory import as_text
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.errors import UserError
from tests import trees
from tests.camvid_tree import write


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data = trees.write_cityscapes(tmp_path_factory.mktemp("cityscapes"))
    pipeline.prepare(data)
    return data


@pytest.fixture
def data(tmp_path):
    return trees.write_cityscapes(tmp_path)


def read(data, split):
    source = pipeline.open_split(data, split)
    with pipeline.samples(source, range(len(source))) as samples:
        return list(samples)


@pytest.mark.parametrize("split", ["train", "val"])
def test_labelled_splits_come_out_as_they_went_in(prepared, split):
    samples = read(prepared, split)
    assert [sample["name"] for sample in samples] == [
        f"{city}_000000_000019_leftImg8bit" for city in trees.CITIES[split]
    ]
    expected = CITYSCAPES.train_ids()[trees.ids(trees.SIZE, range(34))]
    for sample in samples:
        np.testing.assert_array_equal(sample["image"], trees.image(trees.SIZE))
        np.testing.assert_array_equal(sample["label"], expected)
        assert sample["group"] == ""


def test_the_test_split_has_images_alone(prepared):
    source = pipeline.open_split(prepared, "test")
    assert not source.has_labels
    assert pipeline.open_split(prepared, "train+val").has_labels
    (sample,) = read(prepared, "test")
    assert sample.keys() == {"image", "name", "group", "index"}
    assert sample["name"] == "berlin_000000_000019_leftImg8bit"
    np.testing.assert_array_equal(sample["image"], trees.image(trees.SIZE))


def test_train_and_val_can_be_read_as_one(prepared):
    assert [sample["name"].split("_")[0] for sample in read(prepared, "train+val")] == [
        *trees.CITIES["train"],
        *trees.CITIES["val"],
    ]


@pytest.mark.parametrize("split", ["test", "train+test"])
def test_a_split_without_labels_cannot_be_trained_on(prepared, split):
    source = pipeline.open_split(prepared, split)
    with pytest.raises(UserError, match="no labels to train on; choose another --config.data.train_split"):
        pipeline.train_batches(source, [], batch_size=1, seed=0, first_step=0)


def test_without_its_folder_there_is_no_test_split(data):
    (Path(data.root) / "leftImg8bit/test").rename(Path(data.root) / "elsewhere")
    pipeline.prepare(data)
    assert len(pipeline.open_split(data, "val")) == 2
    with pytest.raises(UserError, match="cityscapes has no split 'test'; choose one of train, val"):
        pipeline.open_split(data, "test")


def test_an_empty_test_folder_is_left_out_and_named(data):
    image = Path(data.root) / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"
    image.unlink()
    (note,) = pipeline.prepare(data)["notes"]
    assert note == {"note": "folders are empty and left out", "files": 1, "first": str(image.parents[1])}
    with pytest.raises(UserError, match="cityscapes has no split 'test'; choose one of train, val"):
        pipeline.open_split(data, "test")


def test_all_faults_are_named_at_once_by_their_official_names(data):
    root = Path(data.root)
    (root / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png").unlink()
    (root / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png").unlink()
    write(root / "gtFine/train/bochum/bochum_000000_000019_gtFine_labelIds.png", trees.ids(trees.SIZE, range(30, 38)))
    (root / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    first, *faults = str(error.value).splitlines()
    assert first.startswith(f"4 faults in {root}")
    assert [fault.strip() for fault in faults] == [
        f"{root}/leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png: no label "
        "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png or _gtFine_labelTrainIds.png",
        f"{root}/gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png: no image "
        "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit",
        f"{root}/gtFine/train/bochum/bochum_000000_000019_gtFine_labelIds.png: label values that are "
        "not in the class table: 35, 36, 37",
        f"{root}/leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png: does not decode as an image",
    ]


def test_a_name_that_occurs_twice_is_a_fault(data):
    root = Path(data.root) / "leftImg8bit"
    (root / "test/bonn").mkdir()
    (root / "test/berlin/berlin_000000_000019_leftImg8bit.png").rename(
        root / "test/bonn/ulm_000000_000019_leftImg8bit.png"
    )
    with pytest.raises(
        UserError, match="bonn/ulm_000000_000019_leftImg8bit.png: leftImg8bit/train/ulm/ulm_.*png has the same name"
    ):
        pipeline.prepare(data)


def test_a_folder_that_is_not_cityscapes_is_answered_with_the_layout(data):
    data.root += "/leftImg8bit"
    with pytest.raises(UserError, match="leftImg8bit: there is no leftImg8bit/train in it; data.root must be"):
        pipeline.prepare(data)
    data.root += "/nowhere"
    with pytest.raises(UserError, match="must be the Cityscapes folder, with leftImg8bit/ and gtFine/ in it"):
        pipeline.prepare(data)


def test_a_count_that_is_not_the_official_one_is_said(tmp_path):
    report = pipeline.prepare(trees.write_cityscapes(tmp_path))
    assert "val: 2 images, officially 500" in as_text(report)


def test_all_is_no_split(tmp_path):
    data = trees.write_cityscapes(tmp_path)
    pipeline.prepare(data)
    with pytest.raises(UserError, match="cityscapes has no split 'all'; choose one of train, val, test"):
        pipeline.open_split(data, "all")


def test_images_without_the_end_of_the_data_set_are_named_and_what_lies_beside_labels_is_not(data):
    image = Path(data.root) / "leftImg8bit/val/lindau/lindau_000000_000020.png"
    write(image, trees.image(trees.SIZE))
    assert pipeline.prepare(data)["notes"] == [
        {"note": "files whose names do not end in _leftImg8bit left out", "files": 1, "first": str(image)}
    ]
