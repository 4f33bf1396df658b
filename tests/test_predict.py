"""Label maps and overlays of folders and test splits, and what Cityscapes' own evaluator says of them."""

import json

import cv2
import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official  # noqa: N813
from PIL import Image

from configs import acdc, ade20k, cityscapes
from ovenet_jax import files
from ovenet_jax.data.image_files import CMYK_IMAGE, DEEP_IMAGE
from ovenet_jax.data.image_folder import ImageFolder
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import evaluate
from ovenet_jax.predict import check_label_map, predict
from tests import trees
from tests.untrained import save_untrained, tiny


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """(config, folder with an untrained network) for a Cityscapes in whose val split no bus and no train stands."""
    folder = tmp_path_factory.mktemp("cityscapes")
    config = tiny(cityscapes.get_config(), trees.write_cityscapes(folder))
    config.seed = 3
    for path in (folder / "source" / "gtFine" / "val").glob("*/*labelIds.png"):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(np.isin(label, (28, 31)), 0, label))
    return config, save_untrained(config, folder / "run")


@pytest.fixture
def pictures(tmp_path):
    """A folder of three images of different sizes, one in a subfolder."""
    folder = tmp_path / "pictures"
    for name, size in (("a.jpg", (40, 60)), ("b.png", (60, 40)), ("night/a.png", (33, 47))):
        trees.write_image(folder / name, trees.image(size))
    return folder


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_our_numbers_are_the_official_evaluators(city):
    """On label-id files that we wrote, with void pixels and with classes that are absent."""
    config, folder = city
    config = config.copy_and_resolve_references()
    config.data.test_split = "val"
    evaluate(config, folder)
    assert predict(config, folder, None)
    ours = json.loads((folder / "evaluation" / "val" / "report.json").read_text())["fused"]

    written = sorted((folder / "predictions" / "val" / "label_maps").glob("*.png"))
    truths = sorted((folder.parent / "source" / "gtFine" / "val").glob("*/*labelIds.png"))
    vars(official.args).update(evalInstLevelScore=False, JSONOutput=False, quiet=True)
    theirs = official.evaluateImgLists([str(p) for p in written], [str(p) for p in truths], official.args)

    predicted = set(np.unique([read(path) for path in written]).tolist())
    assert len(predicted) > 2
    assert {28, 31} - predicted  # at least one class that occurs neither in truth nor in prediction
    for name, (label_id,) in zip(CITYSCAPES.names, CITYSCAPES.ids, strict=True):
        score = theirs["classScores"][name]
        absent = label_id in (28, 31) and label_id not in predicted
        assert np.isnan(score) == absent
        assert ours["iou"][name] == pytest.approx(0 if absent else score, abs=1e-6)
    assert ours["miou_present"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-6)
    assert ours["miou"] == pytest.approx(np.nansum(list(theirs["classScores"].values())) / 19, abs=1e-6)


def test_a_test_split_is_written_as_its_server_wants_it(city):
    config, folder = city
    assert predict(config, folder, None)
    target = folder / "predictions" / "test"
    (file,) = (target / "label_maps").iterdir()
    assert file.name == "berlin_000000_000019_leftImg8bit.png"
    label = read(file)
    assert (label.dtype, label.shape) == (np.uint8, (24, 48))
    assert set(np.unique(label).tolist()) <= {i for ids in CITYSCAPES.ids for i in ids}
    assert read(target / "overlays" / "berlin_000000_000019_leftImg8bit.jpg").shape == (24, 48, 3)
    assert (target / "legend.png").exists()
    with pytest.raises(UserError, match="test exists already .*; move it away, or choose another --out"):
        predict(config, folder, None)


def test_acdc_has_train_ids_and_ade20k_ids_from_one(tmp_path):
    config = tiny(acdc.get_config("hrnet"), trees.write_acdc(tmp_path / "acdc"))
    assert predict(config, save_untrained(config, tmp_path / "acdc-run"), None)
    files = sorted((tmp_path / "acdc-run" / "predictions" / "test" / "label_maps").iterdir())
    assert [file.name for file in files] == [f"GOPR0{i}75_frame_000044_rgb_anon.png" for i in range(4)]
    assert all(read(file).max() < 19 for file in files)

    config = tiny(ade20k.get_config("hrnet"), trees.write_ade20k(tmp_path / "ade"))
    maps = {}
    for ids in ("label_ids", "train_ids"):
        config.predict.ids = ids
        assert predict(config, save_untrained(config, tmp_path / ids), None)
        (file,) = (tmp_path / ids / "predictions" / "test" / "label_maps").iterdir()
        assert file.name == "ADE_test_00000001.png"
        maps[ids] = read(file)
    assert maps["label_ids"].shape == (21, 27)
    np.testing.assert_array_equal(maps["label_ids"], maps["train_ids"] + 1)


def test_a_folder_of_images_keeps_its_sizes_and_subfolders(city, pictures):
    config, folder = city
    assert predict(config, folder, pictures)
    target = folder / "predictions" / "pictures"
    for name, size in (("a", (40, 60)), ("b", (60, 40)), ("night/a", (33, 47))):
        assert read(target / "label_maps" / f"{name}.png").shape == size
        assert read(target / "overlays" / f"{name}.jpg").shape == (*size, 3)
    (folder / "predictions" / "pictures").rename(folder / "done")


def test_a_mended_command_and_one_after_a_broken_off_one_are_not_refused(city, pictures):
    config, folder = city
    wrong = config.copy_and_resolve_references()
    wrong.eval.checkpoint = "7"
    with pytest.raises(UserError, match="config.eval.checkpoint is"):
        predict(wrong, folder, pictures)
    leftover = files.incomplete(folder / "predictions" / "pictures") / "label_maps" / "old.png"
    trees.write_image(leftover, trees.image((4, 4)))
    assert predict(config, folder, pictures)
    maps = folder / "predictions" / "pictures" / "label_maps"
    assert sorted(path.name for path in maps.rglob("*.png")) == ["a.png", "a.png", "b.png"]
    assert not leftover.exists()
    (folder / "predictions" / "pictures").rename(folder / "mended")


def test_an_unreadable_image_is_named_and_left_out(city, pictures, capsys):
    config, folder = city
    (pictures / "broken.png").write_bytes((pictures / "b.png").read_bytes()[:100])
    assert not predict(config, folder, pictures)
    output = capsys.readouterr().out
    assert "Written and checked: 3 label maps" in output
    assert "Skipped 1 of 4 images" in output
    assert "pictures/broken.png: does not decode as an image" in output
    (folder / "predictions" / "pictures").rename(folder / "left-out")


def test_a_model_of_other_classes_writes_their_numbers(tmp_path, pictures, capsys):
    config = tiny(cityscapes.get_config("hrnet"), trees.write_cityscapes(tmp_path))
    config.model.num_classes = 5  # its class weights, of 19, are for training
    folder = save_untrained(config, tmp_path / "run")
    assert predict(config, folder, pictures)
    assert (
        "the maps hold class numbers, 0 to 4: config.model.num_classes=5, but cityscapes has 19 classes"
        in capsys.readouterr().out
    )
    assert read(folder / "predictions" / "pictures" / "label_maps" / "b.png").max() < 5
    with pytest.raises(
        UserError, match="The network has 5 classes, but cityscapes has 19; label maps for its test server need those"
    ):
        predict(config, folder, None)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (np.full((4, 6), 200, np.uint8), r"a\.png: holds ids \[200\]"),
        (np.zeros((4, 5), np.uint8), r"a\.png: \[4, 5\], expected \[4, 6\]"),
        (np.zeros((4, 6), np.uint16), r"a\.png: expected one 8-bit channel, got 1 of uint16"),
    ],
)
def test_a_label_map_that_is_not_as_it_should_be_is_named(tmp_path, damage, fault):
    cv2.imwrite(str(tmp_path / "a.png"), damage)
    with pytest.raises(ValueError, match=fault):
        check_label_map(tmp_path / "a.png", (4, 6), allowed=set(range(19)))


def test_a_right_label_map_has_no_fault(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 6), 18, np.uint8))
    check_label_map(tmp_path / "a.png", (4, 6), allowed=set(range(19)))
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(ValueError, match="b.png: does not decode as an image"):
        check_label_map(tmp_path / "b.png", (4, 6), allowed=set(range(19)))


def test_folders_that_cannot_be_predicted_are_named(tmp_path):
    with pytest.raises(UserError, match="There is no file or folder .*nowhere; give --source"):
        ImageFolder(tmp_path / "nowhere")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"has no image \(.jpg, .jpeg, .png, .* \(files .txt left out"):
        ImageFolder(tmp_path)


def test_images_of_all_kinds_are_predicted_and_noted(city, tmp_path, capsys):
    config, run = city
    pixels = trees.image((33, 47))
    picture, folder = Image.fromarray(pixels), tmp_path / "any"
    folder.mkdir()
    for name in ("a.webp", "a.bmp", "b.tif", "c.gif"):
        picture.save(folder / name)
    picture.convert("CMYK").save(folder / "d.jpg")
    cv2.imwrite(str(folder / "e.png"), pixels.astype(np.uint16) * 257)
    assert predict(config, run, folder, tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out/label_maps").iterdir())
    assert written == ["a.bmp.png", "a.webp.png", "b.png", "c.png", "d.png", "e.png"]
    output = capsys.readouterr().out
    for note, file in ((CMYK_IMAGE, "d.jpg"), (DEEP_IMAGE, "e.png")):
        assert f"Note: {note}: 1; the first: {folder / file}\n" in output


def test_one_image_of_another_format_goes_where_out_says(city, tmp_path, capsys):
    config, folder = city
    picture = np.dstack([trees.image((33, 47)), np.full((33, 47), 128, np.uint8)])
    cv2.imwrite(str(tmp_path / "one.tiff"), picture)
    assert predict(config, folder, tmp_path / "one.tiff", tmp_path / "out")
    assert read(tmp_path / "out" / "label_maps" / "one.png").shape == (33, 47)
    note = "Note: images with transparent pixels, taken in front of white: 1; the first: "
    assert f"{note}{tmp_path}/one.tiff\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="out exists already .* choose another --out"):
        predict(config, folder, tmp_path / "one.tiff", tmp_path / "out")
