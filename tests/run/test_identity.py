"""A run knows its classes and data: by content, wherever they are, and by the names of the classes, in any order."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import folder as folder_config
from ovenet_jax import files
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import CITYSCAPES, OFFICIAL
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import evaluate
from ovenet_jax.predict import predict
from ovenet_jax.run import identity
from ovenet_jax.run.identity import Identity
from ovenet_jax.supervision.task import task_of
from ovenet_jax.train import train
from tests import trees
from tests.tiny_run import shrunk
from tests.untrained import save_untrained, tiny

TRAINING = {"name": "folder", "split": "train", "images": 2, "digest": "abc"}


def trained(folder: Path, found: Identity) -> Path:
    """A run that has a checkpoint, by its names alone."""
    identity.write(folder, found)
    (folder / "config.json").write_text("{}")
    (folder / "checkpoints" / "1").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("classes", [CITYSCAPES, OFFICIAL["lip"]], ids=["void id", "flip pairs"])
def test_the_class_table_comes_back_as_it_was(tmp_path, classes):
    identity.write(tmp_path / "run", Identity(classes, TRAINING, TRAINING))
    assert identity.read(tmp_path / "run") == Identity(classes, TRAINING, TRAINING)
    assert identity.classes_of(tmp_path / "run") == classes
    assert identity.classes_of(tmp_path) is None


def without(key):
    return lambda content: {k: v for k, v in content.items() if k != key}


def in_table(**changes):
    return lambda content: content | {"classes": content["classes"] | changes}


DAMAGED = {
    "no table": without("classes"),
    "no digest": without("training"),
    "fewer colours": in_table(colors=[[0, 0, 0]]),
    "an id beyond a byte": in_table(ids=[[300]] * 20),
    "a class without ids": in_table(ids=[[]] * 20),
    "names of numbers": in_table(names=list(range(20))),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_gets_one_sentence_with_the_remedy(tmp_path, damage):
    identity.write(tmp_path, Identity(OFFICIAL["lip"], TRAINING, TRAINING))
    file = tmp_path / identity.FILE
    file.write_text(json.dumps(DAMAGED[damage](json.loads(file.read_text()))))
    with pytest.raises(UserError, match=f"{file} is damaged .*; delete it: the classes of config.data are then used"):
        identity.read(tmp_path)


def test_a_training_goes_on_with_its_own_classes_and_data_alone(tmp_path, capsys):
    before = Identity(OFFICIAL["lip"], TRAINING, TRAINING)
    folder = trained(tmp_path, before)
    identity.check(folder, before)
    assert capsys.readouterr().out == ""
    other = replace(OFFICIAL["lip"], names=(*OFFICIAL["lip"].names[1::-1], *OFFICIAL["lip"].names[2:]))
    with pytest.raises(
        UserError,
        match="other data: class 0 was 'background' of label ids 0 and is 'hat' of label ids 0; restore its data, "
        f"or start in another --workdir with --config.init.base={folder}",
    ):
        identity.check(folder, before._replace(classes=other))
    with pytest.raises(UserError, match="class 19 was 'right shoe' of label ids 19 and is absent"):
        identity.check(
            folder, Identity(replace(OFFICIAL["lip"], names=OFFICIAL["lip"].names[:19], ids=OFFICIAL["lip"].ids[:19]))
        )
    with pytest.raises(UserError, match=r"data: it was 2 images of train \(digest abc\) and is 3 images of train"):
        identity.check(folder, before._replace(training=TRAINING | {"images": 3, "digest": "d"}))
    identity.check(folder, before._replace(validation=TRAINING | {"digest": "d"}))
    assert "Note: " in (said := capsys.readouterr().out) and "earlier scores are not comparable" in said


def test_a_run_of_an_earlier_version_is_said_once(tmp_path, capsys):
    found = Identity(OFFICIAL["lip"], TRAINING, TRAINING)
    folder = trained(tmp_path, found)
    (folder / identity.FILE).unlink()
    for _ in range(2):
        identity.check(folder, Identity(OFFICIAL["lip"]))
        identity.check(folder, found)
        identity.write(folder, found)
    assert capsys.readouterr().out.count("is of a version that wrote no data.json; it is written now") == 1


# ---- digests ----


def digests(data: ConfigDict) -> dict[str, str]:
    return {split: found["digest"] for split, found in pipeline.prepare(data)["splits"].items()}


def test_a_digest_is_of_names_and_content_wherever_they_are(tmp_path):
    data = trees.write_folder(tmp_path / "a")
    before = digests(data)
    shutil.copytree(tmp_path / "a/source", tmp_path / "b/source")  # and every file has another time
    moved = trees.write_folder(tmp_path / "c")
    moved.root, moved.storage = str(tmp_path / "b/source"), "decoded"
    assert digests(moved) == before
    assert before["train"] != before["val"]
    found = pipeline.open_split(data, "train+val").identity
    assert {**found, "digest": 0} == {"name": "folder", "split": "train+val", "images": 4, "digest": 0}
    assert found == pipeline.open_split(moved, "train+val").identity
    assert found["digest"] != pipeline.open_split(data, "train").identity["digest"]
    label = tmp_path / "b/source/labels/val/left/0001.png"
    trees.write_image(label, np.full(trees.SIZE, 7, np.uint8))
    changed = digests(moved)
    assert changed["train"] == before["train"] and changed["val"] != before["val"]


def test_data_that_were_prepared_without_a_digest_get_one(tmp_path):
    data = trees.write_folder(tmp_path)
    inventory = pipeline.prepare(data)
    file = Path(inventory["folder"]) / "report.json"
    content = json.loads(file.read_text())
    for found in content["splits"].values():
        del found["digest"]
    file.write_text(json.dumps(content))
    assert digests(data) == {split: found["digest"] for split, found in inventory["splits"].items()}
    assert json.loads(file.read_text())["splits"]["val"]["digest"] == digests(data)["val"]


# ---- what is asked of a run ----


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, config) of a run on two classes that has ended."""
    folder = tmp_path_factory.mktemp("identity")
    trees.write_folder(folder)
    config = shrunk(folder_config.get_config("fcn_r_tiny"), folder / "unused")
    config.model.backbone.update({"stem": (8, 8, 8), "widths": (4, 4, 4, 4)})
    config.data.update(trees.write_folder(folder))
    config.eval.window = (32, 48)
    assert train(config, folder / "run")
    return folder, config


def reordered(folder: Path, config: ConfigDict) -> ConfigDict:
    """The same data with their classes in another order."""
    copied = shutil.copytree(folder, folder.with_name(f"{folder.name}-reordered"), dirs_exist_ok=True)
    (copied / "source/classes.yaml").write_text(
        "classes:\n"
        "  - {name: car, color: [0, 0, 142], ids: [26]}\n"
        "  - {name: road, color: [128, 64, 128], ids: [7, 8]}\n"
        "ignored: [0]\n"
    )
    config = config.copy_and_resolve_references()
    config.data.root, config.data.prepared = str(copied / "source"), str(copied / "prepared")
    return config


def report(folder: Path, name: str = "val") -> dict:
    return json.loads((folder / "evaluation" / name / "report.json").read_text())


def test_the_number_of_classes_is_that_of_the_data(whole):
    folder, config = whole
    assert json.loads((folder / "run/config.json").read_text())["model"]["num_classes"] == 2
    found = identity.read(folder / "run")
    assert found.classes == pipeline.classes(config.data)
    assert found.training == pipeline.open_split(config.data, "train").identity
    other = config.copy_and_resolve_references()
    other.model.num_classes = 3
    with pytest.raises(UserError, match="config.model.num_classes=3, but folder has 2 classes"):
        train(other, folder / "other")


def test_a_report_names_data_versions_and_date(whole):
    folder, config = whole
    content = report(folder / "run")
    assert content["what"]["data"] == pipeline.open_split(config.data, "val").identity
    assert content["made"]["date"] and {"jax", "flax", "numpy"} <= content["made"]["versions"].keys()


@pytest.mark.parametrize("storage", ["compressed", "decoded"])
def test_classes_in_another_order_are_matched_by_name_in_a_test(whole, capsys, storage):
    folder, config = whole
    before = report(folder / "run")
    other = reordered(folder, config)
    other.data.storage = storage
    evaluate(other, folder / "run")
    assert "they are matched by name" in capsys.readouterr().out
    assert {**report(folder / "run"), "made": 0} == {**before, "made": 0}
    assert not (folder / "run/evaluation/val_2").exists()


def test_labels_that_mean_something_else_get_a_report_of_their_own(whole):
    folder, config = whole
    before = report(folder / "run")
    other = reordered(folder, config)
    classes = Path(other.data.root) / "classes.yaml"
    classes.write_text(classes.read_text().replace("[7, 8]", "[7]").replace("[0]", "[0, 8]"))
    evaluate(other, folder / "run")
    assert report(folder / "run") == before
    assert np.sum(report(folder / "run", "val_2")["main"]["confusion"]) < np.sum(before["main"]["confusion"])


def test_classes_that_it_has_not_learned_are_refused_in_a_test(whole):
    folder, config = whole
    other = reordered(folder, config)
    classes = Path(other.data.root) / "classes.yaml"
    classes.write_text(classes.read_text().replace("name: car", "name: van"))
    with pytest.raises(UserError, match=r"not trained on the classes 'van' of folder \(it knows 'road', 'car'"):
        evaluate(other, folder / "run")


def test_a_training_does_not_go_on_with_classes_in_another_order(whole):
    folder, config = whole
    with pytest.raises(UserError, match="class 0 was 'road' of label ids 7, 8 and is 'car' of label ids 26"):
        train(reordered(folder, config), folder / "run")


def test_data_prepared_data_and_workdir_may_move(whole, capsys):
    folder, config = whole
    moved = config.copy_and_resolve_references()
    shutil.copytree(folder / "source", folder / "moved/source")
    shutil.copytree(folder / "run", folder / "moved/run")
    moved.data.root, moved.data.prepared = str(folder / "moved/source"), str(folder / "moved/prepared")
    moved.data.lists = str(folder / "moved/lists")
    for split in ("train", "val"):
        pairs = sorted((folder / f"source/images/{split}").rglob("*.jpg"))
        names = [path.relative_to(folder / "source").as_posix() for path in pairs]
        lines = [f"{x} {x.replace('images', 'labels').replace('jpg', 'png')}\n" for x in names]
        files.write(folder / f"moved/lists/{split}.lst", "".join(lines))
    assert train(moved, folder / "moved/run")
    assert f"Evaluating step 2 of {folder}/moved/run on val" in capsys.readouterr().out
    reports = [sorted(p.name for p in (run / "evaluation").iterdir()) for run in (folder / "run", folder / "moved/run")]
    assert reports[0] == reports[1]
    files.write(folder / "moved/lists/train.lst", lines[0].replace("val", "train"))
    with pytest.raises(UserError, match="was trained on other data: it was 2 images of train"):
        train(moved, folder / "moved/run")


def test_a_prediction_has_the_classes_and_ids_of_the_run(whole, capsys):
    folder, config = whole
    run = shutil.copytree(folder / "run", folder / "copied")
    other = reordered(folder, config)
    other.data.test_split = "val"
    assert predict(other, run, None)
    assert "Note: class 0 was 'road' of label ids 7, 8 and is 'car' of label ids 26; label maps use the run's" in (
        capsys.readouterr().out
    )
    maps = (run / "predictions/val/label_maps").rglob("*.png")
    assert set().union(*(np.unique(cv2.imread(str(path), -1)).tolist() for path in maps)) <= {7, 26}


def test_prediction_needs_no_data_set(whole, tmp_path):
    folder, config = whole
    config = config.copy_and_resolve_references()
    config.data.root = config.data.prepared = str(tmp_path / "nowhere")
    assert predict(config, folder / "run", folder / "source/images/val")
    written = next((folder / "run/predictions/val/label_maps").rglob("*.png"))
    assert written.exists()


def test_what_was_imported_before_there_was_a_table_predicts_numbers(tmp_path, capsys):
    config = tiny(folder_config.get_config("hrnet"), trees.write_folder(tmp_path))
    config.model.num_classes = 2
    run = save_untrained(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "source/labels")
    (tmp_path / "source/classes.yaml").unlink()
    assert predict(config, run, tmp_path / "source/images/val")
    assert "the maps hold class numbers, 0 to 1" in capsys.readouterr().out


def test_classes_are_found_where_their_number_is_open(tmp_path):
    config = folder_config.get_config("hrnet_tiny")
    config.data.update(trees.write_folder(tmp_path))
    task_of(config)
    assert config.model.num_classes == 2
