import cv2
import numpy as np

from configs import camvid
from ovenet_jax.browse import browse
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import OFFICIAL
from ovenet_jax.evaluation.colours import overlay
from tests.camvid_tree import write_tree


def test_the_first_samples_of_training_become_pictures(tmp_path, capsys, monkeypatch):
    config = camvid.get_config("ovenet_tiny")
    config.data.update(write_tree(tmp_path, {"train": 4, "val": 1, "test": 1}))
    config.augment.base_size, config.augment.crop = 32, (20, 28)
    browse(config, tmp_path / "run")
    pictures = {path.name: path for path in (tmp_path / "run/browse").iterdir()}
    assert pictures.keys() == {f"{i}{kind}.png" for i in range(8) for kind in ("", "_overlay")}
    assert f"augmented, in {tmp_path}/run/browse" in capsys.readouterr().out

    source = pipeline.open_split(config.data, "train")
    acts = pipeline.augmentations(config.augment, OFFICIAL["camvid"])
    with pipeline.train_batches(source, acts, batch_size=3, seed=config.seed, first_step=0) as batches:
        seen = [sample for _ in range(3) for sample in zip(*next(batches).values(), strict=True)]
    for i in range(8):
        written = cv2.imread(str(pictures[f"{i}_overlay.png"]), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(written[::32, ::32], overlay(*seen[i], OFFICIAL["camvid"]))
        assert written.shape[1] == 32 * 28
        assert cv2.imread(str(pictures[f"{i}.png"])).shape[1] > 1000

    monkeypatch.setattr("jax.process_index", lambda: 1)
    browse(config, tmp_path / "other")  # the first process writes
    assert not (tmp_path / "other").exists()
