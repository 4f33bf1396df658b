import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import io

from ovenet_jax.segfix.files import Offsets, read_ground_truth, read_offsets, write_ground_truth, write_offsets
from ovenet_jax.segfix.ground_truth import GroundTruth

SIZE = (20, 31)
RNG = np.random.default_rng(0)
BOUNDARY = Offsets(RNG.integers(-128, 128, (*SIZE, 2)))
SEEDS = Offsets(RNG.integers(-(2**15), 2**15, (*SIZE, 2)), RNG.random(SIZE, np.float32))


@pytest.mark.parametrize("suffix", [".png", ".mat"])
def test_boundary_offsets_come_back(tmp_path, suffix):
    write_offsets(tmp_path / f"sub/a{suffix}", BOUNDARY)
    read = read_offsets(tmp_path / f"sub/a{suffix}", SIZE)
    assert_array_equal(read.offset, BOUNDARY.offset)
    assert read.confidence is None
    assert [file.name for file in (tmp_path / "sub").iterdir()] == [f"a{suffix}"]


def test_seed_offsets_come_back_with_their_confidence(tmp_path):
    write_offsets(tmp_path / "a.png", SEEDS)
    read = read_offsets(tmp_path / "a.png", SIZE)
    assert_array_equal(read.offset, SEEDS.offset)
    assert np.abs(read.confidence - SEEDS.confidence).max() < 0.5 / 255 + 1e-6
    assert_array_equal(read.confidence > 0.5, SEEDS.confidence > 0.5)


def test_other_tools_read_the_files(tmp_path):
    truth = GroundTruth(*RNG.integers(0, 181, (2, *SIZE)).astype(np.uint8))
    write_ground_truth(tmp_path / "truth.png", truth)
    write_ground_truth(tmp_path / "truth.mat", truth)
    write_offsets(tmp_path / "offsets.png", BOUNDARY)
    write_offsets(tmp_path / "offsets.mat", BOUNDARY)
    assert_array_equal(np.split(cv2.imread(str(tmp_path / "truth.png"), -1), 2), truth)
    rows, columns = np.split(cv2.imread(str(tmp_path / "offsets.png"), -1).astype(int) - 128, 2, axis=1)
    assert_array_equal(np.stack([rows, columns], -1), BOUNDARY.offset)
    assert_array_equal(io.loadmat(tmp_path / "offsets.mat")["mat"], BOUNDARY.offset)
    fields = io.loadmat(tmp_path / "truth.mat")
    assert_array_equal(fields["depth"], truth.distance)
    assert_array_equal(fields["dir_deg"], truth.direction)
    assert fields["deg_reduce"] == 2
    assert_array_equal(read_ground_truth(tmp_path / "truth.png"), truth)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_mat_files_of_any_type_are_read(tmp_path, kind, compressed):
    offset = BOUNDARY.offset.astype(kind)
    fields = {"other": np.ones(9), "mat": offset, "last": np.array("text")}
    io.savemat(tmp_path / "a.mat", fields, do_compression=compressed)
    read = read_offsets(tmp_path / "a.mat", SIZE).offset
    assert_array_equal(read, offset)
    assert read.dtype.kind == "i"


def test_fractions_are_kept(tmp_path):
    io.savemat(tmp_path / "a.mat", {"mat": BOUNDARY.offset / 4})
    assert_array_equal(read_offsets(tmp_path / "a.mat", SIZE).offset, np.float32(BOUNDARY.offset / 4))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": np.ones((3, 3))}, "no field 'mat'; it has depth"),
        ({"mat": np.array([1, "a"], object)}, "holds no real numbers"),
        ({"mat": np.array("text")}, "holds no real numbers"),
        ({"mat": np.ones((2, 3, 2)) * 1j}, "holds no real numbers"),
        ({"mat": {"a": 1}}, "holds no real numbers"),
        ({"mat": np.ones((2, 3))}, r"has the size \[2, 3\]; expected \[2, 3, 2\]"),
        ({"mat": np.ones((3, 2, 2))}, r"has the size \[3, 2, 2\]; expected \[2, 3, 2\]"),
        ({"mat": np.full((2, 3, 2), np.nan)}, "values beyond 32768 pixels"),
        ({"mat": np.full((2, 3, 2), 1e30)}, "values beyond 32768 pixels"),
    ],
)
def test_mat_files_without_offsets_are_refused(tmp_path, fields, message):
    io.savemat(tmp_path / "a.mat", fields)
    with pytest.raises(ValueError, match=f"a.mat: .*{message}"):
        read_offsets(tmp_path / "a.mat", (2, 3))


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_mat_files_are_refused_and_never_end_the_process(tmp_path, compressed):
    file = tmp_path / "a.mat"
    io.savemat(file, {"mat": BOUNDARY.offset.astype(np.int8)}, do_compression=compressed)
    sound = file.read_bytes()
    for end in (0, 100, 130, 150, len(sound) // 2, len(sound) - 1):
        file.write_bytes(sound[:end])
        with pytest.raises(ValueError, match="MATLAB file|no field 'mat'"):
            read_offsets(file, SIZE)
    refused = 0
    for at in range(124, 192):
        for value in (14, 121, 255):
            file.write_bytes(sound[:at] + bytes([value]) + sound[at + 1 :])
            try:
                read_offsets(file, SIZE)
            except ValueError:
                refused += 1
    assert refused > 80


@pytest.mark.parametrize(("size", "message"), [((2, 3), "another length"), ((2, 4), "has the size")])
def test_no_more_is_unpacked_than_the_array_has(tmp_path, size, message):
    """A file of a small array goes on for 64 MB, or has not even the expected size."""
    file = tmp_path / "a.mat"
    io.savemat(file, {"mat": np.zeros((2, 3, 2), np.int8)})
    header, content = file.read_bytes()[:128], file.read_bytes()[128:]
    bomb = zlib.compressobj()
    packed = bomb.compress(content) + b"".join(bomb.compress(bytes(2**20)) for _ in range(64)) + bomb.flush()
    file.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        read_offsets(file, size)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * len(packed) < 2**20


def test_a_huge_array_is_refused_before_it_is_unpacked(tmp_path):
    file = tmp_path / "a.mat"
    io.savemat(file, {"mat": np.zeros((2**12, 2**11, 2), np.int8)}, do_compression=True)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"has the size \[4096, 2048, 2\]; expected \[20, 31, 2\]"):
        read_offsets(file, SIZE)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**18


def test_pngs_without_offsets_are_refused(tmp_path):
    file = tmp_path / "a.png"
    for picture, message in (
        (np.zeros((4, 7), np.uint8), "7x4 pixels; expected 2 maps of 3x4, side by side"),
        (np.zeros((4, 6), np.uint16), "6x4 pixels; expected 3 maps of 3x4"),
        (np.zeros((6, 4), np.uint8), "4x6 pixels; expected 2 maps of 3x4"),
        (np.zeros((4, 6, 3), np.uint8), "one 8-bit channel"),
        (np.zeros((4, 9, 3), np.uint16), "expected one 16-bit channel, got 3 of uint16"),
    ):
        cv2.imwrite(str(file), picture)
        with pytest.raises(ValueError, match=f"a.png: .*{message}"):
            read_offsets(file, (4, 3))
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="a.png: does not decode"):
        read_offsets(file, (4, 3))


def test_a_png_that_is_no_ground_truth_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((5, 6), np.uint8))
    with pytest.raises(ValueError, match="a.png: 5 rows, which are not 2 maps of one size"):
        read_ground_truth(tmp_path / "a.png")


def test_what_a_form_cannot_hold_is_not_written(tmp_path):
    far = Offsets(np.full((2, 3, 2), 128))
    for suffix in (".png", ".mat"):
        with pytest.raises(ValueError, match="from 128 to 128 pixels; this form holds -128 to 127"):
            write_offsets(tmp_path / f"a{suffix}", far)
    with pytest.raises(ValueError, match="holds no confidence"):
        write_offsets(tmp_path / "a.mat", SEEDS)
    assert not any(tmp_path.iterdir())
