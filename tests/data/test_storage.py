import errno
import shutil
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ovenet_jax.data import layouts, pipeline, storage
from ovenet_jax.data import trees as trees_of_data
from ovenet_jax.data.augment import RandomFlip, RandomScaleCrop
from ovenet_jax.errors import UserError, cause_of
from tests import trees
from tests.camvid_tree import COUNTS, write_tree
from tests.places import SHARED

PHOTOGRAPHS = SHARED / "data/camvid"


def opened(data, form, split):
    data.storage = form
    pipeline.prepare(data)
    return pipeline.open_split(data, split)


@pytest.mark.parametrize(
    ("write", "splits"),
    [
        (write_tree, ("train", "val+test")),
        (lambda root: write_tree(root, suffix=".jpg"), ("train",)),
        (trees.write_ade20k, ("train+val", "test")),  # images of all sizes, and without labels
        (trees.write_cityscapes, ("train", "train+test")),
    ],
    ids=["camvid", "jpeg", "ade20k", "cityscapes"],
)
def test_samples_of_both_forms_are_identical(tmp_path, write, splits):
    data = write(tmp_path)
    for split in splits:
        compressed, decoded = (opened(data, form, split) for form in storage.FORMS)
        assert len(compressed) == len(decoded) > 0 and compressed.folder != decoded.folder
        for i in range(len(compressed)):
            sample, other = compressed[i], decoded[i]
            assert sample.keys() == other.keys()
            for key in sample:
                np.testing.assert_array_equal(sample[key], other[key])


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no CamVid in {PHOTOGRAPHS}")
def test_an_epoch_of_photographs_is_the_same_in_both_forms_with_any_number_of_workers(tmp_path):
    data = write_tree(tmp_path)
    shutil.rmtree(data.root)
    for folder in (f"{split}{kind}" for split in COUNTS for kind in ("", "annot")):
        (Path(data.root) / folder).mkdir(parents=True)
        for file in sorted((PHOTOGRAPHS / folder).iterdir())[:6]:
            shutil.copy(file, Path(data.root) / folder)

    def epoch(form, workers):
        acts = (RandomScaleCrop(480, (360, 480), 16), RandomFlip())
        settings = {"batch_size": 2, "seed": 3, "first_step": 0, "workers": workers}
        with pipeline.train_batches(opened(data, form, "train"), acts, **settings) as batches:
            return [array for batch in islice(batches, 3) for array in batch.values()]

    expected = epoch("compressed", 0)
    for form, workers in (("decoded", 0), ("compressed", 1), ("decoded", 2)):
        for array, other in zip(epoch(form, workers), expected, strict=True):
            np.testing.assert_array_equal(array, other)


def test_what_is_prepared_in_one_form_is_not_in_the_other(tmp_path):
    data = write_tree(tmp_path)
    opened(data, "compressed", "train")
    data.storage = "decoded"
    with pytest.raises(UserError, match="camvid is not prepared"):
        pipeline.open_split(data, "train")


def test_decoded_pixels_are_views_that_cannot_be_written_to(tmp_path):
    sample = opened(write_tree(tmp_path), "decoded", "train")[0]
    for key in ("image", "label"):
        with pytest.raises(ValueError, match="read-only"):
            sample[key][:] = 0


def test_missing_pixels_are_a_damage_that_is_named(tmp_path):
    source = opened(write_tree(tmp_path), "decoded", "train")
    file = Path(source.folder) / storage.PIXELS
    file.write_bytes(file.read_bytes()[: 2 * 24 * 32 * 4 + 5])
    assert source[1]["name"] == "train_01"
    with pytest.raises(UserError, match="train_02 in .* is damaged .*; delete that folder"):
        source[2]
    file.unlink()
    with pytest.raises(UserError, match="train_00 in .* is damaged .*No such file"):
        source[0]


def test_a_fault_of_the_system_is_no_damage(tmp_path, monkeypatch):
    source = opened(write_tree(tmp_path), "decoded", "train")

    def stale(file, *_, **__):
        raise OSError(errno.ESTALE, "Stale file handle", str(file))

    monkeypatch.setattr(np, "memmap", stale)
    with pytest.raises(OSError, match="Stale file handle") as raised:
        source[0]
    assert cause_of(raised.value).endswith("the file server has lost a file (stale handle); check that it runs")


HEIGHT, WIDTH = 80, 32  # three blocks of rows


@pytest.fixture
def tall(tmp_path):
    """A source of three decoded samples, and a function that changes the pixels of one, bytes [4 * HEIGHT * WIDTH]."""
    source = opened(write_tree(tmp_path, {"train": 3, "val": 1, "test": 1}, size=(HEIGHT, WIDTH)), "decoded", "train")
    file = Path(source.folder) / storage.PIXELS

    def change(number, act):
        pixels = np.fromfile(file, np.uint8)
        act(pixels.reshape(5, -1)[number])
        pixels.tofile(file)

    return source, change


@pytest.mark.parametrize(
    ("key", "row", "others"),
    [("image", 0, (32, 80)), ("image", 79, (0, 64)), ("label", 31, (32, 80)), ("label", 32, (0, 32))],
)
def test_a_flipped_bit_is_named_whenever_its_rows_are_read_and_only_then(tall, key, row, others):
    source, change = tall
    at = 7 + row * WIDTH * 3 if key == "image" else 7 + (3 * HEIGHT + row) * WIDTH

    def flip(pixels):
        pixels[at] ^= 4

    change(1, flip)
    assert [source[i]["name"] for i in (0, 2)] == ["train_00", "train_02"]
    damaged = r"^train_01 in .* is damaged \(rows .* are not those that were written\); delete that folder"
    with pytest.raises(UserError, match=damaged):
        source[1]
    rows = source.rows(1)[key]
    with pytest.raises(UserError, match=damaged):
        rows[row : row + 1]
    assert len(rows[slice(*others)]) == others[1] - others[0]


def test_exchanged_words_are_named(tall):
    """The sum of all words is the same."""
    source, change = tall

    def exchange(pixels):
        words = pixels.view(np.uint64)
        assert words[0] != words[12]
        words[[0, 12]] = words[[12, 0]]

    change(0, exchange)
    with pytest.raises(UserError, match="train_00 in .* is damaged"):
        source[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_ends_at_damaged_pixels_in_its_window(tall, workers):
    source, change = tall
    change(2, lambda pixels: pixels[: 40 * WIDTH * 3].fill(0))
    act = RandomScaleCrop(80, (80, 32), scale_range=(1.0, 1.0))
    settings = {"batch_size": 1, "seed": 0, "first_step": 0, "workers": workers}
    with pytest.raises(Exception, match="train_02 in .* is damaged"):  # noqa: SIM117
        with pipeline.train_batches(source, [act], **settings) as batches:
            list(islice(batches, 3))


def test_decoded_pixels_of_earlier_versions_are_read(tmp_path, monkeypatch):
    """Their records have no checksums, or others."""
    data = write_tree(tmp_path)
    features, append = storage.features, storage.writing
    without = lambda entries: {key: x for key, x in entries.items() if not key.endswith("checksums")}  # noqa: E731

    @contextmanager
    def writing(*arguments):
        with append(*arguments) as write:
            yield lambda *sample: without(write(*sample)) | {"image_checksum": 7}

    with monkeypatch.context() as patch:
        number = {"image_checksum": tfds.features.Scalar(np.int64)}
        patch.setattr(storage, "features", lambda *given: without(features(*given)) | number)
        patch.setattr(storage, "writing", writing)
        opened(data, "decoded", "train")
    source = pipeline.open_split(data, "train")
    assert "image_checksum" in source.records[0] and storage.CHECKSUMS["image"] not in source.records[0]
    np.testing.assert_array_equal(source[2]["image"][1:], 2)


def test_the_disk_space_is_known_beforehand(tmp_path):
    data = trees.write_lip(tmp_path)  # its test images have no labels
    needed = trees_of_data.find(layouts.TREES["lip"], Path(data.root)).bytes_needed()
    sources = [file for file in Path(data.root).rglob("*") if file.suffix in (".jpg", ".png")]
    assert needed["compressed"] == sum(file.stat().st_size for file in sources)
    assert needed["decoded"] == (opened(data, "decoded", "train").folder / storage.PIXELS).stat().st_size
