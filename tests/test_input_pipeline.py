import numpy as np
import pytest

from benchmarks.input_pipeline import MEAN, STD, published
from configs import cityscapes
from ovenet_jax.data import pipeline
from tests.trees import write_cityscapes


@pytest.mark.parametrize("crop", [(14, 20), (40, 70)], ids=["inside", "padded"])
def test_the_published_way_of_the_benchmark_makes_our_samples(tmp_path, crop):
    data = write_cityscapes(tmp_path)
    pipeline.prepare(data)
    source = pipeline.open_split(data, "train")
    augment = cityscapes.get_config().augment
    augment.base_size, augment.crop = 48, crop
    image, label = (
        tmp_path / f"source/{folder}/train/aachen/aachen_000000_000019_{end}.png"
        for folder, end in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds"))
    )
    for seed in range(20):
        sample, rng = {key: source[0][key] for key in ("image", "label")}, np.random.default_rng(seed)
        for act in pipeline.augmentations(augment, source.classes):
            sample = act(sample, rng)
        normalised, train_ids = published(image, label, augment, np.random.default_rng(seed))
        np.testing.assert_array_equal(train_ids, sample["label"])
        grey_levels = (normalised.transpose(1, 2, 0) * STD + MEAN) * 255
        np.testing.assert_allclose(grey_levels, sample["image"], rtol=0, atol=1.001)
