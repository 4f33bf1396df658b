import shutil
from pathlib import Path

import numpy as np
import pytest

from configs import acdc, cityscapes
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import OFFICIAL
from ovenet_jax.errors import UserError
from tests import trees


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data = trees.write_acdc(tmp_path_factory.mktemp("acdc"))
    pipeline.prepare(data)
    return data


@pytest.mark.parametrize("workers", [0, 1])
def test_every_sample_says_its_condition(prepared, workers):
    source = pipeline.open_split(prepared, "val")
    with pipeline.samples(source, range(len(source)), workers=workers) as samples:
        found = list(samples)
    assert [sample["group"] for sample in found] == list(trees.CONDITIONS)
    assert [sample["name"] for sample in found] == [f"GOPR0{i}75_frame_000043_rgb_anon" for i in range(4)]
    for sample in found:
        np.testing.assert_array_equal(sample["label"], OFFICIAL["acdc"].train_ids()[trees.ids(trees.SIZE, range(34))])


def test_reference_images_are_left_out_and_the_test_split_has_no_labels(prepared):
    for split in ("train", "val", "test"):
        source = pipeline.open_split(prepared, split)
        assert len(source) == 4
        assert source.has_labels == ("label" in source[0]) == (split != "test")


def test_a_condition_that_is_there_in_part_is_named(tmp_path):
    data = trees.write_acdc(tmp_path)
    root = Path(data.root)
    (root / "gt/night/val").rename(root / "elsewhere")
    with pytest.raises(UserError, match="1 fault in .*\n.*/gt/night/val: no such folder"):
        pipeline.prepare(data)


def test_any_conditions_will_do_and_the_others_are_named(tmp_path):
    data = trees.write_acdc(tmp_path)
    root = Path(data.root)
    for folder in ("rgb_anon/snow", "gt/snow", "rgb_anon/fog/test"):
        shutil.rmtree(root / folder)
    (note,) = pipeline.prepare(data)["notes"]
    first = str(root / "rgb_anon/snow/train")
    assert note == {"note": "folders are not there and left out", "files": 4, "first": first}
    assert [len(pipeline.open_split(data, split)) for split in ("train", "val", "test")] == [3, 3, 2]


def test_acdc_trains_as_published():
    for variant in ("ovenet", "hrnet_ocr", "hrnet"):
        config = acdc.get_config(variant)
        assert config.model.align_corners == (variant != "hrnet")
        assert (config.eval.window, config.predict.ids) == ((1080, 1920), "train_ids")
        assert (config.augment.crop, config.augment.base_size) == ((540, 960), 1920)
        assert (config.optimizer.rate, config.optimizer.weight_decay) == (0.01, 5e-4)
        assert (config.batch_size, config.steps) == (10, 484 * 160)
        assert not config.loss.ohem.on
        assert len(config.loss.class_weights) == config.model.num_classes == len(OFFICIAL["acdc"].names)


@pytest.mark.parametrize(("variant", "steps"), [("base_oc_r101", 40_000), ("ocr_w48", 80_000)])
def test_openseg_trains_on_acdc_as_on_cityscapes(variant, steps):
    ours, theirs = (file.get_config(variant) for file in (acdc, cityscapes))
    assert (ours.batch_size, ours.steps, ours.evaluate_every) == (8, steps, 4000)
    assert (theirs.batch_size, theirs.steps, theirs.evaluate_every) == (8, steps, 4000)
    assert (ours.augment.crop, ours.augment.scale_range) == ((540, 960), (0.5, 2.0))
