from pathlib import Path

import numpy as np
import pytest

from configs import ade20k
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import IGNORE, OFFICIAL
from ovenet_jax.errors import UserError
from tests import trees
from tests.camvid_tree import write


@pytest.mark.parametrize("official", [True, False])
def test_both_trees_hold_the_same_samples(tmp_path, official):
    data = trees.write_ade20k(tmp_path, official)
    pipeline.prepare(data)
    for split, count in {"train": 3, "val": 2, "test": 1}.items():
        source = pipeline.open_split(data, split)
        assert [source[i]["name"] for i in range(len(source))] == [f"ADE_{split}_{i:08d}" for i in range(1, count + 1)]
        assert source.has_labels == ("label" in source[0]) == (split != "test")
    label = pipeline.open_split(data, "train")[2]["label"]
    ids = trees.ids((23, 19), range(151)).astype(int)
    np.testing.assert_array_equal(label, np.where(ids == 0, IGNORE, ids - 1))


def test_validation_images_come_at_the_short_side_asked_for(tmp_path):
    data = trees.write_ade20k(tmp_path)
    pipeline.prepare(data)
    for split in ("val", "test"):
        source = pipeline.open_split(data, split)
        with pipeline.samples(source, range(len(source)), short_side=40) as samples:
            found = list(samples)
        assert [sample["image"].shape for sample in found] == [(40, 56, 3), (40, 48, 3)][: len(found)]
        for sample in found if split == "val" else ():
            assert sample["label"].shape == sample["image"].shape[:2]


def test_an_id_beyond_150_is_named(tmp_path):
    data = trees.write_ade20k(tmp_path)
    label = Path(data.root) / "annotations/validation/ADE_val_00000002.png"
    write(label, trees.ids((22, 23), range(100, 153)))
    with pytest.raises(UserError, match="ADE_val_00000002.png: label values that are not in the class table: 151, 152"):
        pipeline.prepare(data)


def test_a_root_of_neither_tree_is_answered_with_the_layout_once(tmp_path):
    data = trees.write_ade20k(tmp_path)
    data.root = str(tmp_path)
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    assert str(error.value).startswith(
        f"{tmp_path}: there is no images/training in it; data.root must be the folder of"
    )


@pytest.mark.parametrize(
    "name", ["index_ade20k.pkl", "ADE20K_2021_17_01/index_ade20k.pkl", "images/ADE/training/a.jpg"]
)
def test_the_full_release_is_named_for_what_it_is_and_not_read(tmp_path, name):
    data = trees.write_ade20k(tmp_path)
    (Path(data.root) / name).parent.mkdir(parents=True, exist_ok=True)
    (Path(data.root) / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        UserError, match="ADE20K's full release, whose labels are objects and their parts, not the chal"
    ):
        pipeline.prepare(data)


@pytest.mark.parametrize(("variant", "batch_size", "scale_factor"), [
    ("ovenet", 8, 16), ("hrnet_ocr", 16, 16), ("hrnet", 16, 11),
])  # fmt: skip
def test_ade20k_trains_as_published(variant, batch_size, scale_factor):
    config = ade20k.get_config(variant)
    assert (config.augment.crop, config.augment.base_size) == ((520, 520), 520)
    assert (config.optimizer.rate, config.optimizer.weight_decay) == (0.02, 1e-4)
    assert (config.batch_size, config.augment.scale_factor) == (batch_size, scale_factor)
    assert config.steps == 120 * (20_210 // batch_size)
    assert config.loss.ohem.on and not config.loss.class_weights
    assert config.model.num_classes == len(OFFICIAL["ade20k"].names)
