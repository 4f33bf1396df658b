import re
import subprocess
import sys

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import io, ndimage

from ovenet_jax.data.image_files import encoded, write_picture
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.models.sampling import sample, seed_positions
from ovenet_jax.segfix import refine
from ovenet_jax.segfix.files import Offsets, write_offsets
from ovenet_jax.segfix.shift import refined_ids, refined_mask, refined_numbers, seed_offsets, shift_by, shift_of
from tests.trees import CLASSES

SIZE = (18, 26)
RNG = np.random.default_rng(0)
LABEL = np.kron(RNG.integers(0, 19, (3, 4)), np.ones((6, 7)))[:, :26].astype(np.uint8)
IDS = CITYSCAPES.label_ids()
OFFSET = RNG.integers(-2, 3, (*SIZE, 2)) * (RNG.random((*SIZE, 1)) < 0.3)


def sampled(values: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Bilinear, clamped at the border, by SciPy."""
    position = np.indices(values.shape) + np.moveaxis(offset, -1, 0)
    return ndimage.map_coordinates(values.astype(float), position, order=1, mode="nearest")


# ---- shifts ----


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("scale", [1, 2, 7])
def test_whole_offsets_read_one_pixel_each(scale, order):
    offset = np.asarray(OFFSET, np.int8, order=order)
    refined = refined_numbers(LABEL, shift_by(offset, scale))
    assert_array_equal(refined, sampled(LABEL, scale * OFFSET))
    assert (refined != LABEL).any()


@pytest.mark.parametrize("scale", [1, 2])
def test_both_ways_of_reading_agree(scale):
    between = shift_by(OFFSET.astype(np.float32), scale)
    assert_array_equal(refined_numbers(LABEL, between), refined_numbers(LABEL, shift_by(OFFSET, scale)))
    mask = LABEL > 9
    assert_array_equal(refined_mask(mask, between), refined_mask(mask, shift_by(OFFSET, scale)))


def test_between_pixels_numbers_are_averaged_and_rounded():
    offset = RNG.uniform(-3, 3, (*SIZE, 2))
    values = sampled(LABEL, offset.astype(np.float32))
    assert_array_equal(refined_numbers(LABEL, shift_by(offset)), np.rint(values))
    assert_array_equal(refined_mask(LABEL > 9, shift_by(offset)), sampled(LABEL > 9, np.float32(offset)) > 0.5)
    assert_array_equal(refined_numbers(LABEL, shift_by(OFFSET, 0.5)), np.rint(sampled(LABEL, OFFSET / 2)))


@pytest.mark.parametrize("align_corners", [True, False])
def test_seed_offsets_lead_to_the_pixels_that_the_network_samples(align_corners):
    offset = RNG.uniform(-0.4, 0.4, (1, *SIZE, 2)).astype(np.float32)
    seeds = sample(
        jnp.asarray(LABEL, jnp.float32)[None, ..., None],
        seed_positions(jnp.asarray(offset)),
        align_corners=align_corners,
        order=0,
    )
    refined = refined_numbers(LABEL, shift_by(seed_offsets(offset[0], align_corners)))
    assert_array_equal(refined, seeds[0, ..., 0])


def test_seeds_in_pixels():
    """An offset of 2 is a whole side; what lies beyond the map is at its edge, also where it is one pixel wide."""
    offset = np.zeros((3, 5, 2), np.float32)
    offset[1, 1], offset[0, 3], offset[0, 4] = (0.5, -1), (0.2, 0.2), (1, 1)
    moved = seed_offsets(offset, whole=False)
    assert moved[1, 1].tolist() == [-1, 1]
    assert moved[0, 3].tolist() == pytest.approx([0.2, 0.4])
    assert moved[0, 4].tolist() == [1, 0]
    assert not moved[2].any()
    assert_array_equal(seed_offsets(offset[:, 1:2])[..., 1], np.zeros((3, 1)))


def test_seeds_count_where_they_are_sure():
    confidence = RNG.random(SIZE)
    refined = refined_numbers(LABEL, shift_of(Offsets(OFFSET, confidence), 2, 0.7))
    assert_array_equal(refined, np.where(confidence > 0.7, sampled(LABEL, OFFSET), LABEL))


# ---- the command ----


@pytest.fixture
def folder(tmp_path):
    """Label maps a and b in Cityscapes' label ids, a's offsets as .mat and b's as .png."""
    (tmp_path / "labels/sub").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "labels/a_leftImg8bit.png"), IDS[LABEL])
    cv2.imwrite(str(tmp_path / "labels/sub/b_leftImg8bit.png"), IDS[LABEL[::-1]])
    write_offsets(tmp_path / "offsets/a_leftImg8bit.mat", Offsets(OFFSET))
    write_offsets(tmp_path / "offsets/b.png", Offsets(OFFSET))
    return tmp_path


def run(folder, *arguments):
    folders = [f"--labels={folder}/labels", f"--offsets={folder}/offsets", f"--out={folder}/out"]
    return refine.main([*folders, "--workers=2", *arguments])


def written(folder, name):
    return cv2.imread(str(folder / f"out/{name}.png"), cv2.IMREAD_UNCHANGED)


def test_label_maps_are_refined_by_the_offsets_of_their_name(folder, capsys):
    assert run(folder, "--dataset=cityscapes") == 0
    assert "Written: 2 of 2 label maps" in capsys.readouterr().out
    for name, label in (("a_leftImg8bit", LABEL), ("sub/b_leftImg8bit", LABEL[::-1])):
        assert_array_equal(written(folder, name), IDS[sampled(label, 2 * OFFSET).astype(int)])
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("arguments", [["--dataset=cityscapes", "--ids=train_ids"], []])
def test_maps_of_train_ids_or_of_unknown_numbers_stay_such(folder, arguments):
    (folder / "labels/sub/b_leftImg8bit.png").unlink()
    cv2.imwrite(str(folder / "labels/a_leftImg8bit.png"), LABEL)
    assert run(folder, "--scale=1", *arguments) == 0
    assert_array_equal(written(folder, "a_leftImg8bit"), sampled(LABEL, OFFSET))


@pytest.mark.parametrize("scale", ["2", "0.5"])
def test_void_and_what_does_not_move_keeps_its_id(folder, scale):
    """Cityscapes has many ids of no class: static (4) stays static, and no id comes out that was not there."""
    (folder / "labels/sub/b_leftImg8bit.png").unlink()
    ids = IDS[LABEL]
    ids[:, :9], ids[:6, 9:12] = 4, 1
    cv2.imwrite(str(folder / "labels/a_leftImg8bit.png"), ids)
    assert run(folder, "--dataset=cityscapes", f"--scale={scale}") == 0
    refined = written(folder, "a_leftImg8bit")
    assert set(np.unique(refined)) <= set(np.unique(ids))
    still = (OFFSET == 0).all(-1)
    assert_array_equal(refined[still], ids[still])
    if scale == "2":
        y, x = np.clip(np.indices(SIZE) + 2 * np.moveaxis(OFFSET, -1, 0), 0, np.reshape(SIZE, (2, 1, 1)) - 1)
        numbers = CITYSCAPES.train_ids()
        assert_array_equal(refined, np.where(numbers[ids[y, x]] == numbers[ids], ids, ids[y, x]))


def test_a_class_of_several_ids_keeps_them(folder):
    (folder / "labels/sub/b_leftImg8bit.png").unlink()
    file = folder / "classes.yaml"
    file.write_text(
        "classes: [{name: a, color: [0, 0, 0], ids: [1, 2]}, {name: b, color: [0, 0, 9], ids: [7]}]\nignored: [9]"
    )
    ids = np.uint8((2, 7, 9))[LABEL % 3]
    cv2.imwrite(str(folder / "labels/a_leftImg8bit.png"), ids)
    assert run(folder, f"--dataset={file}") == 0
    refined = written(folder, "a_leftImg8bit")
    assert (refined != ids).any()
    assert set(np.unique(refined)) == {2, 7, 9}


def test_no_label_comes_out_that_is_none(folder):
    """Numbers between pixels that no pixel has, as between a class and 255, no class."""
    (folder / "labels/sub/b_leftImg8bit.png").unlink()
    label = np.where(LABEL > 9, 255, LABEL).astype(np.uint8)
    cv2.imwrite(str(folder / "labels/a_leftImg8bit.png"), label)
    assert run(folder, "--dataset=cityscapes", "--ids=train_ids", "--scale=0.5") == 0
    numbers = np.rint(sampled(label, OFFSET / 2))
    assert ((numbers > 18) & (numbers < 255)).any()
    assert_array_equal(written(folder, "a_leftImg8bit"), np.where(np.isin(numbers, np.unique(label)), numbers, label))


def test_seeds_are_recognised_and_not_scaled(folder):
    confidence = RNG.random(SIZE, np.float32)
    write_offsets(folder / "offsets/b.png", Offsets(OFFSET, confidence))
    assert run(folder, "--dataset=cityscapes", "--threshold=0.25") == 0
    expected = np.where(np.rint(confidence * 255) / 255 > 0.25, sampled(LABEL[::-1], OFFSET), LABEL[::-1])
    assert_array_equal(written(folder, "sub/b_leftImg8bit"), IDS[expected.astype(int)])


def test_outer_edges_mix_labels(folder):
    assert run(folder, "--dataset=cityscapes", "--outer_edges") == 0
    inside = IDS[sampled(LABEL, 2 * OFFSET).astype(int)]
    assert (written(folder, "a_leftImg8bit") != inside).mean() > 0.05


def test_with_truth_it_tells_scores_before_and_after(folder, capsys):
    true = sampled(LABEL, 2 * OFFSET).astype(np.uint8)
    city = folder / "gtFine/city"
    city.mkdir(parents=True)
    cv2.imwrite(str(city / "a_gtFine_labelIds.png"), IDS[true])
    cv2.imwrite(str(city / "a_gtFine_color.png"), np.zeros((*SIZE, 3), np.uint8))
    (folder / "labels/sub/b_leftImg8bit.png").unlink()
    assert run(folder, "--dataset=cityscapes", f"--truth={folder}/gtFine") == 0
    rows = {line[:26].strip(): line[26:].split() for line in capsys.readouterr().out.splitlines()}
    before = np.mean([(LABEL[true == k] == k).sum() / ((k == LABEL) | (true == k)).sum() for k in np.unique(true)])
    assert rows["mean of those that occur"][:2] == [f"{100 * before:.2f}", "100.00"]
    assert rows["mean of those that occur"][3::2] == ["100.00"] * 3
    absent = CITYSCAPES.names[next(k for k in range(19) if k not in true)]
    assert rows[absent] == ["-"] * 8


def test_own_files_are_matched_without_the_ends_of_their_names(tmp_path, capsys):
    label = np.where(LABEL > 9, 26, 7).astype(np.uint8)
    for name in ("labels/a_img", "truth/a_gt"):
        write_picture(tmp_path / f"{name}.png", label)
    write_offsets(tmp_path / "offsets/a_img.png", Offsets(np.zeros((*SIZE, 2), int)))
    file = tmp_path / "classes.yaml"
    file.write_text(f"{CLASSES}image_end: _img\nlabel_end: _gt\n")
    assert run(tmp_path, f"--dataset={file}", f"--truth={tmp_path}/truth") == 0
    assert re.search("car( +100.00){8}", capsys.readouterr().out)


@pytest.mark.parametrize("truth", [None, IDS[LABEL[1:]], IDS[LABEL] + 100])
def test_what_has_no_sound_truth_is_refined_and_not_scored(folder, capsys, truth):
    (folder / "truth").mkdir()
    cv2.imwrite(str(folder / "truth/a_gtFine_labelIds.png"), IDS[LABEL])
    if truth is not None:
        cv2.imwrite(str(folder / "truth/b_gtFine_labelIds.png"), truth)
    assert run(folder, "--dataset=cityscapes", f"--truth={folder}/truth") == 1
    told = capsys.readouterr()
    assert "Written: 2 of 2 label maps" in told.out
    assert_array_equal(written(folder, "sub/b_leftImg8bit"), IDS[sampled(LABEL[::-1], 2 * OFFSET).astype(int)])
    assert re.search("mean of those that occur  +100.00", told.out)  # of a alone
    assert told.err.count("; refined, but not scored") == 1
    assert "b_gtFine_labelIds.png: " in told.err or "sub/b_leftImg8bit.png: there is no true label" in told.err


def test_what_is_wrong_is_named_and_the_rest_is_written(folder, capsys):
    for name, ids in (("lonely", IDS[LABEL]), ("unknown", IDS[LABEL] + 100), ("large", IDS[LABEL[1:]])):
        cv2.imwrite(str(folder / f"labels/{name}.png"), ids)
        if name != "lonely":
            write_offsets(folder / f"offsets/{name}.mat", Offsets(OFFSET))
    io.savemat(folder / "offsets/b.mat", {"depth": np.ones((2, 2))})
    (folder / "offsets/b.png").unlink()
    (folder / "labels/broken.png").write_bytes(b"nothing")
    assert run(folder, "--dataset=cityscapes") == 1
    told = capsys.readouterr()
    assert "Written: 1 of 6 label maps" in told.out
    assert "5 faults, left out" in told.err
    for sentence in (
        "labels/lonely.png: there is no offset file lonely",
        "labels/unknown.png: label values that are not in the class table: ",
        "offsets/large.mat: its field 'mat' has the size [18, 26, 2]; expected [17, 26, 2]",
        "offsets/b.mat: no field 'mat'; it has depth",
        "labels/broken.png: does not decode as an image",
    ):
        assert sentence in told.err
    assert [file.name for file in (folder / "out").iterdir()] == ["a_leftImg8bit.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--truth=labels"], "--truth needs to know the classes; name the data set by --dataset"),
        (["--truth=labels", "--instances"], "needs Cityscapes' classes; name them by --dataset=cityscapes"),
        (["--offsets=nowhere"], "nowhere is not a folder"),
    ],
)
def test_a_mistake_is_told_before_any_work(folder, capsys, arguments, message):
    assert run(folder, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("argument", ["--scale=nan", "--scale=1e300", "--threshold=2", "--workers=0", "--scalee=2"])
def test_impossible_arguments_are_refused(folder, argument, capsys):
    assert run(folder, argument) == 2
    assert capsys.readouterr().err.startswith("Error: ")


def test_results_are_never_overwritten_and_a_killed_run_leaves_no_trace(folder, capsys):
    (folder / ".out.incomplete").mkdir()
    (folder / ".out.incomplete/old.png").touch()
    assert run(folder, "--dataset=cityscapes") == 0
    assert not (folder / "out/old.png").exists()
    assert run(folder, "--dataset=cityscapes") == 2
    assert "not overwritten" in capsys.readouterr().err


def test_two_files_of_one_sample_are_refused(folder, capsys):
    write_offsets(folder / "offsets/b.mat", Offsets(OFFSET))
    assert run(folder) == 2
    assert "holds both b.mat and b.png, which are one sample" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "offsets", "refined", "counts"),
    [
        (["x"], ["a/x", "b/x"], [], "2 of them, 1 to refine"),
        (["a/x", "b/x"], ["x"], [], "1 of them, 2 to refine"),
        (["a/x", "b/x"], ["a/x", "x"], ["a/x"], "1 of them, 2 to refine"),
    ],
)
def test_files_of_one_name_in_several_folders_are_not_mixed_up(tmp_path, capsys, labels, offsets, refined, counts):
    for name in labels:
        write_picture(tmp_path / f"labels/{name}.png", LABEL)
    for name in offsets:
        write_offsets(tmp_path / f"offsets/{name}.mat", Offsets(OFFSET))
    assert run(tmp_path) == 1
    told = capsys.readouterr()
    assert f"its offset file is ambiguous (named x: {counts})" in told.err
    found = [file.relative_to(tmp_path / "out").as_posix() for file in tmp_path.glob("out/*/*")]
    assert found == [f"{name}.png" for name in refined]


def test_suffixes_may_be_in_capital_letters(folder):
    (folder / "labels/a_leftImg8bit.png").rename(folder / "labels/a_leftImg8bit.PNG")
    (folder / "offsets/a_leftImg8bit.mat").rename(folder / "offsets/a_leftImg8bit.MAT")
    assert run(folder, "--dataset=cityscapes") == 0
    refined = cv2.imread(str(folder / "out/a_leftImg8bit.PNG"), cv2.IMREAD_UNCHANGED)
    assert_array_equal(refined, IDS[sampled(LABEL, 2 * OFFSET).astype(int)])


# ---- instances ----


@pytest.fixture
def lists(tmp_path):
    """Three instances in one image, their masks PNGs of 16 bits by any name; none in the other."""
    masks = {"masks/0.png": LABEL > 12, "masks/1.jpg": LABEL < 5, "masks/2": LABEL > 17}
    (tmp_path / "labels/masks").mkdir(parents=True)
    for path, mask in masks.items():
        (tmp_path / "labels" / path).write_bytes(encoded(mask.astype(np.uint16)))
    lines = "".join(f"{path} {ids} 0.9\n" for path, ids in zip(masks, (24, 26, 26), strict=True))
    (tmp_path / "labels/x_000000_000001_leftImg8bit_pred.txt").write_text(lines)
    (tmp_path / "labels/x_000000_000002_leftImg8bit_pred.txt").write_text("")
    write_offsets(tmp_path / "offsets/x_000000_000001_leftImg8bit.mat", Offsets(OFFSET))
    return tmp_path, masks


def test_instances_are_refined_and_empty_lists_kept(lists):
    folder, masks = lists
    assert run(folder, "--instances") == 0
    for path, mask in masks.items():
        refined = cv2.imread(str(folder / "out" / path), cv2.IMREAD_UNCHANGED)
        assert_array_equal(refined, np.where(sampled(mask, OFFSET) > 0.5, 255, 0))
    for file in (folder / "labels").glob("*.txt"):
        assert (folder / "out" / file.name).read_bytes() == file.read_bytes()


def test_instances_are_scored_by_cityscapes_own_evaluation(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    true = np.full((40, 60), 7, np.uint16)
    true[5:25, 10:30] = 26001
    (tmp_path / "truth/x").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    cv2.imwrite("truth/x/x_000000_000001_gtFine_instanceIds.png", true)
    cv2.imwrite("truth/x/x_000000_000001_gtFine_labelIds.png", np.zeros((4, 4), np.uint8))
    cv2.imwrite("labels/0.png", np.roll(255 * (true == 26001), 4, axis=1).astype(np.uint8))
    (tmp_path / "labels/x_000000_000001_pred.txt").write_text("0.png 26 0.9\n")
    write_offsets(tmp_path / "offsets/x_000000_000001.png", Offsets(np.full((40, 60, 2), (0, 4))))
    assert run(tmp_path, "--instances", "--dataset=cityscapes", "--truth=truth") == 0
    told = capsys.readouterr().out
    assert "AP before: 40.00 %, at 50 % overlap 100.00 %" in told  # of overlaps from 50 to 65 %
    assert "AP after: 100.00 %, at 50 % overlap 100.00 %" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "offsets", "out", "truth"]


@pytest.fixture
def scored(tmp_path):
    """Two images, each with a car that is predicted as it is."""
    true = np.full((40, 60), 7, np.uint16)
    true[5:25, 10:30] = 26001
    for i in (1, 2):
        name = f"x_000000_00000{i}"
        write_picture(tmp_path / f"truth/{name}_gtFine_instanceIds.png", true)
        write_picture(tmp_path / f"labels/{i}.png", np.uint8(true == 26001))
        (tmp_path / f"labels/{name}_pred.txt").write_text(f"{i}.png 26 0.9\n")
        write_offsets(tmp_path / f"offsets/{name}.png", Offsets(np.zeros((40, 60, 2), int)))
    return tmp_path, true


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (lambda _: None, "_pred.txt: there is no true instance map x_000000_000002"),
        (lambda true: true[1:], "instanceIds.png: for 60x39 pixels, expected 60x40"),
        (lambda true: true + np.uint16(40), "instanceIds.png: 47 are not label ids of Cityscapes"),
        (lambda true: np.stack([true] * 3, -1), "instanceIds.png: expected one 16-bit channel"),
        (lambda _: b"nothing", "instanceIds.png: does not decode as an image"),
    ],
)
def test_instances_without_sound_truth_are_refined_and_not_scored(scored, capsys, truth, message):
    folder, true = scored
    file, found = folder / "truth/x_000000_000002_gtFine_instanceIds.png", truth(true)
    if isinstance(found, np.ndarray):
        cv2.imwrite(str(file), found)
    elif found:
        file.write_bytes(found)
    else:
        file.unlink()
    assert run(folder, "--instances", "--dataset=cityscapes", f"--truth={folder}/truth") == 1
    told = capsys.readouterr()
    assert "Written: 2 of 2 lists" in told.out
    assert "AP after: 100.00 %" in told.out
    assert message in told.err
    assert "1 fault" in told.err


def test_a_list_of_ids_that_cityscapes_has_not_is_refined_and_not_scored(scored, capsys):
    folder, _ = scored
    (folder / "labels/x_000000_000002_pred.txt").write_text("2.png 77 0.9\n")
    assert run(folder, "--instances", "--dataset=cityscapes", f"--truth={folder}/truth") == 1
    told = capsys.readouterr()
    assert "Written: 2 of 2 lists" in told.out
    assert "AP after: 100.00 %" in told.out
    assert "000002_pred.txt: 77 are not label ids of Cityscapes; refined, but not scored" in told.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../0.png 24 0.9", "line 1: expected a path below the list's folder"),
        ("/0.png 24 0.9", "line 1: expected a path below"),
        ("masks/0.png 24", "line 1: expected a path below"),
        ("masks/0.png 24  0.9", "line 1: expected .* with one space between"),
        ("masks/0.png 24 abc", "line 1: expected a path below"),
        ("masks/0.png 24 nan", "line 1: expected a path below"),
        ("masks/0.png 2.5 0.9", "line 1: expected a path below"),
        ("masks/0.png car 0.9", "line 1: expected a path below"),
        ("masks/3.png 24 0.9", "No such file"),
        ("x_000000_000001_leftImg8bit_pred.txt 24 0.9", "does not decode"),
    ],
)
def test_odd_lists_are_named_and_left_out(lists, capsys, line, message):
    folder, _ = lists
    (folder / "labels/x_000000_000001_leftImg8bit_pred.txt").write_text(line)
    assert run(folder, "--instances") == 1
    told = capsys.readouterr()
    assert "Written: 1 of 2 lists" in told.out
    assert re.search(message, told.err)


def test_neither_jax_nor_tensorflow_is_imported():
    code = (
        "import sys, ovenet_jax.segfix.prepare, ovenet_jax.segfix.refine;"
        "sys.exit(bool({'jax', 'flax', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_between_void_and_a_class_a_pixel_keeps_its_id():
    """Though the mean of both train ids, (5 + 255) / 2, is another class that the map has."""
    ids = np.uint8([[6, 6, 0, 0, 131]])
    numbers = np.full(256, 255, np.uint8)
    numbers[[6, 131]] = 5, 130
    offset = np.zeros((1, 5, 2), np.float32)
    offset[0, 1, 1] = 0.5  # half-way into void
    np.testing.assert_array_equal(refined_ids(ids, numbers, shift_by(offset)), ids)
