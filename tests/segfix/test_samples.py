"""SegFix's ground truth of a prepared data set, as the labels of its samples."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from configs import cityscapes
from ovenet_jax.data import pipeline
from ovenet_jax.data.image_files import encoded
from ovenet_jax.data.labels import CITYSCAPES, IGNORE
from ovenet_jax.described import check
from ovenet_jax.errors import UserError
from ovenet_jax.segfix import ground_truth
from ovenet_jax.segfix.files import read_ground_truth
from ovenet_jax.segfix.samples import prepare_samples
from ovenet_jax.supervision.task import task_of
from tests.trees import write_cityscapes


def test_all_labelled_samples_of_a_data_set_are_prepared_once(tmp_path):
    labels = pipeline.labelled_samples(write_cityscapes(tmp_path))
    prepare_samples(labels, CITYSCAPES, "classes", tmp_path / "boundaries")
    assert {file.stem for file in (tmp_path / "boundaries").iterdir()} == {sample.name for sample in labels}
    assert len(labels) == 3 + 2  # those of train and val
    name, _, file, *_ = labels[1]
    label = CITYSCAPES.train_ids()[cv2.imread(str(file), -1)]
    written = tmp_path / f"boundaries/{name}.png"
    assert_array_equal(read_ground_truth(written), ground_truth.of_classes(label))
    written.write_bytes(b"left alone")
    (tmp_path / ".boundaries.lock").unlink()  # what is there needs none: the folder may be read only
    prepare_samples(labels, CITYSCAPES, "classes", tmp_path / "boundaries")
    assert written.read_bytes() == b"left alone"
    assert not (tmp_path / ".boundaries.lock").exists()


@pytest.mark.parametrize("end", ["labelIds", "labelTrainIds"])
def test_instance_maps_are_found_beside_the_labels(tmp_path, end):
    data = write_cityscapes(tmp_path)
    for path in list(Path(data.root).glob("gtFine/*/*/*labelIds.png")):
        path.rename(str(path).replace("labelIds", end))
    labels = pipeline.labelled_samples(data)
    ids = np.full((24, 48), 7, np.uint16)
    ids[4:12, 4:12] = 26001
    name, _, file, *_ = labels[0]
    beside = str(file).replace(end, "instanceIds")
    cv2.imwrite(beside, ids)
    prepare_samples(labels, CITYSCAPES, "instances", tmp_path / "boundaries")
    expected = ground_truth.of_instances(ids, sum(CITYSCAPES.ids, ()))
    assert_array_equal(read_ground_truth(tmp_path / f"boundaries/{name}.png"), expected)


def test_a_data_set_without_instance_maps_is_refused_and_nothing_is_kept(tmp_path):
    labels = pipeline.labelled_samples(write_cityscapes(tmp_path))
    for sample in labels[1:3]:
        Path(str(sample.label).replace("labelIds", "instanceIds")).unlink()
    with pytest.raises(
        UserError, match="(?s)no boundaries of instances in 2 of 5 labels.*bochum.*there is no instance map.*ulm"
    ):
        prepare_samples(labels, CITYSCAPES, "instances", tmp_path / "boundaries")
    assert not (tmp_path / "boundaries").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    labels = pipeline.labelled_samples(write_cityscapes(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/prepared cannot be written .*another --config.data.prepared"):
        prepare_samples(labels, CITYSCAPES, "classes", tmp_path / "file" / "prepared" / "boundaries")


@pytest.mark.parametrize("regions", ["classes", "instances"])
def test_labels_are_boundaries_of_what_the_config_says(tmp_path, regions):
    config = cityscapes.get_config("segfix_w48" if regions == "classes" else "segfix_w48_instance")
    config.data.update(write_cityscapes(tmp_path))
    label_file = pipeline.labelled_samples(config.data)[0].label
    rows, columns = np.indices((24, 48))
    label, ids = (np.where(rows > 9, 7, 0).astype(np.uint8), np.where(columns > 20, 26001, 26002).astype(np.uint16))
    cv2.imwrite(str(label_file), label)
    cv2.imwrite(str(label_file).replace("labelIds", "instanceIds"), ids)
    task_of(config).prepare()
    sample = task_of(config).open_training()[0]
    assert sample["image"].shape == (24, 48, 3)
    assert (sample["label"][label == 0] == IGNORE).all()
    inside = (rows > 9) & (rows < 21) & (columns > 2) & (columns < 45)  # away from the image's edge
    names = np.array(task_of(config).open_training().classes.names)[sample["label"][inside]]
    near = np.strings.startswith(names, "near")
    distance = rows[inside] - 9 if regions == "classes" else np.abs(columns[inside] - 20.5) + 0.5
    assert_array_equal(near, distance <= 5)
    assert set(names[near]) == ({"near (1, 0)"} if regions == "classes" else {"near (0, 1)", "near (0, -1)"})


@pytest.mark.parametrize("content", [b"", encoded(np.zeros((96, 24), np.uint8))], ids=["empty", "not turned"])
def test_damaged_ground_truth_is_named_with_what_to_do(tmp_path, content):
    config = cityscapes.get_config("segfix_w48")
    config.data.update(write_cityscapes(tmp_path))
    task_of(config).prepare()
    source = task_of(config).open_training()
    (source.folder / f"boundaries_of_classes/{source[0]['name']}.png").write_bytes(content)
    with pytest.raises(UserError, match="boundaries_of_classes.*; delete .*boundaries_of_classes, and all in it"):
        source[0]


@pytest.mark.parametrize(("metric", "size", "folder"), [
    ("euclidean", 5, "boundaries_of_classes"),
    ("taxicab", 3, "boundaries_of_classes_taxicab_3"),
])  # fmt: skip
def test_metric_and_filter_are_the_configs_and_each_has_its_folder(tmp_path, metric, size, folder):
    config = cityscapes.get_config("segfix_w48")
    config.data.update(write_cityscapes(tmp_path))
    config.data.update({"metric": metric, "filter_size": size})
    sample = pipeline.labelled_samples(config.data)[0]
    label = np.full((24, 48), 7, np.uint8)
    cv2.fillPoly(label, [np.array([(5, 3), (37, 9), (21, 20)])], 26)
    cv2.imwrite(str(sample.label), label)
    task_of(config).prepare()
    truth = read_ground_truth(task_of(config).open_training().folder / folder / f"{sample.name}.png")
    assert_array_equal(truth, ground_truth.of_classes(CITYSCAPES.train_ids()[label], metric, size))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("regions", "objects", "data.regions is 'objects'.*'classes', 'instances'"),
        ("metric", "chessboard", "data.metric is 'chessboard'.*'euclidean', 'taxicab'"),
        ("filter_size", 4, "data.filter_size is 4; it must be one of 3, 5, 7"),
    ],
)
def test_unknown_ways_to_boundaries_are_refused(key, value, message):
    config = cityscapes.get_config("segfix_w48")
    config.data[key] = value
    with pytest.raises(UserError, match=message):
        check(config)


@pytest.mark.parametrize("regions", ["classes", "instances"])
def test_boundaries_stay_aligned_with_an_image_that_its_exif_turns(tmp_path, regions):
    config = cityscapes.get_config("segfix_w48" if regions == "classes" else "segfix_w48_instance")
    config.data.update(write_cityscapes(tmp_path))
    sample = pipeline.labelled_samples(config.data)[0]
    ids = np.zeros((24, 48), np.uint8)
    ids[3:12, :20] = 26
    for file in (sample.label, str(sample.label).replace("labelIds", "instanceIds")):
        cv2.imwrite(str(file), ids)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(sample.image).save(sample.image, exif=exif)
    task_of(config).prepare()
    source = task_of(config).open_training()
    assert source[0]["image"].shape == (48, 24, 3)
    truth = read_ground_truth(source.folder / f"boundaries_of_{regions}/{sample.name}.png")
    turned = np.rot90(ids, -1)
    if regions == "classes":
        expected = ground_truth.of_classes(CITYSCAPES.train_ids()[turned])
    else:
        expected = ground_truth.of_instances(turned, sum(CITYSCAPES.ids, ()))
    assert_array_equal(truth, expected)
