"""What preparation says and saves, and what it leaves when it is interrupted, killed, overtaken or out of disk."""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from ovenet_jax.data import layouts, pipeline, prepare
from ovenet_jax.data.inventory import as_text
from ovenet_jax.errors import UserError
from tests import trees
from tests.camvid_tree import write, write_tree
from tests.places import ROOT


@pytest.fixture
def data(tmp_path):
    return write_tree(tmp_path)


def files(data):
    """What is in data.prepared but for the locks."""
    return [path for path in Path(data.prepared).rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_the_report_counts_images_sizes_pixels_and_odd_files(data):
    root = Path(data.root)
    write(root / "val/val_01.png", np.zeros((10, 12), np.uint8))
    label = np.full((10, 12), 11, np.uint8)
    label[:3, :4] = 8
    write(root / "valannot/val_01.png", label)
    report = pipeline.prepare(data)
    assert report["splits"]["train"]["images"] == 3 and report["splits"]["train"]["official"] == 367
    val = report["splits"]["val"]
    assert val["sizes"] == {"smallest": [10, 12], "largest": [24, 32], "distinct": 2}
    pixels = dict(zip(report["classes"], val["pixels"], strict=True))
    assert (pixels["sky"], pixels["car"]) == (66, 63 + 12)  # 22 runs of three pixels in val_00, and 21
    assert val["ignored_pixels"] == 63 + 120 - 12
    assert report["notes"] == [
        {"note": "grey images, read with three equal channels", "files": 1, "first": f"{root}/val/val_01.png"}
    ]
    assert json.loads((Path(report["folder"]) / "report.json").read_text()) == {
        key: value for key, value in report.items() if key != "folder"
    }


def test_the_report_is_shown_as_tables(data):
    lines = as_text(pipeline.prepare(data)).splitlines()
    cells = [line.split() for line in lines]
    assert "camvid is prepared in" in lines[0]
    assert ["train", "3", "367", "32x24", "32x24", "1"] in cells
    assert ["car", "189", "8.94", "126", "8.94", "63", "8.94"] in cells
    assert ["ignored,", "of", "all", "pixels", "189", "8.20", "126", "8.20", "63", "8.20"] in cells
    assert len({len(line) for line in lines if "8.94" in line}) == 1


def test_a_split_without_labels_has_no_histogram(tmp_path):
    report = pipeline.prepare(trees.write_lip(tmp_path))
    assert len(report["splits"]["test"].pop("digest")) == 64
    assert report["splits"]["test"] == {
        "images": 1,
        "official": 10_000,
        "sizes": {"smallest": [24, 48], "largest": [24, 48], "distinct": 1},
    }
    assert "test: pixels" not in as_text(report)


def test_palette_labels_are_read_by_their_indices(data):
    path = Path(data.root) / "valannot/val_00.png"
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    grey = path.read_bytes()
    colors = np.random.default_rng(0).integers(0, 256, (12, 3), np.uint8)
    path.write_bytes(as_palette(grey, colors))
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 3
    assert pipeline.prepare(data)["notes"][0]["files"] == 1
    np.testing.assert_array_equal(pipeline.open_split(data, "val")[0]["label"], np.where(label == 11, 255, label))


def as_palette(grey, colors):
    """A grey PNG as a palette PNG: another colour type, and the colours after the header."""
    header = b"IHDR" + grey[16:25] + b"\x03" + grey[26:29]
    palette = b"PLTE" + colors.tobytes()
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, palette)]
    return grey[:8] + b"".join(chunks) + grey[33:]


def test_many_shards_hold_the_samples_in_their_order(tmp_path, monkeypatch):
    data = write_tree(tmp_path, {"train": 7, "val": 1, "test": 1})
    monkeypatch.setattr(prepare, "SHARD_BYTES", 3 * (Path(data.root) / "train/train_00.png").stat().st_size)
    folder = Path(pipeline.prepare(data)["folder"])
    assert len(list(folder.glob("camvid-train*"))) > 2
    source = pipeline.open_split(data, "train")
    assert [source[i]["name"] for i in range(7)] == [f"train_{i:02d}" for i in range(7)]


def test_an_interrupted_preparation_leaves_nothing(data, monkeypatch):
    def interrupted(samples, *_, **__):
        yield next(samples)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "tqdm", interrupted)
        with pytest.raises(UserError, match="preparation of camvid was interrupted; nothing of it is kept"):
            pipeline.prepare(data)
    assert not files(data)
    with pytest.raises(UserError, match="not prepared"):
        pipeline.open_split(data, "train")
    pipeline.prepare(data)
    assert len(pipeline.open_split(data, "train")) == 3


def test_what_a_killed_preparation_leaves_is_removed_by_the_next(data):
    script = f"""
import sys, time
from ml_collections import ConfigDict
from ovenet_jax.data import pipeline, prepare
def slow(samples, *_, **__):
    for sample in samples:
        yield sample
        print("one sample", file=sys.__stdout__, flush=True)
        time.sleep(60)
prepare.tqdm = slow
pipeline.prepare(ConfigDict({data.to_dict()!r}))
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes) as process:
        assert "one sample\n" in iter(process.stdout.readline, "")
        process.kill()
    leftover = files(data)
    assert leftover and all("incomplete." in str(path) for path in leftover)
    with pytest.raises(UserError, match="not prepared"):
        pipeline.open_split(data, "train")
    pipeline.prepare(data)
    assert len(pipeline.open_split(data, "train")) == 3
    assert not [path for path in Path(data.prepared).rglob("*") if "incomplete." in str(path)]


def test_of_two_that_prepare_at_the_same_time_one_waits_for_the_other(data, monkeypatch):
    splits = []

    def slow(samples, title, *_, **__):
        splits.append(title)
        time.sleep(0.2)
        return samples

    monkeypatch.setattr(prepare, "tqdm", slow)
    threads = [threading.Thread(target=pipeline.prepare, args=[data]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(splits) == 3
    assert len(pipeline.open_split(data, "train")) == 3


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("write() failed: No space left on device")],
    ids=["file", "array_record"],
)
def test_a_full_disk_in_the_middle_leaves_nothing(data, monkeypatch, error):
    write = tfds.core.writer.ExampleWriter.write

    def full(self, path, examples):
        if "-val." in str(path):
            raise error
        return write(self, path, examples)

    with monkeypatch.context() as patch:
        patch.setattr(tfds.core.writer.ExampleWriter, "write", full)
        with pytest.raises(UserError, match="written .*No space left on device.*; fix that or choose another"):
            pipeline.prepare(data)
    assert not files(data)
    pipeline.prepare(data)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(data, monkeypatch, capsys):
    usage = shutil.disk_usage(data.root)
    size = sum(path.stat().st_size for path in Path(data.root).rglob("*.png"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size - 1))
    with pytest.raises(UserError, match=r"has 0.00 GB free, but camvid takes .* compressed; free some, or choose"):
        pipeline.prepare(data)
    assert not files(data)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size))
    pipeline.prepare(data)
    assert "are free; it takes: compressed 0.00 GB, decoded 0.00 GB." in capsys.readouterr().out


def test_the_list_of_faults_goes_when_they_are_mended(tmp_path):
    data = write_tree(tmp_path, {"train": 21, "val": 1, "test": 1})
    images = sorted((Path(data.root) / "train").iterdir())
    sound = {path: path.read_bytes() for path in images}
    for path in images:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="All of them are in"):
        pipeline.prepare(data)
    assert [path.name for path in files(data)] == ["camvid.faults.txt"]
    for path, content in sound.items():
        path.write_bytes(content)
    pipeline.prepare(data)
    assert not (Path(data.prepared) / "camvid.faults.txt").exists()


def test_the_mode_prepare_prints_the_report_that_is_saved(data):
    keys = [f"--config.data.{key}={data[key]}" for key in ("root", "prepared")]
    command = [sys.executable, "main.py", "--config=configs/camvid.py", "--mode=prepare", *keys]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    first, rest = run.stdout.split("\n", 1)
    assert first.startswith("Preparing camvid in")
    assert rest.strip() == as_text(pipeline.prepare(data))


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda _: "[]",
        lambda _: '{"name": "camvid", "splits": {"train": {}}, "notes": []}',
        lambda whole: whole.replace('"official": 367,', ""),
        lambda whole: whole.replace('"pixels": [', '"pixels": ["many", '),
        lambda whole: whole.replace('"pixels": [', '"pixels": [5, '),
    ],
    ids=["empty", "list", "no sizes", "no official count", "text", "another class"],
)
def test_a_damaged_inventory_gets_one_sentence(data, damage):
    folder = Path(pipeline.prepare(data)["folder"])
    whole = (folder / "report.json").read_text()
    (folder / "report.json").write_text(damage(whole))
    assert damage(whole) != whole
    with pytest.raises(UserError, match=f"report.json is damaged .*; delete {folder}, and it is prepared anew"):
        pipeline.prepare(data)


@pytest.mark.parametrize("name", ["/tmp/victim", "../../victim", "a/../../b"])
def test_a_record_whose_name_leads_out_of_folders_is_refused(data, monkeypatch, name):
    """As prepared data of others may have it: predictions are written under the names of records."""
    evil = layouts.TREES["camvid"]._replace(sample_name=lambda path: f"{name}/{path.stem}")
    monkeypatch.setattr(layouts, "TREES", {"camvid": evil})
    pipeline.prepare(data)
    source = pipeline.open_split(data, "val")
    for read in (lambda: source[0], lambda: source.name(0)):
        with pytest.raises((UserError, ValueError), match="its name .* leads out of folders"):
            read()


def test_nothing_is_imported_that_prepared_data_name(data, tmp_path, monkeypatch):
    report = pipeline.prepare(data)
    file = Path(report["folder"]) / "features.json"
    (tmp_path / "harmful.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    ours = "tensorflow_datasets.core.features.text_feature.Text"
    file.write_text(file.read_text().replace(ours, "harmful.Text", 1))
    with pytest.raises(UserError, match=r"it names harmful.Text\); delete that folder, and it is prepared anew"):
        pipeline.open_split(data, "val")
