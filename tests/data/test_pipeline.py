import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common, lip
from ovenet_jax.data import pipeline, storage
from ovenet_jax.data.augment import (
    PhotometricDistortion,
    RandomBrightness,
    RandomFlip,
    RandomScaleCrop,
    resize_short_side,
)
from ovenet_jax.data.labels import IGNORE, OFFICIAL, TOY_STREETS
from ovenet_jax.data.pipeline import Source, samples, train_batches
from ovenet_jax.errors import INTERRUPTIONS, UserError, cause_of
from tests.camvid_tree import write_tree
from tests.places import ROOT

ACTS = (RandomScaleCrop(32, (20, 28), 16), RandomBrightness(10, 0.5), RandomFlip())


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Ten samples of 24x32 pixels, in both storage forms; sample i is i everywhere but in its first row."""
    data = write_tree(tmp_path_factory.mktemp("camvid"), {"train": 10, "val": 1, "test": 1})
    found = {}
    for data.storage in storage.FORMS:
        pipeline.prepare(data)
        found[data.storage] = pipeline.open_split(data, "train")
    return found


@pytest.fixture(scope="module")
def source(sources):
    return sources["compressed"]


def take(count, source, acts=ACTS, **settings):
    settings = {"batch_size": 4, "seed": 7, "first_step": 0} | settings
    with train_batches(source, acts, **settings) as batches:
        return list(islice(batches, count))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


def drawn(batches):
    """Which samples of `source` are in the rows of unaugmented batches."""
    return [int(image[1, 0, 0]) for batch in batches for image in batch["image"]]


def test_batches_have_the_form_promised(source):
    (batch,) = take(1, source)
    assert batch["image"].shape == (4, 20, 28, 3) and batch["label"].shape == (4, 20, 28)
    assert batch["image"].dtype == batch["label"].dtype == np.uint8
    assert set(np.unique(batch["label"])) <= {*range(11), IGNORE}


@pytest.mark.parametrize(("form", "workers"), [("decoded", 0), ("decoded", 1), ("compressed", 2), ("compressed", -1)])
def test_batches_are_the_same_for_both_storage_forms_and_any_number_of_workers(sources, form, workers):
    batches = take(5, sources[form], workers=workers)
    assert_same(batches, take(5, sources["compressed"]))
    assert all(type(array) is np.ndarray and array.base is None for array in batches[-1].values())


def test_the_rows_of_all_processes_are_those_of_one(source):
    whole = take(4, source)
    halves = [take(4, source, process_index=i, process_count=2) for i in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*halves, strict=True)]
    assert_same(joined, whole)


def test_where_the_system_does_not_say_which_cores_may_be_used_all_are(sources, monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert_same(take(2, sources["decoded"], workers=-1), take(2, sources["decoded"]))


@pytest.mark.parametrize(("form", "workers"), [("compressed", 0), ("decoded", 0), ("decoded", 2)])
def test_resuming_amid_an_epoch_gives_the_remaining_batches(sources, form, workers):
    assert_same(take(3, sources[form], first_step=6, workers=workers), take(9, sources["compressed"])[6:])


def test_every_epoch_holds_each_sample_once_in_an_order_of_its_own(source):
    order = drawn(take(6, source, (), batch_size=5))
    epochs = [order[:10], order[10:20], order[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


def test_samples_are_augmented_anew_in_every_epoch(source):
    first, second = (take(1, source, batch_size=10, first_step=step)[0] for step in (0, 1))
    of = [{image[-1, -1].tobytes() for image in batch["image"]} for batch in (first, second)]
    assert of[0] != of[1]
    crops = [sorted(label.tobytes() for label in batch["label"]) for batch in (first, second)]
    assert crops[0] != crops[1]


def test_another_seed_gives_another_order(source):
    assert drawn(take(2, source, (), seed=7)) != drawn(take(2, source, (), seed=8))
    assert drawn(take(2, source, (), seed=7)) == drawn(take(2, source, (), seed=7))


def read(source, indices, **settings):
    with samples(source, indices, **settings) as found:
        return list(found)


@pytest.mark.parametrize(("form", "workers"), [("compressed", 0), ("decoded", 0), ("compressed", 2)])
def test_samples_come_once_each_in_order_and_as_they_are(sources, form, workers):
    source = sources[form]
    found = read(source, range(10), workers=workers)
    assert [sample["index"] for sample in found] == list(range(10))
    for index, sample in enumerate(found):
        expected = source[index]
        assert sample.keys() == expected.keys() | {"index"}
        assert (sample["name"], sample["group"]) == (f"train_{index:02d}", "")
        for key in ("image", "label"):
            np.testing.assert_array_equal(sample[key], expected[key])
            assert type(sample[key]) is np.ndarray and sample[key].base is None and sample[key].flags.writeable


@pytest.mark.parametrize(
    ("indices", "workers"), [(range(1, 10, 3), 0), ([7, 2], 0), ([], 0), ([4], 2), ([], 2)], ids=str
)
def test_any_samples_can_be_asked_for(source, indices, workers):
    assert [sample["index"] for sample in read(source, indices, workers=workers)] == list(indices)


def test_samples_are_resized_to_the_short_side(source):
    (sample,) = read(source, [3], short_side=36)
    expected = resize_short_side(source[3], 36)
    assert sample["image"].shape == (40, 48, 3) and sample["label"].shape == (40, 48)
    for key in ("image", "label"):
        np.testing.assert_array_equal(sample[key], expected[key])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_is_named(workers):
    records = [{"image": b"no image", "label": b"", "name": b"frame_0815", "group": b""}]
    damaged = Source(records, OFFICIAL["camvid"], Path("prepared/camvid"))
    message = r"frame_0815 in prepared/camvid is damaged \(does not decode as an image\); delete that folder"
    with pytest.raises(UserError, match=message):
        take(1, damaged, workers=workers, batch_size=1)
    with pytest.raises(UserError, match=message):
        read(damaged, [0], workers=workers)


def test_an_unreadable_record_is_named_by_its_place(source):
    class Unreadable(list):
        def __getitem__(self, _):
            raise RuntimeError("hash mismatch")

    with pytest.raises(UserError, match=r"record 3 in .* is damaged \(hash mismatch\)"):
        Source(Unreadable(), OFFICIAL["camvid"], source.folder)[3]


def test_a_source_can_be_pickled(source):
    again = pickle.loads(pickle.dumps(source))
    assert len(again) == 10
    np.testing.assert_array_equal(again[4]["image"], source[4]["image"])


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    data = ConfigDict({"name": "cityscapse", "prepared": "nowhere"})
    for call in (pipeline.prepare, pipeline.classes):
        with pytest.raises(UserError, match="'cityscapse' is unknown; choose one of toy_streets, camvid, city"):
            call(data)


def test_the_classes_of_a_data_set_are_known_before_it_is_prepared():
    assert pipeline.classes(ConfigDict({"name": "ade20k", "root": "nowhere"})) is OFFICIAL["ade20k"]
    assert pipeline.classes(ConfigDict({"name": "toy_streets"})) is TOY_STREETS


def test_an_unknown_split_is_refused_with_the_known_ones(tmp_path):
    data = write_tree(tmp_path)
    pipeline.prepare(data)
    with pytest.raises(UserError, match="camvid has no split 'validation'; choose one of .*train.*val"):
        pipeline.open_split(data, "validation")
    assert len(pipeline.open_split(data, "train+val")) == 5


def test_augmentations_follow_the_config():
    settings = common.base_config("").augment
    settings.base_size, settings.crop = 480, (360, 480)
    assert pipeline.augmentations(settings, OFFICIAL["camvid"]) == [RandomScaleCrop(480, (360, 480), 16), RandomFlip()]
    settings.brightness, settings.short_side, settings.rare_class_crops = 10, 520, 0.25
    crop = RandomScaleCrop(480, (360, 480), 16, short_side=520, rare_class_crops=0.25)
    assert pipeline.augmentations(settings, OFFICIAL["camvid"]) == [crop, RandomBrightness(10, 0.5), RandomFlip()]
    settings.photometric_distortion, settings.flip = True, False
    expected = [crop, RandomBrightness(10, 0.5), PhotometricDistortion()]
    assert pipeline.augmentations(settings, OFFICIAL["camvid"]) == expected


def test_images_of_lip_are_mirrored_with_their_classes_and_then_resized():
    settings = lip.get_config().augment
    crop = RandomScaleCrop(473, (473, 473), 11, resize=(473, 473))
    flip = RandomFlip(((14, 15), (16, 17), (18, 19)))
    assert pipeline.augmentations(settings, OFFICIAL["lip"]) == [flip, crop]


HEAVY = ("jax", "jaxlib", "flax", "tensorflow")


@dataclass(frozen=True)
class Probe:
    """Writes into the label which heavy modules the process has imported, and how many processes deep it is."""

    def __call__(self, sample, rng):
        del rng
        sample["label"][0, : len(HEAVY)] = [sys.modules.get(name) is not None for name in HEAVY]
        sample["label"][1, 0] = multiprocessing.parent_process() is not None
        return sample


def test_workers_import_neither_jax_nor_tensorflow(source):
    import jax  # noqa: F401

    spec = sys.modules["__main__"].__spec__
    for batch in take(4, source, (Probe(),), workers=2):
        assert (batch["label"][:, 0, : len(HEAVY)] == 0).all()
        assert (batch["label"][:, 1, 0] == 1).all()
    assert sys.modules["__main__"].__spec__ is spec
    (batch,) = take(1, source, (Probe(),))
    assert (batch["label"][:, 0, 0] == 1).all() and (batch["label"][:, 1, 0] == 0).all()


def test_workers_outlive_signals_that_are_sent_to_all_processes_and_a_killed_one_is_told(source):
    with train_batches(source, (), batch_size=4, seed=7, first_step=0, workers=1) as batches:
        next(batches)
        (process,) = multiprocessing.active_children()
        for number in INTERRUPTIONS:
            os.kill(process.pid, number)
        assert len(list(islice(batches, 12))) == 12  # more than had been made ahead
        assert process.is_alive()
        process.kill()
        with pytest.raises(RuntimeError) as ended:
            list(islice(batches, 12))
        assert cause_of(ended.value).startswith("a data worker was ended (signal 9): the machine's memory")
    assert not multiprocessing.active_children()


def test_a_programs_processes_outlive_signals_that_are_sent_to_all_and_end_when_it_is_killed(tmp_path):
    data = write_tree(tmp_path)
    script = f"""
import time
from ml_collections import ConfigDict
from ovenet_jax.data import pipeline
data = ConfigDict({data.to_dict()!r})
pipeline.prepare(data)
source = pipeline.open_split(data, "train")
with pipeline.train_batches(source, [], batch_size=2, seed=0, first_step=0, workers=1):
    print("started", flush=True)
    time.sleep(60)
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes) as program:
        assert "started\n" in program.stdout
        threads = Path(f"/proc/{program.pid}/task").iterdir()
        children = [process for thread in threads for process in (thread / "children").read_text().split()]
        assert len(children) == 2  # the worker, and the one that keeps account of shared memory
        for process, number in product(children, INTERRUPTIONS):
            os.kill(int(process), number)
        time.sleep(0.2)
        assert all("Z" not in Path(f"/proc/{process}/stat").read_text().split() for process in children)
        program.kill()
        program.communicate(timeout=20)  # to the end of its pipes, which the worker holds as long as it lives


def test_the_data_room_works_without_jax_and_tensorflow(tmp_path):
    data = write_tree(tmp_path)
    script = f"""
import sys
for name in ("jax", "jaxlib", "flax"):
    sys.modules[name] = None
from ml_collections import ConfigDict
from ovenet_jax.data import augment, labels, layouts, pipeline, prepare, storage, street_scene, toy_streets, worker
data = ConfigDict({data.to_dict()!r})
pipeline.prepare(data)
with pipeline.train_batches(pipeline.open_split(data, "train"), [], batch_size=2, seed=0, first_step=0) as batches:
    print(next(batches)["image"].shape, "tensorflow" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("(2, 24, 32, 3) False\n")
