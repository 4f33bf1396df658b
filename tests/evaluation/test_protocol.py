"""The geometry of the test protocol; its numbers are compared with the published ones in test_goldens.py."""

import itertools

import numpy as np
import pytest

from configs import cityscapes
from ovenet_jax.evaluation.protocol import Protocol, canvas_size, passes, shapes

SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CITYSCAPES = Protocol(2048, (1024, 2048), "cityscapes", side="long", sum="exp", scales=SIX, flip=True)
SMALL = CITYSCAPES._replace(base_size=96, window=(48, 64), flip=False)
ONCE = SMALL._replace(scales=(1.0,))


def test_six_scales_of_cityscapes_are_fifteen_passes_of_three_sizes():
    sizes = [p.size for p in passes((1024, 2048), CITYSCAPES, True)]
    assert len(sizes) == 3 + 3 * 4
    assert set(sizes) == {(512, 1024), (768, 1536), (1024, 2048)}


def test_generic_windows_overlap_by_a_third_and_reach_the_end():
    protocol = ONCE._replace(base_size=90, window=(48, 60), windows="generic")
    found = passes((90, 60), protocol, True)
    assert [p.size for p in found] == [(48, 60)] * 3  # rows 0, 32 and 64 to 112, beyond 90: black
    black = found[2].read[0].weights.sum(0) == 0
    assert black.tolist() == [False] * 26 + [True] * 22


@pytest.mark.parametrize("windows", ["cityscapes", "generic", "whole", "overlapping"])
@pytest.mark.parametrize("size", [(48, 96), (83, 60), (31, 97), (64, 64)])
@pytest.mark.parametrize("bucket", [1, 16])
@pytest.mark.parametrize("base_size", [96, 0])
def test_every_scale_counts_once_everywhere_in_the_image_and_never_outside(windows, size, bucket, base_size):
    protocol = SMALL._replace(windows=windows, bucket=bucket, base_size=base_size)
    expected = np.zeros(canvas_size(size, protocol))
    expected[: size[0], : size[1]] = 1
    for align_corners in (True, False):
        for _, same_scale in itertools.groupby(passes(size, protocol, align_corners), lambda p: p.scale):
            weights = [[axis.weights.sum(0) for axis in p.write] for p in same_scale]
            np.testing.assert_allclose(sum(np.outer(*w) for w in weights), expected, atol=1e-6)


def test_buckets_bound_the_number_of_sizes_and_leave_the_long_side_alone():
    protocol = ONCE._replace(base_size=520, window=(520, 520), scales=(0.5, 0.75, 1.0), bucket=64)
    rng = np.random.default_rng(0)
    found = {}
    for size in rng.integers(100, 1500, (500, 2)).tolist():
        for p in passes(tuple(size), protocol, True):
            found.setdefault(p.scale, set()).add(p.size)
    for scale, sizes in found.items():
        long_side = int(520 * scale + 0.5)
        assert all(long_side in size for size in sizes)
        assert len(sizes) <= 2 * round(long_side / 64)
    assert sum(map(len, found.values())) > 20  # of 30: sizes did vary


def test_windows_of_full_size_are_not_touched_by_buckets():
    protocol = ONCE._replace(base_size=100, window=(40, 40), scales=(1.5,), bucket=32)
    exact = passes((70, 100), protocol._replace(bucket=1), True)
    assert [p.size for p in passes((70, 100), protocol, True)] == [p.size for p in exact] == [(40, 40)] * 12


def test_a_bucket_never_cuts_an_image_in_more_windows():
    protocol = ONCE._replace(base_size=400, window=(500, 500), scales=(1.5,), bucket=64)
    assert [p.size for p in passes((490, 600), protocol, True)] == [(500, 500)] * 2  # not 512


def test_windows_of_segfix_are_a_third_of_their_size_apart_and_pulled_back_inside():
    protocol = Protocol.from_config(cityscapes.get_config("segfix_w48").eval)
    found = passes((1024, 2048), protocol, True)
    assert {p.size for p in found} == {(512, 512)}
    assert len(found) == 5 * 11  # from 0, 170, 340, 510 and 512; from 0 to 1530 and 1536
    assert [int(p.read[0].indices[0, 0]) for p in found[::11]] == [0, 170, 340, 510, 512]
    assert [int(p.read[1].indices[0, 0]) for p in found[9:11]] == [1530, 1536]


def test_images_may_keep_their_sizes_which_windows_cut_and_buckets_round():
    protocol = ONCE._replace(base_size=0, window=(64, 64), windows="overlapping", bucket=16)
    assert [p.size for p in passes((41, 60), protocol, True)] == [(48, 64)]
    assert {p.size for p in passes((70, 41), protocol, True)} == {(64, 48)}
    exact = protocol._replace(bucket=1)
    assert [p.size for p in passes((41, 60), exact, True)] == [(41, 60)]
    assert [p.size for p in passes((41, 60), exact._replace(windows="whole", side="short"), True)] == [(41, 60)]


@pytest.mark.parametrize("windows", ["cityscapes", "generic"])
def test_an_image_thin_as_a_line_is_tested(windows):
    protocol = ONCE._replace(base_size=100, window=(64, 64), windows=windows)
    assert sum(p.write[0].weights.sum() for p in passes((1, 1000), protocol, True)) > 0


def test_a_window_filled_up_with_black_is_not_the_whole_image():
    protocol = ONCE._replace(base_size=64, window=(100, 100), windows="generic")
    assert not any(p.whole for p in passes((64, 64), protocol, True))
    assert all(p.whole for p in passes((64, 64), protocol._replace(windows="cityscapes"), True))


def test_whole_images_may_be_scaled_by_their_short_side_and_buckets_round_the_other():
    protocol = ONCE._replace(base_size=48, scales=(0.5, 1.0, 2.0), windows="whole", side="short", bucket=16)
    assert [p.size for p in passes((60, 103), protocol, True)] == [(24, 48), (48, 80), (96, 160)]
    assert [p.size for p in passes((103, 60), protocol, True)] == [(48, 24), (80, 48), (160, 96)]
    exact = passes((60, 103), protocol._replace(bucket=1), True)
    assert [p.size for p in exact] == [(24, 41), (48, 82), (96, 165)]
    assert all(p.whole for p in exact)


def test_images_may_become_squares_whatever_their_shape():
    protocol = ONCE._replace(base_size=64, window=(64, 64), windows="generic", keep_shape=False)
    (only,) = passes((30, 90), protocol, True)
    assert only.size == (64, 64)
    assert only.whole
    assert (only.read[0].weights.sum(0) == 1).all()  # no black


def test_only_images_of_the_same_passes_run_together():
    protocol = SMALL._replace(bucket=16)
    assert shapes((40, 90), protocol, True) == shapes((41, 91), protocol, True)
    assert shapes((40, 90), protocol, True) != shapes((90, 40), protocol, True)


def test_the_config_describes_the_protocol():
    settings = cityscapes.get_config().eval
    settings.scales, settings.flip = (0.5, 1), True
    protocol = Protocol.from_config(settings)
    assert protocol == CITYSCAPES._replace(scales=(0.5, 1.0))
    assert (str(protocol), protocol.suffix) == ("scales 0.5 1, flip", "_0.5-1_flip")
    assert Protocol.from_config(cityscapes.get_config().eval).suffix == ""
