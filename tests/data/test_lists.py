"""List files: they choose and order the samples of a split, and an odd line is a fault that is named."""

from pathlib import Path

import numpy as np
import pytest

from ovenet_jax.data import pipeline
from ovenet_jax.data.inventory import pixels_of_classes
from ovenet_jax.errors import UserError
from tests import trees
from tests.camvid_tree import write_tree

IMAGE, LABEL = "train/train_00.png", "trainannot/train_00.png"


@pytest.fixture
def data(tmp_path):
    data = write_tree(tmp_path)
    (tmp_path / "lists").mkdir()
    data.lists = str(tmp_path / "lists")
    return data


def write(data, split, text):
    (Path(data.lists) / f"{split}.lst").write_bytes(text.encode())


def names(data, split):
    source = pipeline.open_split(data, split)
    return [source[i]["name"] for i in range(len(source))]


def test_lists_choose_and_order(data):
    write(data, "train", "train/train_02.png trainannot/train_02.png\nval/val_01.png\tvalannot/val_01.png\n")
    write(data, "test", "test/test_00.png\n")
    report = pipeline.prepare(data)
    assert list(report["splits"]) == ["train", "test"]
    assert names(data, "train") == ["train_02", "val_01"]
    assert not pipeline.open_split(data, "test").has_labels
    np.testing.assert_array_equal(pipeline.open_split(data, "train")[0]["image"][1:], 2)


def test_other_lists_are_prepared_anew(data):
    write(data, "train", f"{IMAGE} {LABEL}\n")
    pipeline.prepare(data)
    write(data, "train", "train/train_01.png trainannot/train_01.png\n")
    with pytest.raises(UserError, match="not prepared"):
        pipeline.open_split(data, "train")


def test_windows_line_ends_blank_lines_and_further_columns_are_taken(data):
    write(data, "val", f"\ufeff{IMAGE} {LABEL} reversed.png 7\r\n\r\ntrain/train_01.png {LABEL[:-5]}1.png\r\n")
    pipeline.prepare(data)
    assert names(data, "val") == ["train_00", "train_01"]


def test_a_list_of_acdc_keeps_the_conditions(tmp_path):
    data = trees.write_acdc(tmp_path)
    data.lists = str(tmp_path)
    lines = [f"{condition}/train/GOPR0{i}75/GOPR0{i}75_frame_000045" for i, condition in enumerate(trees.CONDITIONS)]
    write(data, "train", "".join(f"rgb_anon/{a}_rgb_anon.png gt/{a}_gt_labelIds.png\n" for a in reversed(lines)))
    pipeline.prepare(data)
    source = pipeline.open_split(data, "train")
    assert [source[i]["group"] for i in range(4)] == ["snow", "rain", "night", "fog"]


FAULTS = {
    "absolute": ("/etc/image.png {label}", "/etc/image.png is an absolute path; it must be relative to {root}"),
    "climbs": ("../source/{image} {label}", "../source/{image} climbs up by '..'; it must stay in {root}"),
    "leads out": ("out/image.png {label}", "out/image.png is a link to a file outside {root}"),
    "missing": ("{image} trainannot/nowhere.png", "there is no trainannot/nowhere.png in {root}"),
    "backslash": (r"train\train_00.png {label}", r"there is no train\train_00.png in {root}"),
    "too long": ("{image} " + 300 * "x", "there is no " + 300 * "x" + " in {root}"),
    "null": ("{image} a\0b", "there is no a\0b in {root}"),
    "one column": ("{image}", "one column instead of two, image and label"),
    "twice": ("train/train_01.png {label}", "train/train_01.png is in line 1 already"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_odd_line_is_a_fault(data, tmp_path, fault, split):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/image.png").write_bytes((Path(data.root) / IMAGE).read_bytes())
    (Path(data.root) / "out").symlink_to(tmp_path / "elsewhere")
    line, sentence = (text.replace("{image}", IMAGE).replace("{label}", LABEL) for text in FAULTS[fault])
    write(data, split, f"train/train_01.png trainannot/train_01.png\n\n{line}\n")
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    first, *rest = str(error.value).splitlines()
    assert first.startswith("1 fault in ")
    assert rest == [f"  {data.lists}/{split}.lst, line 3: {sentence.replace('{root}', data.root)}"]


def test_a_list_without_a_sample_is_a_fault(data):
    write(data, "train", "\r\n")
    with pytest.raises(UserError, match="train.lst: no sample in this list"):
        pipeline.prepare(data)


def test_a_list_that_is_no_text_is_a_fault(data):
    (Path(data.lists) / "train.lst").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="train.lst: cannot be read as text"):
        pipeline.prepare(data)


def test_an_image_that_two_lists_share_is_taken_in_both(data):
    for split in ("train", "val"):
        write(data, split, f"{IMAGE} {LABEL}\n")
    pipeline.prepare(data)
    assert names(data, "train") == names(data, "val") == ["train_00"]


def test_a_folder_without_lists_is_answered_with_their_names(data):
    with pytest.raises(UserError, match="config.data.lists: .*lists has none of train.lst, val.lst, test.lst; set"):
        pipeline.prepare(data)


@pytest.mark.parametrize("text", ["", "2008_000002\n2008_000002\n"])
def test_a_name_list_that_is_empty_or_repeats_itself_is_a_fault(tmp_path, text):
    data = trees.write_pascal_context(tmp_path)
    (Path(data.root) / "ImageSets/Main/train.txt").write_text(text)
    fault = "2008_000002 is in line 1 already" if text else "no sample in this list"
    with pytest.raises(UserError, match=f"train.txt.*{fault}"):
        pipeline.prepare(data)


def test_one_image_written_in_two_ways_is_a_fault(data):
    write(data, "train", f"{IMAGE} {LABEL}\n./{IMAGE} {LABEL}\n")
    with pytest.raises(UserError, match=f"line 2: ./{IMAGE} is in line 1 already"):
        pipeline.prepare(data)


def test_the_lists_of_lip_name_files_in_two_folders(tmp_path):
    data = trees.write_lip(tmp_path)
    data.lists = str(tmp_path)
    lines = {"trainList": "train_images/train100_7.jpg train_segmentations/train100_7.png reversed.png 3\n"}
    lines["testvalList"] = "TrainVal_images/val_images/val101_6.jpg val_segmentations/val101_6.png\n"
    for name, line in lines.items():
        (tmp_path / f"{name}.txt").write_text(line)
    pipeline.prepare(data)
    assert (names(data, "train"), names(data, "val")) == (["train100_7"], ["val101_6"])


@pytest.mark.parametrize("name", ["test.lst", "testList.txt"])
def test_a_list_of_lip_may_name_test_images_alone(tmp_path, name):
    data = trees.write_lip(tmp_path)
    data.lists = str(tmp_path)
    images = sorted(path.relative_to(data.root) for path in Path(data.root).glob("Testing_images/*/*.jpg"))
    (tmp_path / name).write_text("".join(f"{image}\n" for image in images))
    pipeline.prepare(data)
    assert names(data, "test") == [image.stem for image in images] != []
    assert not pipeline.open_split(data, "test").has_labels


def test_the_val_list_of_coco_stuff_is_its_split_test(tmp_path):
    data = trees.write_coco_stuff(tmp_path)
    data.lists = str(tmp_path)
    for split, i in (("train", 0), ("val", 4)):
        name = f"COCO_train2014_{i:012d}"
        write(data, split, f"images/{name}.jpg annotations/{name}.png\n")
    report = pipeline.prepare(data)
    assert names(data, "test") == names(data, "val") == ["COCO_train2014_000000000004"]
    train, val, both = (sum(pixels_of_classes(report, split).values()) for split in ("train", "val", "train+val"))
    assert both == train + val > train > 0
    write(data, "test", "images/COCO_train2014_000000000003.jpg annotations/COCO_train2014_000000000003.png\n")
    pipeline.prepare(data)  # with lists of both each is itself
    found = names(data, "val"), names(data, "test")
    assert found == (["COCO_train2014_000000000004"], ["COCO_train2014_000000000003"])
