"""Label maps refined in an evaluation score like those that segfix/refine.py makes of files."""

import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.io import loadmat

from configs import cityscapes
from ovenet_jax.compare import compare
from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import evaluate
from ovenet_jax.evaluation import refinement
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.evaluation.results import Evaluation
from ovenet_jax.predict import predict
from ovenet_jax.run import workdir
from ovenet_jax.segfix import refine, scores
from ovenet_jax.segfix.files import read_offsets
from ovenet_jax.supervision.task import task_of
from ovenet_jax.weights.network import Network
from tests import trees
from tests.untrained import save_untrained, tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(config, folder) of an untrained OVeNet and an untrained SegFix on a small Cityscapes with varied labels."""
    folder = tmp_path_factory.mktemp("refinement")
    data = trees.write_cityscapes(folder)
    rng = np.random.default_rng(0)
    for path in (folder / "source/gtFine/val").glob("*/*labelIds.png"):
        blocks = rng.choice([7, 8, 11, 21, 26, 0], (3, 6)).astype(np.uint8)
        cv2.imwrite(str(path), np.kron(blocks, np.ones((8, 8), np.uint8)))
    for path in (folder / "source/leftImg8bit/val").glob("*/*.png"):
        blocks = rng.integers(0, 256, (3, 6, 3), np.uint8)
        cv2.imwrite(str(path), np.kron(blocks, np.ones((8, 8, 1), np.uint8)))
    found = []
    for variant in ("ovenet", "segfix_w48"):
        config = tiny(cityscapes.get_config(variant), data)
        config.data.test_split = "val"
        config.seed = 4
        found.append((config, save_untrained(config, folder / variant)))
    return found


@pytest.fixture(scope="module")
def label_maps(runs):
    """Folder of the OVeNet's predictions of the val split, with its offsets."""
    config, folder = runs[0]
    config = config.copy_and_resolve_references()
    config.predict.offsets = True
    assert predict(config, folder, None)
    return folder / "predictions" / "val"


def offline(label_maps, offsets, out):
    """Mean scores of the label maps refined by the command, and whether it changed any."""
    folders = [f"--labels={label_maps / 'label_maps'}", f"--offsets={offsets}", f"--out={out}"]
    assert refine.main([*folders, "--dataset=cityscapes"]) == 0
    truths = label_maps.parents[2] / "source/gtFine/val"
    found, changed = [], False
    for file in sorted((label_maps / "label_maps").iterdir()):
        (truth,) = truths.glob(f"*/{file.stem.removesuffix('_leftImg8bit')}_gtFine_labelIds.png")
        (after,) = out.rglob(file.name)
        maps = [CITYSCAPES.train_ids()[cv2.imread(str(path), -1)] for path in (truth, file, after)]
        found.append(scores.scores_of(*maps, num_classes=19))
        changed |= (maps[1] != maps[2]).any()
    return scores.means(scores.summed(found)), changed


def reported(config, folder, segfix):
    config = config.copy_and_resolve_references()
    config.eval.segfix = str(segfix)
    evaluate(config, folder)
    reports = sorted((folder / "evaluation").glob("val_refined*/report.json"))
    (report,) = (r for r in map(json.loads, map(open_text, reports)) if r["what"]["eval"]["segfix"] == str(segfix))
    return report


def open_text(path):
    return path.read_text()


def test_refinement_in_one_go_is_that_of_files(runs, label_maps, tmp_path):
    (config, folder), (segfix_config, segfix) = runs
    assert predict(segfix_config, segfix, None)
    offsets = (segfix / "predictions" / "val").rename(tmp_path / "png") / "offsets"
    means, changed = offline(label_maps, offsets, tmp_path / "out")
    assert changed
    assert_same(reported(config, folder, segfix), means)

    segfix_config = segfix_config.copy_and_resolve_references()
    segfix_config.predict.form = "mat"
    assert predict(segfix_config, segfix, None)
    for file in (segfix / "predictions" / "val" / "offsets").iterdir():
        png = offsets / f"{file.stem}.png"
        assert_array_equal(loadmat(file)["mat"], read_offsets(png, (24, 48)).offset)


def test_own_offsets_are_those_that_are_written(runs, label_maps, tmp_path):
    config, folder = runs[0]
    means, changed = offline(label_maps, label_maps / "offsets", tmp_path / "out")
    assert changed
    assert_same(reported(config, folder, folder), means)


def assert_same(report, means):
    assert report["images"] == 2
    for title, values in means.items():
        found = [[report[title][column][when] for when in ("before", "after")] for column in scores.COLUMNS]
        np.testing.assert_allclose(found, values, rtol=1e-12)


def test_what_cannot_refine_is_named(runs, tmp_path):
    config, folder = runs[0]
    baseline = cityscapes.get_config("hrnet_ocr")
    workdir.claim(tmp_path, baseline)
    for other in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="segfix is '.*'; it must be the workdir of a SegFix or an OVeNet"):
            reported(config, folder, other)
    with pytest.raises(UserError, match="a pass over the whole image; set config.eval.windows to 'whole'"):
        task_of(config).offsets(np.zeros((8, 8), np.uint8), None, None)


def test_a_refiner_that_was_trained_further_has_a_report_of_its_own(runs, tmp_path, monkeypatch):
    config, _ = runs[0]
    label = np.eye(19, dtype=np.uint8)
    sums = scores.scores_of(label, label, label, 19)._asdict()
    monkeypatch.setattr(Evaluator, "run", lambda *_, **__: Evaluation(sums=sums))
    names = ["step 5 of segfix", "step 7 of segfix"]
    for name in (*names, names[1]):
        monkeypatch.setattr(refinement, "Refinement", lambda _, name=name: SimpleNamespace(name=name))
        refinement.evaluate_refined(Evaluator(config, None), Network(3, None, {}, {}), tmp_path)
    reports = [json.loads(path.read_text()) for path in tmp_path.glob("evaluation/*/report.json")]
    assert sorted(report["what"]["refiner"] for report in reports) == names


def test_where_nothing_is_labelled_refinement_has_no_scores(runs, tmp_path, monkeypatch, capsys):
    label = np.zeros((8, 8), np.uint8)
    sums = scores.scores_of(np.full_like(label, 255), label, label, 19)._asdict()
    monkeypatch.setattr(Evaluator, "run", lambda *_, **__: Evaluation(sums=sums))
    monkeypatch.setattr(refinement, "Refinement", lambda _: SimpleNamespace(name="step 5 of segfix"))
    refinement.evaluate_refined(Evaluator(runs[0][0], None), Network(3, None, {}, {}), tmp_path)
    (report,) = tmp_path.glob("evaluation/*/report.json")
    for title in scores.MEANS:
        assert json.loads(report.read_text())[title]["IoU"] == {"before": None, "after": None}
    output = capsys.readouterr().out
    assert "No pixel is labelled" in output
    assert set(re.search("mean as published(.*)", output)[1].split()) == {"-"}


@pytest.mark.parametrize(("part", "key"), [("model", "align_corners"), ("eval", "window")])
def test_a_refiner_of_another_version_has_the_default_of_a_key_that_it_lacks(runs, tmp_path, part, key):
    (config, _), (_, segfix) = runs
    saved = json.loads((segfix / "config.json").read_text())
    del saved[part][key]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    (tmp_path / "checkpoints").symlink_to(segfix / "checkpoints")
    config = config.copy_and_resolve_references()
    config.eval.segfix = str(tmp_path)
    if key == "window":  # which has none
        with pytest.raises(UserError, match="config.json is damaged: config.eval.window is missing; it must be"):
            refinement.Refinement(config)
    else:
        assert refinement.Refinement(config).name == f"step 0 of {tmp_path}"


def test_predictions_that_a_network_cannot_make_are_named(runs):
    config, folder = runs[0]
    changed = config.copy_and_resolve_references()
    changed.eval.segfix = "runs/segfix"
    with pytest.raises(UserError, match="config.eval.segfix refines in --mode=evaluate; leave it out"):
        predict(changed, folder, None)
    with pytest.raises(UserError, match="config.eval.segfix refines in --mode=evaluate; leave it out"):
        compare(changed, "runs/a,runs/b", folder)
