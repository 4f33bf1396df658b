"""Evaluation of a whole split: every image once, groups, the worst images, other shapes than training's."""

import json
import subprocess
import sys
from functools import partial
from itertools import count
from threading import Event
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import acdc, ade20k, cityscapes
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import numbered
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import evaluate
from ovenet_jax.evaluation import inference, report
from ovenet_jax.evaluation.curves import Curves
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.evaluation.report import group_table, new_folder, read
from ovenet_jax.evaluation.results import Evaluation, ImageScore, merged
from ovenet_jax.evaluation.suspects import Suspects
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.supervision.classes import Classes
from tests import trees
from tests.free_port import free_address
from tests.places import ROOT
from tests.untrained import save_untrained, tiny


@pytest.fixture(scope="module")
def acdc_report(tmp_path_factory):
    """The report of an evaluation of ACDC, multi-scale with flip."""
    folder = tmp_path_factory.mktemp("acdc")
    config = tiny(acdc.get_config(), trees.write_acdc(folder))
    config.eval.update({"scales": (0.5, 1.5), "flip": True})
    evaluate(config, save_untrained(config, folder / "run"))
    return json.loads((folder / "run" / "evaluation" / "val_0.5-1.5_flip" / "report.json").read_text())


def test_each_condition_has_its_own_scores_which_add_up(acdc_report):
    assert list(acdc_report["groups"]) == ["fog", "night", "rain", "snow"]
    for prediction in ("initial", "seed", "fused"):
        parts = [group[prediction]["confusion"] for group in acdc_report["groups"].values()]
        np.testing.assert_array_equal(np.sum(parts, 0), acdc_report[prediction]["confusion"])
    one_image = acdc_report["groups"]["fog"]["fused"]["confusion"]
    assert np.sum(one_image) == sum(i % 34 in valid_ids() for i in range(24 * 48))


def valid_ids():
    return {i for ids in pipeline.classes(acdc.get_config().data).ids for i in ids}


def test_the_worst_images_are_listed_the_worst_first(acdc_report):
    mious = [image["miou"] for image in acdc_report["worst"]]
    assert len(mious) == 2
    assert mious == sorted(mious)


def test_the_report_says_what_was_computed(acdc_report):
    what = acdc_report["what"]
    assert (acdc_report["images"], what["split"], what["step"]) == (4, "val", 0)
    assert (what["eval"]["scales"], what["eval"]["flip"]) == ([0.5, 1.5], True)
    assert acdc_report["fused"]["miou"] <= acdc_report["fused"]["miou_present"]


def test_accuracy_by_distance_adds_up_to_the_confusion_matrices(acdc_report):
    for prediction in ("initial", "seed", "fused"):
        confusion = np.array(acdc_report[prediction]["confusion"])
        pixels, _, right = np.sum(acdc_report["curves"][f"distance {prediction}"], axis=0)
        assert (pixels, right) == (confusion.sum(), np.trace(confusion))


def test_a_report_is_read_as_it_was_evaluated(tmp_path, monkeypatch):
    made, dates = report.made_now(), count()
    monkeypatch.setattr(report, "made_now", lambda: made | {"date": str(next(dates))})
    config = tiny(acdc.get_config(), trees.write_acdc(tmp_path))
    folder = save_untrained(config, tmp_path / "run")
    evaluate(config, folder)
    written = folder / "evaluation" / "val"
    before, page = ((written / name).read_text() for name in ("report.json", "report.html"))
    curves = read(written).sums
    assert {"distance fused", "probability", "confidence"} <= set(curves)
    (written / "report.html").unlink()
    evaluate(config, folder, anew=False)
    assert (written / "report.json").read_text() == before
    assert (written / "report.html").read_text() == page  # images seen anew are those kept from the evaluation
    assert all(name in page for name in pipeline.classes(config.data).names)
    assert '"predictions": ["initial", "seed", "fused"]' in page
    assert f'"name": "{read(written).images[0].name}"' in page


def test_without_a_pass_over_whole_images_the_mean_of_windows_is_judged(tmp_path):
    """At every fourth pixel, for the calibration, for wrong labels and in the page."""
    config = tiny(cityscapes.get_config("ovenet"), trees.write_cityscapes(tmp_path))
    config.eval.scales = (1.5,)
    folder = save_untrained(config, tmp_path / "run")
    evaluate(config, folder)
    found = read(folder / "evaluation/val_1.5")
    source = pipeline.open_split(config.data, "val")
    with pipeline.samples(source, range(len(source))) as samples:
        labelled = sum((sample["label"][::4, ::4] != 255).sum() for sample in samples)
    assert found.sums["probability"][:, 0].sum() == labelled
    assert "confidence" not in found.sums
    assert len(found.suspects) == len(source)
    assert '"spacing": [4.0, 4.0]' in (folder / "evaluation/val_1.5/report.html").read_text()


def test_images_of_all_sizes_are_evaluated_once_in_few_shapes_or_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "MOST_SHAPES", 1)
    config = tiny(ade20k.get_config("hrnet"), trees.write_ade20k(tmp_path))
    config.eval.update({"short_side": 32, "bucket": 16})
    pipeline.prepare(config.data)
    graphdef, *arrays = parameters.split(create_model(config.model))
    arrays = jax.device_put(arrays, parallel.replicated(parallel.create_mesh()))
    for bucket in (16, 1):
        config.eval.bucket = bucket
        evaluator = Evaluator(config, graphdef)
        observers, programs, dropped = [Curves(evaluator), Suspects(evaluator)], evaluator.inference.programs, set()
        programs[:] = [SimpleNamespace(clear_cache=partial(dropped.add, program)) for program in programs]
        evaluation = evaluator.run(*arrays, observers=observers)
        assert [image.number for image in evaluation.images] == [0, 1]
        counted = evaluation.matrices["main"].sum()
        assert counted == sum(_labelled(config))
    assert len(dropped) == 9  # with the second shape: the network's, the evaluator's and the observers'


def _labelled(config):
    source = pipeline.open_split(config.data, "val")
    with pipeline.samples(source, range(len(source)), short_side=32) as samples:
        return [(sample["label"] != 255).sum() for sample in samples]


def test_an_interruption_ends_an_evaluation(tmp_path):
    config = tiny(cityscapes.get_config("hrnet"), trees.write_cityscapes(tmp_path))
    pipeline.prepare(config.data)
    graphdef, *arrays = parameters.split(create_model(config.model))
    arrays = jax.device_put(arrays, parallel.replicated(parallel.create_mesh()))
    interrupted = Event()
    interrupted.set()
    assert Evaluator(config, graphdef).run(*arrays, interrupted) is None


def test_a_split_without_labels_is_not_evaluated(tmp_path):
    config = tiny(cityscapes.get_config("hrnet"), trees.write_cityscapes(tmp_path))
    config.data.eval_split = "test"
    folder = save_untrained(config, tmp_path / "run")
    with pytest.raises(UserError, match="Split 'test' of cityscapes has no labels; use --mode=predict"):
        evaluate(config, folder)


def test_processes_add_up_and_an_image_lost_or_counted_twice_is_an_error():
    rest = {"sums": {}, "suspects": [], "made": {}}
    first = rest | {"groups": {"fog": {"main": [[1, 2], [3, 4]]}}, "images": [[0, "a", 0.5], [2, "c", 0.1]]}
    second = rest | {
        "groups": {"fog": {"main": [[1, 0], [0, 1]]}, "rain": {"main": [[5, 0], [0, 0]]}},
        "images": [[1, "b", None]],
    }
    first, second = map(Evaluation.from_json, (first, second))
    evaluation = merged([Evaluation(), first, second], images=3)
    assert evaluation.answer == "main"
    np.testing.assert_array_equal(evaluation.groups["fog"]["main"], [[2, 2], [3, 5]])
    np.testing.assert_array_equal(evaluation.matrices["main"], [[7, 2], [3, 5]])
    assert [image.name for image in evaluation.images] == ["a", "b", "c"]
    for totals, images in (([first, second], 4), ([first, first], 4), ([first], 3)):
        with pytest.raises(RuntimeError, match="each once"):
            merged(totals, images)


def test_the_worst_images_are_labelled_ones():
    images = [ImageScore(0, "a", 0.5), ImageScore(1, "b", None), ImageScore(2, "c", 0.1)]
    assert [image.name for image in Evaluation({}, images).worst(5)] == ["c", "a"]


def test_groups_stand_side_by_side():
    half, all_right = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [0, 1]])
    table = group_table({"fog": {"initial": half, "fused": all_right}, "night": {"initial": half, "fused": half}})
    assert table.splitlines()[0].split() == ["mIoU", "[%]", "initial", "S_i", "fused", "S_f"]
    assert table.splitlines()[1].split() == ["fog", "25.00", "100.00"]


def test_two_processes_find_what_one_finds(tmp_path):
    """Real processes with two devices each; three images, so that one process has more of them."""
    config = tiny(cityscapes.get_config("hrnet"), trees.write_cityscapes(tmp_path))
    config.data.eval_split = "train"
    pipeline.prepare(config.data)
    (tmp_path / "config.json").write_text(config.to_json())
    address = free_address()

    def start(count):
        command = [sys.executable, "-m", "tests.two_processes", address, str(count)]
        return [
            subprocess.Popen(
                [*command, str(index), str(tmp_path / "config.json")], stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            for index in range(count)
        ]

    def results(processes):
        outputs = [process.communicate(timeout=240)[0] for process in processes]
        assert all(process.returncode == 0 for process in processes)
        return [json.loads(output.splitlines()[-1]) for output in outputs]

    first, second = results(start(2))
    (alone,) = results(start(1))
    assert len(alone["images"]) == 3
    assert first == second == alone


def test_a_report_on_something_else_gets_a_folder_of_its_own(tmp_path):
    for settings, name in (
        ({"bucket": 1}, "val"),
        ({"bucket": 32}, "val_2"),
        ({"bucket": 1, "panels": 3}, "val"),
        ({"scales": (1.0,)}, "val_3"),
        ({"scales": (1.0,)}, "val_3"),
    ):
        what = {"split": "val", "eval": settings}
        folder = new_folder(tmp_path, "val", what)
        assert folder.name == name
        (folder / "report.json").write_text(json.dumps({"what": what}))


def test_an_evaluation_is_kept_where_its_pictures_cannot_be(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(report, "write_panels", full)
    evaluation = Evaluation({"": {"main": np.eye(2, dtype=int)}}, [ImageScore(0, "a", 1.0)], made={"date": "today"})
    task = Classes(cityscapes.get_config("hrnet"), numbered(2))
    with pytest.raises(OSError, match="No space left"):
        report.write(evaluation, task, {"eval": {"worst": 1}}, {"panels": {}}, tmp_path)
    assert read(tmp_path).images == evaluation.images


def test_a_damaged_report_is_left_alone(tmp_path):
    for damage in ('{"what": {"bucket"', "[]", "{}"):
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / "val/report.json").write_text(damage)
        assert new_folder(tmp_path, "val", {"bucket": 1}).name == "val_2"
        assert (tmp_path / "val/report.json").read_text() == damage


@pytest.mark.parametrize("damage", [{}, {"curves": 3}, {"scores": [[1]]}, {"suspects": [3]}, {"main": None}])
def test_a_report_that_cannot_be_used_counts_as_none(tmp_path, capsys, damage):
    sound = {"what": {}, "answer": "main", "main": {"confusion": [[1]]}, "scores": [], "suspects": [], "curves": {}}
    content = sound | damage
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert read(tmp_path) is None
    assert "report.json is damaged" in capsys.readouterr().out
