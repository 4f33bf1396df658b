import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from scipy import io

from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.segfix import ground_truth, prepare
from ovenet_jax.segfix.files import read_ground_truth
from ovenet_jax.segfix.label_maps import read_instance_ids
from tests.trees import CLASSES, write_cityscapes


def two_classes(first: int, second: int) -> np.ndarray:
    return np.repeat(np.uint8([[first] * 20 + [second] * 22]), 16, axis=0)


def write(folder, **pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / f"{name}.png"), picture)


def run(tmp_path, *arguments):
    return prepare.main([f"--labels={tmp_path}/labels", f"--out={tmp_path}/out", "--workers=2", *arguments])


@pytest.mark.parametrize("data_set", ["cityscapes", "classes.yaml", None])
def test_a_folder_of_labels_in_any_ids(tmp_path, data_set):
    ids = {"cityscapes": (7, 33), "classes.yaml": (8, 26), None: (0, 1)}[data_set]
    write(tmp_path / "labels/sub", a=two_classes(*ids), b=two_classes(*ids[::-1]))
    (tmp_path / "classes.yaml").write_text(CLASSES)
    named = f"{tmp_path}/classes.yaml" if data_set == "classes.yaml" else data_set
    assert run(tmp_path, *([f"--dataset={named}"] if named else [])) == 0
    for name in ("a", "b"):
        read = read_ground_truth(tmp_path / f"out/sub/{name}.png")
        assert_array_equal(read, ground_truth.of_classes(two_classes(0, 1)))
    assert not list(tmp_path.glob(".*"))


def test_of_a_data_sets_folder_the_labels_alone_are_taken_also_as_mat(tmp_path):
    write_cityscapes(tmp_path)
    (tmp_path / "source/gtFine/val").rename(tmp_path / "labels")
    assert run(tmp_path, "--dataset=cityscapes", "--mat") == 0
    files = sorted(file.relative_to(tmp_path / "out").as_posix() for file in tmp_path.glob("out/*/*"))
    assert files == [f"{c}/{c}_000000_000019_gtFine_labelIds.mat" for c in ("frankfurt", "lindau")]
    label = cv2.imread(str(tmp_path / "labels/lindau/lindau_000000_000019_gtFine_labelIds.png"), -1)
    expected = ground_truth.of_classes(CITYSCAPES.train_ids()[label], "euclidean")
    assert_array_equal(io.loadmat(tmp_path / "out" / files[1])["depth"], expected.distance)


def test_instances_with_another_metric_and_filter(tmp_path):
    ids = two_classes(7, 0).astype(np.uint16)
    ids[4:12, 4:12] = 26001
    write(tmp_path / "labels", a=ids)
    assert run(tmp_path, "--instances", "--metric=taxicab", "--filter_size=7") == 0
    expected = ground_truth.of_instances(ids, sum(CITYSCAPES.ids, ()), "taxicab", 7)
    assert_array_equal(read_ground_truth(tmp_path / "out/a.png"), expected)


def test_an_instance_map_of_one_bit_holds_the_ids_0_and_1(tmp_path):
    ids = two_classes(0, 1)
    Image.fromarray(ids > 0).save(tmp_path / "a.png")
    assert_array_equal(read_instance_ids(tmp_path / "a.png"), ids)


def test_what_is_wrong_is_named_and_the_rest_is_written(tmp_path, capsys):
    write(tmp_path / "labels", good=two_classes(7, 8), unknown=two_classes(7, 77), color=np.zeros((9, 9, 3)))
    assert run(tmp_path, "--dataset=cityscapes") == 1
    told = capsys.readouterr()
    assert "ground truth of 1 of 3 label maps" in told.out
    assert "2 faults, left out" in told.err
    assert "unknown.png: label values that are not in the class table: 77" in told.err
    assert "color.png: 3 channels" in told.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["good.png"]


def test_nothing_is_overwritten(tmp_path, capsys):
    write(tmp_path / "labels", a=two_classes(0, 1))
    (tmp_path / "out").mkdir()
    assert run(tmp_path) == 2
    assert "out exists already and is not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=cityscope"], "--dataset=cityscope is unknown; choose one of camvid, cityscapes"),
        (["--dataset=nowhere/classes.yaml"], "nowhere/classes.yaml: cannot be read"),
    ],
)
def test_a_wrong_argument_is_answered_with_what_would_be_right(tmp_path, capsys, arguments, message):
    write(tmp_path / "labels", a=two_classes(0, 1))
    assert run(tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_folders_without_labels_are_refused(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "labels is not a folder" in capsys.readouterr().err
    (tmp_path / "labels").mkdir()
    assert run(tmp_path) == 2
    assert "labels has no file .png" in capsys.readouterr().err
