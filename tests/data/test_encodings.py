"""Label files of official and own data sets in every encoding, and those at odds with it."""

import io
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ovenet_jax.data import image_files, pipeline
from ovenet_jax.data.encodings import ENCODINGS, read_ids
from ovenet_jax.data.labels import CITYSCAPES, IGNORE, OFFICIAL, Labels
from ovenet_jax.errors import UserError
from tests import trees

STUFF_IDS = trees.ids(trees.SIZE, range(183))


def label_of(data, split, index=0):
    pipeline.prepare(data)
    return pipeline.open_split(data, split)[index]["label"]


def faults(data):
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    return [line.strip().removeprefix(f"{data.root}/") for line in str(error.value).splitlines()[1:]]


def write_mats(folder, fields):
    """In place of each PNG, or of what is there already."""
    for path in {path.with_suffix(".mat") for path in Path(folder).glob("*.*")}:
        path.with_suffix(".png").unlink(missing_ok=True)
        savemat(path, fields, do_compression=True)


def stuff_164k(tmp_path):
    """Two images with the ids of the 164k release."""
    data = trees.write_coco_stuff(tmp_path)
    shutil.rmtree(data.root)
    ids = np.where(OFFICIAL["coco_stuff"].train_ids()[STUFF_IDS] == IGNORE, 255, STUFF_IDS - 1).astype(np.uint8)
    for split in ("train", "val"):
        trees.write_image(Path(data.root) / f"images/{split}2017/{split}.jpg", trees.image(trees.SIZE))
        trees.write_image(Path(data.root) / f"annotations/{split}2017/{split}.png", ids)
    return data


def test_annotations_of_coco_stuff_are_read_from_matlab_files(tmp_path):
    data = trees.write_coco_stuff(tmp_path)
    names = np.array(["unlabeled", "person"], object)
    write_mats(f"{data.root}/annotations", {"names": names, "S": STUFF_IDS, "captions": names})
    np.testing.assert_array_equal(label_of(data, "val"), OFFICIAL["coco_stuff"].train_ids()[STUFF_IDS])
    notes = {note["note"]: note["files"] for note in pipeline.prepare(data)["notes"]}
    assert notes == {"labels of ids in MATLAB files": 5}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda data: data[: len(data) // 2], "a damaged MATLAB file"),
        (lambda _: b"MATLAB 7.3 MAT-file, HDF5", "no MATLAB file of version 5 (.mat of versions 5 to 7, not 7.3)"),
        (lambda _: b"cos\nsystem\n(S'exit 1'\ntR.", "no MATLAB file of version 5"),
    ],
)
def test_a_matlab_file_that_is_something_else_is_named(tmp_path, content, said):
    data = trees.write_coco_stuff(tmp_path)
    write_mats(f"{data.root}/annotations", {"S": STUFF_IDS})
    file = Path(data.root) / "annotations/COCO_train2014_000000000001.mat"
    file.write_bytes(content(file.read_bytes()))
    (fault,) = faults(data)
    assert fault.startswith(f"annotations/{file.name}: {said}")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"T": STUFF_IDS}, "no field 'S'; it has T"),
        ({"S": STUFF_IDS + 0.5}, "its field 'S' holds other than whole numbers from 0 to 65535"),
        ({"S": np.full(trees.SIZE, np.nan)}, "its field 'S' holds other than whole numbers from 0 to 65535"),
        (
            {"S": np.zeros((2, 2, 2), np.uint8)},
            "its field 'S' has the size [2, 2, 2]; expected rows and columns, and no",
        ),
        ({"S": STUFF_IDS[1:]}, "48x23 pixels, but COCO_train2014_000000000000.jpg has 48x24"),
        (
            {"S": STUFF_IDS + np.uint16(200)},
            "label values that are not in the class table, read as 'ids in MATLAB files': 200, 201, 202,",
        ),
    ],
)
def test_annotations_with_a_wrong_field_are_named(tmp_path, fields, said):
    data = trees.write_coco_stuff(tmp_path)
    write_mats(f"{data.root}/annotations", fields)
    found = faults(data)
    assert len(found) == 5 and found[0].startswith(f"annotations/COCO_train2014_000000000000.mat: {said}")


def test_coco_stuff_164k_has_ids_that_are_one_less(tmp_path):
    data = stuff_164k(tmp_path)
    for split in ("train", "val"):
        np.testing.assert_array_equal(label_of(data, split), OFFICIAL["coco_stuff"].train_ids()[STUFF_IDS])
    report = pipeline.prepare(data)
    assert [report["splits"][split]["official"] for split in ("train", "test")] == [118_287, 5000]
    assert [note["note"] for note in report["notes"]] == ["labels of ids minus 1 (255: none)"]


def test_coco_stuff_164k_may_hold_the_train_ids_of_mmsegmentation_beside_them(tmp_path):
    data = stuff_164k(tmp_path)
    label = OFFICIAL["coco_stuff"].train_ids()[STUFF_IDS]
    for split in ("train", "val"):
        trees.write_image(Path(data.root) / f"annotations/{split}2017/{split}_labelTrainIds.png", label)
    np.testing.assert_array_equal(label_of(data, "train"), label)


def test_ids_of_one_release_of_coco_stuff_in_the_folders_of_the_other_are_refused(tmp_path):
    data = stuff_164k(tmp_path / "164k")
    shutil.copy(f"{data.root}/annotations/val2017/val.png", tmp_path / "164k.png")
    trees.write_image(Path(data.root) / "annotations/val2017/val.png", STUFF_IDS)
    assert faults(data) == [
        "annotations/val2017/val.png: label values that are not in the class table, read as 'ids minus 1 (255: none)': "
        "11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, 182; the file looks like 'label ids'"
    ]
    data = trees.write_coco_stuff(tmp_path / "10k")
    shutil.copy(tmp_path / "164k.png", f"{data.root}/annotations/COCO_train2014_000000000003.png")
    assert faults(data) == [
        "annotations/COCO_train2014_000000000003.png: label values that are not in the class table: 255; the "
        "file looks like 'ids minus 1 (255: none)'"
    ]


@pytest.mark.parametrize("name", ["pascal_context", "pascal_context_60"])
def test_the_459_classes_of_pascal_context_become_59_by_their_names(tmp_path, name):
    data = trees.write_pascal_context(tmp_path, name)
    shutil.move(f"{data.root}/59_context_labels", f"{data.root}/trainval")
    values = np.arange(24 * 48, dtype=np.uint16).reshape(trees.SIZE) % 460
    write_mats(f"{data.root}/trainval", {"LabelMap": values})
    label = label_of(data, "val")
    of_value = dict(zip(values.ravel().tolist(), label.ravel().tolist(), strict=True))
    names = pipeline.classes(data).names
    numbers = {2: "aeroplane", 23: "bicycle", 397: "table", 284: "person", 19: "bedclothes", 420: "tree", 458: "wood"}
    assert {value: names[of_value[value]] for value in numbers} == numbers
    background = names.index("background") if name.endswith("60") else IGNORE
    assert sum(train_id != background for train_id in of_value.values()) == 59
    assert of_value[1] == of_value[459] == of_value[0] == background


def test_alphabetical_order_is_that_of_the_459_numbers():
    ids = ENCODINGS["context_459"].ids(OFFICIAL["pascal_context"])
    chosen = [OFFICIAL["pascal_context"].names[label_id - 1] for _, label_id in sorted(ids.items()) if label_id]
    assert chosen == sorted(OFFICIAL["pascal_context"].names)


def test_train_ids_of_cityscapes_alone_are_read_as_train_ids(tmp_path):
    data = trees.write_cityscapes(tmp_path)
    for path in Path(data.root).glob("gtFine/*/*/*_labelIds.png"):
        path.unlink()
        trees.write_image(Path(str(path).replace("labelIds", "labelTrainIds")), trees.ids(trees.SIZE, range(19)))
    np.testing.assert_array_equal(label_of(data, "val"), trees.ids(trees.SIZE, range(19)))
    report = pipeline.prepare(data)
    assert not report["splits"]["val"]["odd"] and report["notes"][0]["note"] == "labels of train ids"


def test_train_ids_beside_label_ids_are_not_read(tmp_path):
    data = trees.write_cityscapes(tmp_path)
    for path in list(Path(data.root).glob("gtFine/val/*/*_labelIds.png")):
        trees.write_image(Path(str(path).replace("labelIds", "labelTrainIds")), trees.ids(trees.SIZE, range(19)))
    np.testing.assert_array_equal(label_of(data, "val"), CITYSCAPES.train_ids()[trees.ids(trees.SIZE, range(34))])


def test_a_list_may_name_train_ids(tmp_path):
    data = trees.write_cityscapes(tmp_path)
    data.lists = str(tmp_path)
    label = "gtFine/val/lindau/lindau_000000_000019_gtFine_labelTrainIds.png"
    trees.write_image(Path(data.root) / label, trees.ids(trees.SIZE, range(19)))
    image = "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png"
    (tmp_path / "val.lst").write_text(f"{image} {label}\n")
    np.testing.assert_array_equal(label_of(data, "val"), trees.ids(trees.SIZE, range(19)))


def test_coarse_annotations_are_a_split_where_it_is_asked_for(tmp_path):
    data = trees.write_cityscapes(tmp_path)
    stem = "train_extra/nuremberg/nuremberg_000000_000000"
    trees.write_image(Path(data.root) / f"leftImg8bit/{stem}_leftImg8bit.png", trees.image(trees.SIZE))
    assert "train_extra" not in pipeline.prepare(data)["splits"]
    data.train_split = "train+train_extra"
    assert faults(data) == ["gtCoarse/train_extra: no such folder"]
    ids = trees.ids(trees.SIZE, range(34))
    trees.write_image(Path(data.root) / f"gtCoarse/{stem}_gtCoarse_labelIds.png", ids)
    np.testing.assert_array_equal(label_of(data, "train_extra"), CITYSCAPES.train_ids()[ids])
    assert len(pipeline.open_split(data, data.train_split)) == 4


HALVES = {  # what is written, what of it is missing, and the sentences
    "pascal_context": (trees.write_pascal_context, "59_context_labels", ["59_context_labels: no such folder"]),
    "coco_stuff 10k": (trees.write_coco_stuff, "annotations", ["annotations: no such folder"]),
    "coco_stuff 164k": (stuff_164k, "annotations/val2017", ["annotations/val2017: no such folder"]),
    "lip": (trees.write_lip, "TrainVal_images/val_images", ["TrainVal_images/val_images: no such folder"]),
    "acdc": (trees.write_acdc, "gt/night", ["gt/night/train: no such folder", "gt/night/val: no such folder"]),
    "ade20k": (trees.write_ade20k, "annotations/validation", ["annotations/validation: no such folder"]),
    "openseg": (partial(trees.write_ade20k, official=False), "val/label", ["val/label: no such folder"]),
}


@pytest.mark.parametrize("half", HALVES)
def test_what_is_half_there_is_said_once(tmp_path, half):
    write, missing, said = HALVES[half]
    data = write(tmp_path)
    shutil.rmtree(Path(data.root) / missing)
    assert faults(data) == said


def test_labels_of_two_encodings_in_one_folder_are_told_apart_by_their_names(tmp_path):
    data = trees.write_coco_stuff(tmp_path)
    one = Path(data.root) / "annotations/COCO_train2014_000000000001.png"
    one.unlink()
    savemat(one.with_suffix(".mat"), {"S": STUFF_IDS})
    np.testing.assert_array_equal(label_of(data, "train", 1), label_of(data, "train", 0))
    notes = {note["note"]: note["files"] for note in pipeline.prepare(data)["notes"]}
    assert notes == {"labels of ids in MATLAB files": 1}


@pytest.mark.parametrize(
    ("write", "label", "count", "unknown"),
    [
        (trees.write_lip, "TrainVal_parsing_annotations/val_segmentations/val100_7.png", 21, 20),
        (trees.write_ade20k, "annotations/validation/ADE_val_00000002.png", 152, 151),
        (trees.write_pascal_context, "59_context_labels/2010_1.png", 61, 60),
    ],
)
def test_labels_of_more_classes_than_the_table_has_are_refused(tmp_path, write, label, count, unknown):
    data = write(tmp_path)
    size = cv2.imread(f"{data.root}/{label}", cv2.IMREAD_UNCHANGED).shape
    trees.write_image(Path(data.root) / label, trees.ids(size, range(count)))
    (fault,) = faults(data)
    assert fault.startswith(f"{label}: label values that are not in the class table: {unknown}")


def test_the_460th_class_of_pascal_context_is_refused(tmp_path):
    data = trees.write_pascal_context(tmp_path)
    shutil.move(f"{data.root}/59_context_labels", f"{data.root}/trainval")
    write_mats(f"{data.root}/trainval", {"LabelMap": np.full(trees.SIZE, 460, np.uint16)})
    assert faults(data)[0] == (
        "trainval/2008_000008.mat: label values that are not in the class table, "
        "read as '459 classes in MATLAB files': 460"
    )


# ---- own data ----


def own(tmp_path, lines, values, end=""):
    """The made-up own data whose labels hold `values`, [4] or colours [4, 3], of the ids 0, 7, 8 and 26."""
    data = trees.write_folder(tmp_path)
    with (Path(data.root) / "classes.yaml").open("a") as file:
        file.write(lines)
    for path in list(Path(data.root).glob("labels/*/*/*.png")):
        path.unlink()
        trees.write_image(path.with_stem(path.stem + end), np.uint8(values)[trees.ids(trees.SIZE, range(4))])
    return data


EXPECTED = np.uint8((IGNORE, 0, 0, 1))[trees.ids(trees.SIZE, range(4))]
MASKS = [[0, 0, 0], [128, 64, 128], [128, 64, 128], [0, 0, 142]]


@pytest.mark.parametrize(("lines", "values"), [("", [0, 7, 8, 26]), ("ignored_colors: [[0, 0, 0]]\n", MASKS)])
def test_own_labels_may_hold_ids_or_colours(tmp_path, lines, values):
    np.testing.assert_array_equal(label_of(own(tmp_path, lines, values), "train"), EXPECTED)


def test_masks_whose_colours_change_places_are_other_data(tmp_path):
    data = own(tmp_path, "ignored_colors: [[0, 0, 0]]\n", MASKS)
    label, before = label_of(data, "train"), pipeline.open_split(data, "train").identity
    file = Path(data.root) / "classes.yaml"
    road, car = ((f"color: [{color}]") for color in ("128, 64, 128", "0, 0, 142"))
    file.write_text(file.read_text().replace(road, "").replace(car, road).replace("name: road, ", f"name: road, {car}"))
    np.testing.assert_array_equal(label_of(data, "train"), np.uint8([1, 0, *[IGNORE] * 254])[label])
    assert pipeline.open_split(data, "train").identity["digest"] != before["digest"]


def test_own_ids_may_begin_with_1_and_0_be_no_class(tmp_path):
    """Which mmsegmentation calls reduce_zero_label."""
    data = own(tmp_path, "", [0, 1, 255, 2])
    (Path(data.root) / "classes.yaml").write_text(
        "classes: [{name: a, color: [0, 0, 0], ids: [1]}, {name: b, color: [9, 9, 9], ids: [2]}]\nignored: [0, 255]"
    )
    expected = np.uint8((IGNORE, 0, IGNORE, 1))[trees.ids(trees.SIZE, range(4))]
    np.testing.assert_array_equal(label_of(data, "train"), expected)


@pytest.mark.parametrize(
    ("suffix", "mode", "said"),
    [
        (".tif", "L", ["images/train: no image in this folder", "files .tif left out (only .jpg, .jpeg, .png are"]),
        (".png", "RGBA", ["images/train/left/0001.png: transparent pixels; save it without an alpha channel"]),
    ],
)
def test_images_of_more_channels_or_other_formats_are_refused(tmp_path, suffix, mode, said):
    data = trees.write_folder(tmp_path, ("train",))
    shutil.rmtree(f"{data.root}/images/train/right")
    shutil.rmtree(f"{data.root}/labels/train/right")
    file = Path(data.root) / "images/train/left/0001.jpg"
    Image.new(mode, trees.SIZE[::-1]).save(file.with_suffix(suffix))
    file.unlink()
    for fault, start in zip(faults(data), said, strict=True):
        assert fault.startswith(start)


def test_own_masks_may_hold_0_and_255(tmp_path):
    data = own(tmp_path, "", [0, 255, 255, 255])
    (Path(data.root) / "classes.yaml").write_text(
        "classes: [{name: rest, color: [0, 0, 0], ids: [0]}, {name: cell, color: [9, 9, 9], ids: [255]}]"
    )
    np.testing.assert_array_equal(label_of(data, "val"), EXPECTED != IGNORE)
    assert pipeline.classes(data).label_ids()[:2].tolist() == [0, 255]


def test_a_colour_that_no_class_has_is_named_with_its_pixels(tmp_path):
    data = own(tmp_path, "ignored_colors: []\n", MASKS)
    assert faults(data)[0] == (
        "labels/train/left/0001.png: pixels of colours that are not in the class table: 288, most of them [0, 0, 0]"
    )


def test_own_names_may_have_ends(tmp_path):
    data = own(tmp_path, "image_end: _img\nlabel_end: _gt\n", [0, 7, 8, 26], "_gt")
    for path in list(Path(data.root).glob("images/*/*/*.jpg")):
        path.rename(path.with_stem(path.stem + "_img"))
    np.testing.assert_array_equal(label_of(data, "train"), EXPECTED)
    (Path(data.root) / "labels/val/left/0001_gt.png").unlink()
    assert faults(data) == ["images/val/left/0001_img.jpg: no label labels/val/left/0001_gt.png"]


def test_lists_of_names_make_the_splits(tmp_path):
    data = trees.write_folder(tmp_path, ("a", "b"))
    for folder, suffix in (("images", "jpg"), ("labels", "png")):
        file = Path(data.root) / f"{folder}/b/right/0001.{suffix}"
        file.rename(file.with_stem("photo (1)"))
    for split, name in (("train", "b/right/photo (1)"), ("val", "a/left/0001")):
        (Path(data.root) / f"{split}.txt").write_text(f"{name}\n")
    pipeline.prepare(data)
    assert [pipeline.open_split(data, split)[0]["name"] for split in ("train", "val")] == [
        "b/right/photo (1)",
        "a/left/0001",
    ]
    (Path(data.root) / "val.txt").write_text("a/left/0002\n")
    assert faults(data) == ["val.txt: no image images/a/left/0002"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("encoding: colors\n", "'encoding' is unknown; known are 'classes',"),
        ("ignored_colors: [[0, 0, 142]]\n", "the color (0, 0, 142) is there twice"),
        ("ignored_colors: 5\n", "ignored_colors: expected a list of colours, got 5"),
        ("ignored_colors: [[1, 2]]\n", "ignored_colors: expected [red, green, blue], got [1, 2]"),
    ],
)
def test_keys_about_files_are_checked(tmp_path, lines, said):
    data = own(tmp_path, lines, [0, 7, 8, 26])
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    assert str(error.value).startswith(f"{data.root}/classes.yaml: {said}")


# ---- masks in colours ----

MASK = np.uint8([[0, 1], [2, 2], [1, 0]])  # train ids of Cityscapes
COLOURED = Image.fromarray(np.uint8(CITYSCAPES.colors)[MASK])
PALETTE = Image.fromarray(MASK)
PALETTE.putpalette(np.uint8(CITYSCAPES.colors).tobytes())
TURNED = Image.Exif()
TURNED[0x0112] = 3
OPAQUE = "16 bits or transparent pixels; save labels in colours as opaque 8-bit PNGs"


def saved(picture, kind="png", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "ids", "notes"),
    [
        (saved(COLOURED), MASK, []),
        (saved(PALETTE), MASK, [image_files.PALETTE_IMAGE]),
        (saved(COLOURED.convert("RGBA")), MASK, [image_files.OPAQUE_IMAGE]),
        (saved(COLOURED, save_all=True, append_images=[COLOURED.rotate(180)]), MASK, [image_files.SEVERAL_IMAGES]),
        (saved(COLOURED, exif=TURNED), MASK[::-1, ::-1], [image_files.TURNED_IMAGE]),
    ],
    ids=["RGB", "palette", "opaque", "several", "turned"],
)
def test_masks_in_colours_are_read_with_the_notes_of_images(data, ids, notes):
    read = read_ids(data, "colors", CITYSCAPES)
    np.testing.assert_array_equal(read.array, CITYSCAPES.label_ids()[ids])
    np.testing.assert_array_equal(image_files.decode_label(read.data), read.array)
    assert read.note == "; ".join([*notes, "labels of colours"])


def test_a_mask_that_its_own_exif_has_turned_is_not_turned_again_with_its_image():
    mask = read_ids(saved(COLOURED, exif=TURNED), "colors", CITYSCAPES)
    assert image_files.oriented_like(mask, image_files.read_image(saved(COLOURED, exif=TURNED))) is mask


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (saved(COLOURED, "jpeg"), "a JPEG; labels must be PNG"),
        (cv2.imencode(".png", np.zeros((3, 2, 3), np.uint16))[1].tobytes(), OPAQUE),
        (saved(PALETTE, transparency=1), OPAQUE),
        (saved(Image.new("RGBA", (2, 3))), OPAQUE),
    ],
    ids=["JPEG", "16 bits", "transparent palette", "transparent"],
)
def test_masks_in_colours_that_would_lose_something_are_refused(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_ids(data, "colors", CITYSCAPES)


def test_every_encoding_that_would_explain_a_file_is_named():
    classes = Labels(("a", "b"), ((0, 0, 0), (9, 9, 9)), ids=((1,), (2,)))
    with pytest.raises(ValueError, match="table: 0; the file looks like 'train ids' or 'ids minus 1 .255: none.'$"):
        read_ids(image_files.encoded(np.uint8([[0, 1]])), "label_ids", classes)
