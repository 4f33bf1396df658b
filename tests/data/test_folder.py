"""Anyone's own data set: images, labels and classes.yaml, and no Python."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovenet_jax.data import pipeline
from ovenet_jax.data.folder import read_classes
from ovenet_jax.data.inventory import as_text, check_training
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.errors import UserError
from tests import trees
from tests.camvid_tree import write


def names(data, split):
    source = pipeline.open_split(data, split)
    return [source[i]["name"] for i in range(len(source))]


def test_splits_are_subfolders_and_samples_are_called_by_their_paths(tmp_path):
    data = trees.write_folder(tmp_path)
    report = pipeline.prepare(data)
    assert names(data, "val") == ["val/left/0001", "val/right/0001"]
    label = pipeline.open_split(data, "train")[0]["label"]
    np.testing.assert_array_equal(label, np.uint8((IGNORE, 0, 0, 1))[trees.ids(trees.SIZE, range(4))])
    assert report["splits"]["train"]["pixels"] == [24 * 48, 12 * 48]
    assert report["splits"]["train"]["official"] is None


def test_classes_are_those_of_the_file(tmp_path):
    classes = pipeline.classes(trees.write_folder(tmp_path))
    assert classes.names == ("road", "car")
    assert classes.colors == ((128, 64, 128), (0, 0, 142))
    assert classes.ids == ((7, 8), (26,)) and classes.ignored_ids == (0,)
    assert classes.train_ids()[classes.label_ids()].tolist()[:3] == [0, 1, IGNORE]


def test_test_images_need_no_labels(tmp_path):
    data = trees.write_folder(tmp_path, ("train", "val", "test"))
    (Path(data.root) / "labels/test").rename(tmp_path / "elsewhere")
    pipeline.prepare(data)
    assert not pipeline.open_split(data, "test").has_labels


def test_splits_may_have_the_layout_of_openseg(tmp_path):
    data = trees.write_folder(tmp_path, ("train", "test"))
    for split in ("train", "test"):
        for kind in ("image", "label") if split == "train" else ("image",):
            (Path(data.root) / split).mkdir(exist_ok=True)
            (Path(data.root) / f"{kind}s/{split}").rename(Path(data.root) / split / kind)
    pipeline.prepare(data)
    assert names(data, "train") == ["train/image/left/0001", "train/image/right/0001"]
    assert not pipeline.open_split(data, "test").has_labels


def test_without_splits_all_is_train_and_may_be_parted(tmp_path):
    data = trees.write_folder(tmp_path, ("a", "b"))
    pipeline.prepare(data)
    assert len(pipeline.open_split(data, "train")) == 4
    assert names(data, "train[:75%]") == ["a/left/0001", "a/right/0001", "b/left/0001"]
    assert pipeline.open_split(data, "train[75%:]").has_labels
    with pytest.raises(UserError, match="folder has no split 'val'; choose one of train"):
        pipeline.open_split(data, "val")


@pytest.mark.parametrize("files", ["train.lst", "train.txt", "elsewhere/train.lst"])
def test_lists_make_the_splits_whatever_the_folders_are_called(tmp_path, files):
    data = trees.write_folder(tmp_path, ("training", "validation"))
    lists = Path(data.root) / files.rpartition("/")[0]
    lists.mkdir(exist_ok=True)
    data.lists = str(lists) if "/" in files else ""
    line = "{0}/left/0001\n" if files == "train.txt" else "images/{0}/left/0001.jpg labels/{0}/left/0001.png\n"
    for split, folder in (("train", "validation"), ("val", "training")):
        (Path(data.root) / files.replace("train", split)).write_text(line.format(folder))
    pipeline.prepare(data)
    assert (names(data, "train"), names(data, "val")) == (["validation/left/0001"], ["training/left/0001"])


def test_faults_are_named_with_their_subfolders(tmp_path):
    data = trees.write_folder(tmp_path)
    root = Path(data.root)
    (root / "labels/train/left/0001.png").unlink()
    write(root / "labels/val/right/0001.png", np.full(trees.SIZE, 27, np.uint8))
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        f"{root}/images/train/left/0001.jpg: no label labels/train/left/0001.png",
        f"{root}/labels/val/right/0001.png: label values that are not in the class table: 27",
    ]


def test_other_files_are_named_and_hidden_ones_left_alone(tmp_path):
    data = trees.write_folder(tmp_path)
    root = Path(data.root)
    for odd in (
        "images/train/.ipynb_checkpoints/0001.jpg",
        "labels/train/.ipynb_checkpoints/0001.png",
        "images/val/left/._0001.jpg",
        "images/val/left/0002.webp",
    ):
        (root / odd).parent.mkdir(exist_ok=True)
        (root / odd).write_bytes(b"\0\5\26\7")
    report = pipeline.prepare(data)
    assert [report["splits"][split]["images"] for split in ("train", "val")] == [2, 2]
    told = f"files .webp left out (only .jpg, .jpeg, .png are read): 1; the first: {root}/images/val/left/0002.webp"
    assert told in as_text(report)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_image_that_its_exif_turns_stays_aligned_with_its_label(tmp_path, suffix):
    data = trees.write_folder(tmp_path, ("train",))
    file = Path(data.root) / "images/train/left/0001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(trees.image(trees.SIZE)).save(file.with_suffix(f".{suffix}"), exif=exif)
    if suffix == "png":
        file.unlink()
    report = pipeline.prepare(data)
    left, right = (pipeline.open_split(data, "train")[i] for i in range(2))
    np.testing.assert_array_equal(left["label"], right["label"][::-1, ::-1])
    assert np.abs(left["image"].astype(int) - right["image"][::-1, ::-1]).max() < 12
    for line in ("images turned as their EXIF says: 1; the first: ", "labels turned with their images, as the EXIF"):
        assert line in as_text(report)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((0, 0, 0, 7), "train: 1 of 2 classes never occur: car"),
        ((0, 0, 7, 26), None),
        ((0, 0, 0, 0), "train: nothing is labelled"),
        ((0, 0, 0, 0), "road 0 - car 0 - ignored"),
        ((0, 0, 0, 7), "train: 75.00 % of the pixels belong to no class"),
    ],
)
def test_what_is_odd_about_labels_is_said(tmp_path, labels, said):
    data = trees.write_folder(tmp_path, ("train",))
    for camera in ("left", "right"):
        path = Path(data.root) / f"labels/train/{camera}/0001.png"
        write(path, np.uint8(labels)[trees.ids(trees.SIZE, range(4))])
    report = pipeline.prepare(data)
    if said is None:
        check_training(report, "train[:50%]")
        assert report["splits"]["train"]["odd"] == []
    else:
        assert said in " ".join(as_text(report).split())
        with pytest.raises(UserError, match="(nothing is labelled|only road occurs); training needs at least two"):
            check_training(report, "train[:50%]")


def test_train_ids_in_place_of_label_ids_are_noticed(tmp_path):
    data = trees.write_cityscapes(tmp_path)
    for path in Path(data.root).glob("gtFine/val/*/*labelIds.png"):
        write(path, trees.ids(trees.SIZE, range(19)))
    told = as_text(pipeline.prepare(data))
    assert "val: its labels look like train ids (0 to 18 and 255), not the class table's ids" in told
    assert "train: its labels look" not in told


def test_other_ids_are_prepared_anew_and_another_name_is_not(tmp_path):
    data = trees.write_folder(tmp_path)
    classes = Path(data.root) / "classes.yaml"
    pipeline.prepare(data)
    classes.write_text(trees.CLASSES.replace("car", "van"))
    assert pipeline.open_split(data, "val").classes.names == ("road", "van")
    assert "\nvan " in as_text(pipeline.prepare(data))
    classes.write_text(trees.CLASSES.replace("[26]", "[26, 27]"))
    with pytest.raises(UserError, match="not prepared"):
        pipeline.open_split(data, "val")


@pytest.mark.parametrize("odd", ["valid/q.jpg", "stray.jpg"])
def test_an_image_beside_the_splits_is_not_lost_in_silence(tmp_path, odd):
    data = trees.write_folder(tmp_path)
    trees.write_image(Path(data.root) / "images" / odd, trees.image(trees.SIZE))
    with pytest.raises(UserError, match=f"images has {odd.split('/')[0]}, not a split; move all images"):
        pipeline.prepare(data)


def test_splits_by_other_names_are_not_all_trained_on(tmp_path):
    data = trees.write_folder(tmp_path, ("training", "validation"))
    with pytest.raises(UserError, match="images has training, validation, not a split"):
        pipeline.prepare(data)


def test_a_part_without_images_is_named(tmp_path):
    data = trees.write_folder(tmp_path, ("a", "b"))
    pipeline.prepare(data)
    with pytest.raises(UserError, match=r"Split 'train\[99%:\]' of folder is empty, or is not a valid split"):
        pipeline.open_split(data, "train[99%:]")


ROAD = "{name: road, color: [1, 2, 3], ids: [7]}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("classes: [", "no YAML (while parsing"),
        ("[" * 5000, "no YAML ("),
        ("!!python/object/apply:os.system ['true']", "no YAML (line 1: the tag or anchor 'tag:yaml.org,2002:python/"),
        ("!!int ''", "no YAML (line 1: the tag or anchor 'tag:yaml.org,2002:int', which is not read)."),
        ("classes: !x []", "no YAML (line 1: the tag or anchor '!x', which is not read)."),
        ("a: &b [1]\nc: *b", "no YAML (line 1: the tag or anchor 'b', which is not read)."),
        ("classes:\n- ids: [1]\n  ids: [2]", "no YAML (line 2: the key 'ids' is there twice)."),
        ("9" * 5000, "no YAML (Exceeds the limit"),
        ("0b_", "no YAML (invalid literal for int() with base 2: '')."),
        ("# " + "x" * 2**17, "no YAML (131074 bytes; a class table has no more than 131072)."),
        (f"classes: [{'x' * 5000}]", "xxx ...."),
        ("", "expected 'classes:' with a list of classes."),
        ("classes: {road: 7}", "expected 'classes:' with a list of classes."),
        ("classes: [road]", "expected a class with name, color and ids, got 'road'."),
        ("classes: [{name: road, ids: [7]}]", "expected a class with name, color and ids, got {'name': 'road'"),
        ("classes: [{name: road, color: [1, 2], ids: [7]}]", "color of road: expected [red, green, blue], got [1, 2]."),
        ("classes: [{name: road, color: [1, 2, 3], ids: 7}]", "ids of road: expected a list of whole numbers"),
        ("classes: [{name: road, color: [1, 2, 3], ids: [300]}]", "from 0 to 255, got [300]."),
        ("classes: [{name: road, color: [1, 2, 3], ids: [true]}]", "from 0 to 255, got [True]."),
        ("classes: [{name: road, color: [1, 2, 3], ids: []}]", "every class needs an id."),
        (f"classes: [{ROAD}, {ROAD}]", "the name road is there twice."),
        (f"classes: [{ROAD}, {ROAD.replace('road', 'car')}]", "the id 7 is there twice."),
        (f"classes: [{ROAD}]\nignored: [0, 7]", "the id 7 is there twice."),
        (f"classes: [{ROAD}]\nignored: 0", "ignored: expected a list of whole numbers from 0 to 255, got 0."),
        (f"classes: [{ROAD}]\nignore: [0]", "'ignore' is unknown; known are 'classes', 'ignored', "),
        (f"classes: [{ROAD}]\nvoid: 7", "void: expected an id from 0 to 255 that belongs to no class, got 7."),
        (f"classes: [{ROAD}]\nvoid: none", "belongs to no class, got 'none'."),
        (f"classes: [{ROAD}]\nflip: [road]", "flip: expected a list of pairs of classes, got ['road']."),
        (f"classes: [{ROAD}]\nflip: [[road, [1]]]", "flip: [1] is not a class."),
        (f"classes: [{ROAD}]\nflip: [[road, road]]", "the flipped class road is there twice."),
        (f"classes: [{ROAD}]\nchannels: [red, nir, red]", "the channel red is there twice."),
        (f"classes: [{ROAD}]\nchannels: [red]", "channels: expected a list of 2 to 128 names, got ['red']."),
        (f"classes: [{ROAD}]\nchannels: [1, 2]", "channels: expected a list of 2 to 128 names, got [1, 2]."),
        (f"classes: [{ROAD.replace('road', 'no')}]", "name False: expected a text; put it in quotation marks."),
        ("classes: 2020-13-45", "no YAML (month must be in 1..12)."),
        (f"classes: [{ROAD}]\nignored: [0]", "road is the only class; the background is a class, too: describe both."),
    ],
)  # fmt: skip
def test_a_class_file_that_says_something_else_is_refused(tmp_path, text, sentence):
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_classes(file)
    assert str(error.value).startswith(f"{file}: ") and sentence in str(error.value)


def test_classes_of_left_and_right_and_the_void_id_can_be_given(tmp_path):
    file, left = tmp_path / "classes.yaml", "{name: left, color: [3, 2, 1], ids: [8]}"
    file.write_text(f"classes: [{ROAD}, {left}, {left.replace('left', 'right').replace('8', '9')}]")
    classes, _ = read_classes(file)
    assert (classes.void_id, classes.flip_pairs) == (255, ())
    file.write_text(file.read_text() + "\nvoid: 0\nflip: [[left, right]]\nimage_end:\n")
    classes, ends = read_classes(file)
    assert (classes.void_id, classes.flip_pairs, ends["image_end"]) == (0, ((1, 2),), "")


def test_a_missing_class_file_is_named(tmp_path):
    data = trees.write_folder(tmp_path)
    (Path(data.root) / "classes.yaml").unlink()
    with pytest.raises(UserError, match="classes.yaml: cannot be read .*; it must say what the classes are"):
        pipeline.prepare(data)
