"""Where a network is right, its seeds and its ceilings: worked label maps, and a tiny run."""

import json
from functools import partial
from unittest import mock

import jax
import numpy as np
import pytest

from benchmarks import examine
from benchmarks.second_head import SecondHead
from configs import camvid
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluate import evaluate
from ovenet_jax.models import parameters, zoo
from ovenet_jax.segfix.files import Offsets
from ovenet_jax.supervision.losses import ovenet_loss
from tests.camvid_tree import write_tree
from tests.tiny_step import small_resnet
from tests.untrained import save_untrained, tiny

VOID = IGNORE
CEILINGS = ("perfect_confidence", "perfect_seed")
LABEL = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, VOID, VOID, 1, 1], [1, 0, 0, 0, 1, 1]], np.uint8)


def test_distance_to_the_nearest_boundary():
    distance = examine.boundary_distance(LABEL, 2)
    np.testing.assert_allclose(distance[0], [3, 3, 2, 1, 1, 2])
    assert distance[2, 1] == pytest.approx(np.sqrt(2))  # from the 1 at the bottom left
    assert (distance[2, 2:4] == 0).all()
    assert distance[2, 5] == pytest.approx(np.sqrt(5))  # void is no boundary


def test_segments_are_connected_regions_of_a_class():
    ids = examine.segments(LABEL, 2)
    assert (ids == 0).sum() == 2 and set(np.unique(ids)) == {0, 1, 2, 3}
    assert ids[0, 4] != ids[3, 0] and ids[3, 3] == ids[0, 0]


def test_distance_to_what_is_right_stays_in_the_segment():
    ids = examine.segments(LABEL, 2)
    right = np.zeros(LABEL.shape, bool)
    right[0, 4] = right[0, 0] = True
    distance = examine.distance_to_right(ids, right)
    assert distance[0, 3] == 3  # not 1, in the other segment
    assert distance[0, 5] == 1 and distance[3, 4] == 3
    assert np.isinf(distance[3, 0]) and np.isinf(distance[2, 2])


def test_some_confidence_is_right_as_trying_them_shows():
    generator = np.random.default_rng(0)
    initial, seed = generator.normal(size=(2, 1, 40, 50, 4)).astype(np.float32)
    label = generator.integers(0, 4, size=(1, 40, 50)).astype(np.uint8)
    label[0, 0, :10] = VOID
    found = np.asarray(examine.some_confidence_is_right(initial, seed, label))
    tried = np.zeros(label.shape, bool)
    for confidence in np.linspace(0, 1, 2001, dtype=np.float32):
        tried |= ((1 - confidence) * initial + confidence * seed).argmax(-1) == label
    assert not (tried & ~found).any()
    assert (found & ~tried).sum() <= 3  # right for a narrow range of F only
    ends = (initial.argmax(-1) == label) | (seed.argmax(-1) == label)
    assert (found & ~ends).any() and not found[0, 0, :10].any()


def test_counts_of_an_image():
    initial = LABEL.copy()
    initial[initial == VOID] = 0
    fused = initial.copy()
    initial[0, 3], initial[3, 0] = 1, 0  # the second has nothing right in its segment
    offset = np.zeros((*LABEL.shape, 2), np.int32)
    offset[0, 3], offset[3, 0] = (0, -1), (0, 3)
    offset[0, 4] = (0, -4)  # to another segment
    confidence = np.full(LABEL.shape, 0.25, np.float32)
    found = examine.measure(LABEL, {"initial": initial, "fused": initial}, Offsets(offset, confidence), 2)

    np.testing.assert_array_equal(found["pixels"]["class"], [13, 9])
    assert all(groups.sum() == 22 for groups in found["pixels"].values())
    np.testing.assert_array_equal(found["pixels"]["size"], [22, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(found["predictions"]["initial"]["class"], [12, 8])
    np.testing.assert_array_equal(found["predictions"]["initial"]["predicted"], [13, 9])
    assert found["scores"]["initial"] == pytest.approx((12 / 14 + 8 / 10) / 2, abs=1e-5)
    np.testing.assert_array_equal(found["predictions"]["perfect_seed"]["class"], [13, 8])

    seeds = found["seeds"]
    np.testing.assert_allclose(seeds["length"]["class"], [1, 3 + 4])
    np.testing.assert_allclose(seeds["same_class"]["class"], [13, 7])
    np.testing.assert_allclose(seeds["same_segment"]["class"], [13, 7])
    np.testing.assert_allclose(seeds["confidence"]["class"], [13 / 4, 9 / 4])
    np.testing.assert_allclose(seeds["confidence_if_same"]["class"], [13 / 4, 7 / 4])

    right = examine.measure(LABEL, {"main": fused}, None, 2)
    assert right["scores"]["main"] == 1 and right["seeds"] == {}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of an untrained OVeNet: its folder, and its report on a split of twelve images."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny(camvid.get_config("ovenet_tiny"), write_tree(folder, {"train": 1, "val": 12, "test": 1}))
    save_untrained(config, folder / "run")
    evaluate(config, folder / "run")
    return folder / "run", json.loads((folder / "run/evaluation/val/report.json").read_text())


def test_a_run_is_examined_as_it_is_evaluated(run):
    folder, report = run
    found = json.loads(json.dumps(examine.examine(folder, "val")))
    assert found["images"] == [f"val_{i:02d}" for i in range(12)] and found["blocks"] == ["val", "val"]
    for name in ("initial", "seed", "fused"):
        matrix = np.array(report[name]["confusion"])
        counts = {key: np.sum(x, axis=0) for key, x in found["predictions"][name].items()}
        np.testing.assert_array_equal(counts["class"], np.diag(matrix))
        np.testing.assert_array_equal(counts["predicted"], matrix.sum(0))
        assert all(counts[key].sum() == np.trace(matrix) for key in ("distance", "size"))
    fused, *ceilings = (np.sum(found["predictions"][name]["class"]) for name in ("fused", *CEILINGS))
    assert all(ceiling >= fused for ceiling in ceilings)
    assert all(len(scores) == 12 for scores in found["scores"].values())
    np.testing.assert_allclose(found["seeds"]["pixels"]["class"], np.sum(found["pixels"]["class"], axis=0))


def test_the_control_has_a_second_head_instead_of_offsets(tiny_model):
    tiny_model.backbone = small_resnet()
    with mock.patch.object(zoo, "OVeNet", SecondHead):
        network = zoo.create_model(tiny_model)
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    output = jax.jit(network)(image)
    confidence = np.asarray(output.confidence)
    assert output.seed.main.shape == output.initial.main.shape and not np.any(output.offset)
    np.testing.assert_allclose(
        output.fused.main, (1 - confidence) * output.initial.main + confidence * output.seed.main, rtol=1e-5
    )
    label = np.zeros((1, 32, 32), np.uint8)
    loss = partial(
        ovenet_loss,
        aux_weight=0.4,
        confidence_weight=0.0,
        include_ignored=True,
        grid_align_corners=True,
        align_corners=True,
    )
    losses = jax.jit(loss)(output, label)
    expected = 0.5 * losses["initial"] + 0.5 * losses["seed"] + losses["fused"]
    assert losses["total"] == pytest.approx(expected) and np.isfinite(losses["total"])
    arrays, plain = (parameters.split(n)[1] for n in (network, zoo.create_model(tiny_model)))
    assert arrays.keys() == plain.keys()  # so that a base is taken over and frozen alike
    for name, array in plain.items():
        if not name.startswith("offset_head"):
            np.testing.assert_array_equal(arrays[name], array)
