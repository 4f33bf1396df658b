import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from ovenet_jax.data import pipeline, prepare
from ovenet_jax.data.labels import IGNORE, OFFICIAL
from ovenet_jax.errors import UserError
from tests.camvid_tree import write, write_tree
from tests.places import SHARED

CAMVID_FOLDER = SHARED / "data/camvid"


@pytest.fixture
def data(tmp_path):
    return write_tree(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_records_are_the_files_byte_by_byte(tmp_path, suffix):
    data = write_tree(tmp_path, suffix=suffix)
    pipeline.prepare(data)
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        source = pipeline.open_split(data, split)
        assert len(source) == count
        for i in range(count):
            image, label = (Path(data.root) / f"{split}{part}/{split}_{i:02d}" for part in ("", "annot"))
            assert source.records[i]["image"] == image.with_suffix(suffix).read_bytes()
            assert source.records[i]["label"] == label.with_suffix(".png").read_bytes()
            sample = source[i]
            assert sample["name"] == image.name
            rgb = cv2.cvtColor(cv2.imread(str(image.with_suffix(suffix))), cv2.COLOR_BGR2RGB)
            np.testing.assert_array_equal(sample["image"], rgb)


def test_label_ids_become_train_ids_and_void_is_ignored(data):
    pipeline.prepare(data)
    label = pipeline.open_split(data, "val")[0]["label"]
    ids = (np.arange(24 * 32).reshape(24, 32) // 3 % 12).astype(np.uint8)
    np.testing.assert_array_equal(label, np.where(ids == 11, 255, ids))
    assert label.dtype == np.uint8


def test_preparing_shows_progress_and_leaves_nothing_else_behind(data, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    pipeline.prepare(data)
    assert not list((tmp_path / "temporary").iterdir())
    assert not [path for path in Path(data.prepared).rglob("*") if path.is_dir() and not list(path.iterdir())]
    captured = capfd.readouterr()
    assert captured.out.startswith(f"Preparing camvid in {data.prepared}, where ") and captured.out.count("\n") == 1
    assert "preparing camvid train" in captured.err
    assert "Downloading" not in captured.err and "WARNING" not in captured.err
    pipeline.prepare(data)
    assert capfd.readouterr() == ("", "")


def test_a_missing_root_is_named_with_the_layout_expected(data):
    data.root += "/nowhere"
    with pytest.raises(UserError, match=r"nowhere: no such folder; data.root must be .* train/ and trainannot/"):
        pipeline.prepare(data)


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-40])


def empty_folder(path: Path):
    for file in path.iterdir():
        file.unlink()


FAULTS = {
    "missing folder": (lambda root: (empty_folder(root / "testannot"), (root / "testannot").rmdir()),
        "testannot: no such folder"),
    "empty split": (lambda root: (empty_folder(root / "val"), empty_folder(root / "valannot")),
        "val: no image in this folder"),
    "image without label": (lambda root: (root / "valannot/val_01.png").unlink(),
        "val/val_01.png: no label valannot/val_01.png"),
    "label without image": (lambda root: (root / "val/val_01.png").unlink(),
        "valannot/val_01.png: no image val/val_01"),
    "two images for one label": (lambda root: write(root / "val/val_01.jpg", np.zeros((24, 32, 3), np.uint8)),
        "val/val_01.png: a second image beside val_01.jpg"),
    "image is text": (lambda root: (root / "train/train_02.png").write_text("hello"),
        "train/train_02.png: does not decode as an image"),
    "image is empty": (lambda root: (root / "train/train_02.png").write_bytes(b""),
        "train/train_02.png: does not decode as an image"),
    "image is cut off": (lambda root: truncate(root / "train/train_02.png"),
        "train/train_02.png: does not decode as an image"),
    "label does not decode": (lambda root: (root / "trainannot/train_02.png").write_text("hello"),
        "trainannot/train_02.png: does not decode as an image"),
    "folder in place of an image": (
        lambda root: (root / "test/test_00.png").unlink() or (root / "test/test_00.png").mkdir(),
        "test: no image in this folder",
    ),
    "unknown label values": (lambda root: write(root / "valannot/val_00.png", np.full((24, 32), (12, 3, 200, 11) * 8,
        np.uint8)), "valannot/val_00.png: label values that are not in the class table: 12, 200"),
    "other size": (lambda root: write(root / "valannot/val_00.png", np.zeros((24, 30), np.uint8)),
        "valannot/val_00.png: 30x24 pixels, but val_00.png has 32x24"),
    "colour label": (lambda root: write(root / "testannot/test_00.png", np.zeros((24, 32, 3), np.uint8)),
        "testannot/test_00.png: 3 channels; expected a label with one channel of ids"),
    "16-bit label": (lambda root: write(root / "testannot/test_00.png", np.full((24, 32), 300, np.uint16)),
        "testannot/test_00.png: label value 300; ids end at 255"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_preparation_with_a_sentence(data, fault):
    spoil, sentence = FAULTS[fault]
    spoil(Path(data.root))
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    assert f"{data.root}/{sentence}" in str(error.value)
    assert f"in {data.root}; mend them, or remove image and label" in str(error.value)
    with pytest.raises(UserError, match="camvid is not prepared"):
        pipeline.open_split(data, "train")


def test_all_faults_are_named_at_once(data):
    for fault in ("missing folder", "image without label", "unknown label values", "image is text"):
        FAULTS[fault][0](Path(data.root))
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    assert str(error.value).startswith("4 faults in ")
    for fault in ("missing folder", "image without label", "unknown label values", "image is text"):
        assert FAULTS[fault][1] in str(error.value)


def test_of_many_faults_twenty_are_named_and_all_counted(tmp_path):
    data = write_tree(tmp_path, {"train": 25, "val": 1, "test": 1})
    for path in (Path(data.root) / "train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("25 faults in ")
    assert sum("does not decode" in line for line in lines) == 20
    file = Path(data.prepared) / "camvid.faults.txt"
    assert lines[-2:] == ["  and 5 more", f"All of them are in {file}"]
    assert file.read_text().count("does not decode") == 25


def test_a_prepared_source_is_not_prepared_again_but_a_changed_one_is(data, monkeypatch):
    pipeline.prepare(data)
    splits = []
    monkeypatch.setattr(prepare, "tqdm", lambda samples, title, *_, **__: splits.append(title) or samples)
    pipeline.prepare(data)
    assert not splits

    changed = Path(data.root) / "val/val_00.png"
    write(changed, np.full((24, 32, 3), 77, np.uint8))
    os.utime(changed, ns=(0, 10**18))
    with pytest.raises(UserError, match="not prepared"):
        pipeline.open_split(data, "val")
    pipeline.prepare(data)
    assert len(splits) == 3
    assert (pipeline.open_split(data, "val")[0]["image"] == 77).all()


def test_records_of_another_format_are_not_mistaken_for_ours(data, monkeypatch):
    pipeline.prepare(data)
    monkeypatch.setattr(prepare, "FORMAT", prepare.FORMAT + 1)
    with pytest.raises(UserError, match="not prepared"):
        pipeline.open_split(data, "val")


def test_a_folder_that_cannot_hold_records_is_named(data):
    Path(data.prepared).write_text("a file where the folder should be")
    with pytest.raises(
        UserError, match="prepared.* cannot be written .*; fix that or choose another --config.data.prepared"
    ):
        pipeline.prepare(data)


@pytest.mark.skipif(not CAMVID_FOLDER.is_dir(), reason=f"no CamVid in {CAMVID_FOLDER}")
def test_the_real_camvid_is_sound_and_complete(tmp_path):
    folders = {"root": str(CAMVID_FOLDER), "lists": "", "prepared": str(tmp_path)}
    data = ConfigDict({"name": "camvid", **folders, "storage": "compressed"})
    report = pipeline.prepare(data)
    assert all(split["images"] == split["official"] for split in report["splits"].values())
    assert report["splits"]["val"]["sizes"] == {"smallest": [360, 480], "largest": [360, 480], "distinct": 1}
    assert not report["notes"]
    assert [len(pipeline.open_split(data, s)) for s in ("train", "val", "test")] == [367, 101, 233]
    pixels = np.zeros(256, int)
    for sample in map(pipeline.open_split(data, "val").__getitem__, range(0, 101, 10)):
        assert sample["image"].shape == (360, 480, 3) and sample["label"].shape == (360, 480)
        pixels += np.bincount(sample["label"].ravel(), minlength=256)
    assert (pixels[:11] > 0).all() and pixels[IGNORE] > 0
    assert pixels[:11].sum() + pixels[IGNORE] == pixels.sum()
    assert pixels[OFFICIAL["camvid"].names.index("road")] > pixels[OFFICIAL["camvid"].names.index("pole")]
