"""Every official tree, made up: prepared, trained on for two steps and evaluated; ids to classes and back."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs import acdc, ade20k, cityscapes, coco_stuff, lip, pascal_context
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import IGNORE, OFFICIAL
from ovenet_jax.errors import UserError
from ovenet_jax.train import train
from tests import trees
from tests.untrained import tiny

CONFIGS = {
    "cityscapes": (cityscapes, trees.write_cityscapes),
    "acdc": (acdc, trees.write_acdc),
    "ade20k": (ade20k, trees.write_ade20k),
    "pascal_context": (pascal_context, trees.write_pascal_context),
    "lip": (lip, trees.write_lip),
    "coco_stuff": (coco_stuff, trees.write_coco_stuff),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_of_two_steps_trains_and_evaluates(name, tmp_path):
    file, write = CONFIGS[name]
    config = tiny(file.get_config("hrnet"), write(tmp_path))
    config.augment.update({"base_size": 48, "crop": (32, 32)})
    config.eval.panels = config.eval.worst = 0
    for settings in (config.augment, config.eval):
        settings.short_side = min(settings.short_side, 24)
    config.update({"batch_size": 8, "steps": 2, "evaluate_every": 2})
    assert train(config, tmp_path / "run")

    split = config.data.eval_split
    report = json.loads((tmp_path / f"run/evaluation/{split}/report.json").read_text())
    assert (report["images"], report["what"]["step"]) == (len(pipeline.open_split(config.data, split)), 2)
    assert list(report["main"]["iou"]) == list(pipeline.classes(config.data).names)
    assert np.sum(report["main"]["confusion"]) > 0


def prepared(data):
    """The names of the samples of each split, and the splits as they are read."""
    report = pipeline.prepare(data)
    sources = {split: pipeline.open_split(data, split) for split in report["splits"]}
    names = {split: [source[i]["name"] for i in range(len(source))] for split, source in sources.items()}
    return names, sources


def test_pascal_context_splits_follow_its_lists(tmp_path):
    names, _ = prepared(trees.write_pascal_context(tmp_path))
    assert names == {"train": ["2008_000008", "2008_000002", "2008_000015"], "val": ["2010_1", "2010_2"]}


@pytest.mark.parametrize(("name", "shift"), [("pascal_context", -1), ("pascal_context_60", 0)])
def test_pascal_context_has_59_classes_or_60(tmp_path, name, shift):
    data = trees.write_pascal_context(tmp_path, name)
    pipeline.prepare(data)
    ids = trees.ids(trees.SIZE, range(60))
    label = pipeline.open_split(data, "val")[0]["label"]
    np.testing.assert_array_equal(label, ids + np.uint8(shift % 256))  # 0 - 1 is IGNORE
    classes = pipeline.classes(data)
    np.testing.assert_array_equal(classes.label_ids()[label], ids)
    assert classes.names[5 + shift] == "bottle"


def test_lip_test_images_have_no_labels(tmp_path):
    names, sources = prepared(trees.write_lip(tmp_path))
    assert names == {
        "train": ["train100_7", "train101_6", "train102_5"],
        "val": ["val100_7", "val101_6"],
        "test": ["100034_483681"],
    }
    assert not sources["test"].has_labels
    np.testing.assert_array_equal(sources["val"][0]["label"], trees.ids(trees.SIZE, range(20)))


def test_lip_has_left_and_right_in_pairs(tmp_path):
    classes = pipeline.classes(trees.write_lip(tmp_path))
    assert [[classes.names[i] for i in pair] for pair in classes.flip_pairs] == [
        [f"left {part}", f"right {part}"] for part in ("arm", "leg", "shoe")
    ]


def test_coco_stuff_numbers_the_ids_that_occur(tmp_path):
    names, sources = prepared(trees.write_coco_stuff(tmp_path))
    assert [len(names[split]) for split in ("train", "test")] == [3, 2]
    ids = trees.ids(trees.SIZE, range(183))
    label = sources["test"][1]["label"]
    absent = [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91]
    expected = {i: IGNORE if i in absent else i - 1 - sum(a < i for a in absent[1:]) for i in range(183)}
    np.testing.assert_array_equal(label, np.vectorize(expected.get)(ids))
    assert expected[182] == 170 and OFFICIAL["coco_stuff"].names[expected[92]] == "banner"
    np.testing.assert_array_equal(OFFICIAL["coco_stuff"].label_ids()[label], np.where(np.isin(ids, absent), 0, ids))


@pytest.mark.parametrize(
    ("name", "tested"), [("cityscapes", "val"), ("acdc", "val"), ("lip", "val"), ("coco_stuff", "test")]
)
def test_every_data_set_may_have_the_layout_of_openseg(tmp_path, name, tested):
    data = CONFIGS[name][1](tmp_path / "official")
    data.root = str(tmp_path / "source")
    for split in ("train", "val"):
        trees.write_image(tmp_path / f"source/{split}/image/{split}_1.jpg", trees.image(trees.SIZE))
        trees.write_image(tmp_path / f"source/{split}/label/{split}_1.png", trees.ids(trees.SIZE, range(1, 20)))
    names, sources = prepared(data)
    assert names == {"train": ["train_1"], tested: ["val_1"]}
    label = pipeline.classes(data).train_ids()[trees.ids(trees.SIZE, range(1, 20))]
    np.testing.assert_array_equal(sources[tested][0]["label"], label)


def test_an_image_that_a_split_names_and_nobody_has_is_a_fault(tmp_path):
    data = trees.write_coco_stuff(tmp_path)
    root = Path(data.root)
    (root / "images/COCO_train2014_000000000001.jpg").unlink()
    (root / "annotations/COCO_train2014_000000000004.png").unlink()
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    assert [line.strip().removeprefix(f"{root}/") for line in str(error.value).splitlines()[1:]] == [
        "imageLists/train.txt: no image images/COCO_train2014_000000000001",
        "annotations/COCO_train2014_000000000004.mat: no MATLAB file of version 5 (.mat of versions 5 to 7, not 7.3)",
    ]


def test_a_missing_list_of_names_is_a_fault(tmp_path):
    data = trees.write_pascal_context(tmp_path)
    (Path(data.root) / "ImageSets/Main/val.txt").unlink()
    with pytest.raises(UserError, match="1 fault in .*\n.*val.txt: cannot be read"):
        pipeline.prepare(data)
