"""The queue of runs, and what their files say: in which order, what is left out, tables of made-up numbers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare_networks, evidence, runs
from benchmarks.compare_networks import NETWORKS, Processor, Queue
from benchmarks.model_zoo import operations
from benchmarks.resampling import Interval
from configs import camvid
from ovenet_jax.errors import UserError
from ovenet_jax.models.zoo import create_model


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A queue, and the list of what it has trained, (folder, options); nothing is computed."""
    trained = []

    def run(variant, mode, folder, root, steps, through=(), **options):
        assert (mode, root) == ("train", "ROOT")
        trained.append((folder.name, {"variant": variant, "steps": steps, "through": through, **options}))

    def start(*arguments, through=()):
        module, folder, json_flag, file, splits_flag, *splits = arguments
        assert (module, json_flag, splits_flag) == ("benchmarks.examine", "--json", "--splits")
        name, options = trained[-1]
        assert Path(folder).name == name and through == options["through"]
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps(dict.fromkeys(splits, {})))

    monkeypatch.setattr(compare_networks, "run", run)
    monkeypatch.setattr(compare_networks, "start", start)
    return Queue("ROOT", tmp_path / "runs", tmp_path / "results"), trained


def test_seed_by_seed_and_each_run_once(queue):
    queue, trained = queue
    queue.run(seeds=2)
    assert [name for name, _ in trained] == [f"{name}-{seed}" for seed in (0, 1) for name in NETWORKS]
    assert {options["config.seed"] for name, options in trained if name.endswith("-1")} == {1}
    content = json.loads(queue.result("offsets", 1).read_text())
    assert (content["network"], content["seed"], content["steps"]) == ("offsets", 1, 400)
    assert list(content["splits"]) == ["val", "test"]
    queue.run(seeds=2)
    assert len(trained) == 2 * len(NETWORKS)
    queue.result("ovenet", 0).unlink()
    queue.run(seeds=2)
    assert trained[-1][0] == "ovenet-0" and len(trained) == 2 * len(NETWORKS) + 1


def test_a_frozen_base_is_that_of_the_same_seed_and_trained_again_where_its_folder_is_missing(queue):
    queue, trained = queue
    queue.results.mkdir()
    for name in ("hrnet_ocr", "hrnet_ocr_wide", "ovenet"):
        queue.result(name, 0).write_text("{}")  # made on another machine
    queue.run(seeds=1)
    assert [name for name, _ in trained] == ["hrnet_ocr-0", "offsets-0", "second_head-0"]
    for _, options in trained[1:]:
        assert options["config.init.base"] == queue.folder("hrnet_ocr", 0) and options["config.freeze_base"]
    assert trained[1][1]["through"] == () and trained[2][1]["through"] == ("benchmarks.second_head",)
    assert trained[2][1]["config.loss.confidence_weight"] == 0


def test_a_run_that_fails_ends_the_queue_with_its_exit_code(tmp_path):
    with pytest.raises(SystemExit) as end:
        runs.start("main", f"--config={tmp_path}/missing.py")
    assert end.value.code == 2
    with pytest.raises(SystemExit) as end:
        runs.start("main", f"--config={tmp_path}/missing.py", through=("benchmarks.second_head",))
    assert end.value.code == 2


def test_processor_time_adds_up_over_interruptions(tmp_path):
    file = tmp_path / "run" / "processor_seconds"
    burn = [sys.executable, "-c", "sum(range(10**6))"]
    found = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), Processor(file) as processor:
            subprocess.run(burn, check=True)
            raise KeyboardInterrupt
        found.append(processor.seconds())
    assert 0 < found[0] < found[1]


def test_the_wide_network_costs_as_much_as_ovenet():
    def cost(name: str) -> int:
        config = camvid.get_config(NETWORKS[name].variant)
        width = NETWORKS[name].options.get("config.model.backbone.width", config.model.backbone.width)
        config.model.backbone.width = width
        return operations(create_model(config.model), (360, 480))

    assert cost("hrnet_ocr_wide") == pytest.approx(cost("ovenet"), rel=0.03)
    assert cost("hrnet_ocr") < 0.8 * cost("ovenet")


def made_up_run(correct: dict[str, int], seed: int) -> dict:
    """Two classes with 100 pixels in each of four blocks; `correct` of each class by prediction, seeds differ by 1."""
    predictions = {}
    for name, right in correct.items():
        per_block = [[right + seed] * 2] * 4
        predictions[name] = {
            "class": per_block,
            "predicted": [[100, 100]] * 4,
            "distance": per_block,
            "size": per_block,
        }
    sums = {what: {"class": [100, 300], "distance": [200, 200]} for what in ("pixels", "length", "same_segment")}
    sums |= {
        what: {"class": [50, 60], "distance": [50, 60]} for what in ("same_class", "confidence", "confidence_if_same")
    }
    return {
        "classes": ["road", "pole"],
        "groups": {"distance": [4], "size": [64]},
        "images": ["a_1", "a_2", "b_1", "b_2"],
        "scores": {name: [right / 100 + 0.001 * i for i in range(4)] for name, right in correct.items()},
        "blocks": ["a", "a", "b", "b"],
        "pixels": {key: [[100, 100]] * 4 for key in ("class", "distance", "size")},
        "predictions": predictions,
        "seeds": sums,
    }


@pytest.fixture
def results(tmp_path):
    """A folder of two made-up runs of each network."""
    correct = {
        "hrnet_ocr": {"main": 60},
        "hrnet_ocr_wide": {"main": 70},
        "ovenet": {"initial": 65, "seed": 64, "fused": 66, "perfect_confidence": 80, "perfect_seed": 90},
        "offsets": {"initial": 60, "seed": 60, "fused": 62, "perfect_confidence": 70, "perfect_seed": 80},
        "second_head": {"initial": 60, "seed": 60, "fused": 61, "perfect_confidence": 70, "perfect_seed": 61},
    }
    for name in NETWORKS:
        for seed in range(2):
            run = {"network": name, "seed": seed, "steps": 400, "commit": "abc", "machine": "2 x any",
                   "processor_seconds": 1800, "splits": {"val": made_up_run(correct[name], seed)}}  # fmt: skip
            (tmp_path / f"{name}-{seed}.json").write_text(json.dumps(run))
    return tmp_path


def iou(correct: int) -> float:
    """Of 100 true and 100 predicted pixels."""
    return correct / (200 - correct)


def test_differences_are_those_of_pairs(results):
    found = evidence.compare(evidence.Results(results, "val", 2), *evidence.COMPARISONS["T1"])
    np.testing.assert_allclose(found.differences, [iou(66) - iou(70), iou(67) - iou(71)])
    assert found.p == 2 / 4
    assert found.interval.estimate == pytest.approx(np.mean(found.differences))
    assert found.interval.low < found.interval.estimate < found.interval.high


def test_the_report(results):
    evidence.write(results, "val", seeds=2)
    text = (results / "results_val.md").read_text()
    assert f"{100 * iou(66):.2f} | {100 * iou(67):.2f}" in text
    assert "on 100.00 % of the images" in text and "Together 5.0 processor hours" in text
    assert "more than 4 px" in text and text.count("| perfect seed |") == 4 and text.count("| S_2 |") == 2
    for picture in ("differences_val.png", "where_val.png", "seeds_val.png"):
        assert (results / picture).read_bytes().startswith(b"\x89PNG")


def test_what_seeds_are_worth(results):
    means = evidence.seed_means(evidence.Results(results, "val", 2), "ovenet", "class")
    np.testing.assert_allclose(means["seed in own class"], [50 / 100, 60 / 300])
    np.testing.assert_allclose(means["F if in own class"], [1, 1])
    np.testing.assert_allclose(means["F if not"], [0, 0])


def test_a_missing_run_is_named(results):
    with pytest.raises(UserError, match="hrnet_ocr-2.json is missing; `python -m benchmarks.compare_networks --root="):
        evidence.write(results, "val", seeds=3)


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (0.001, 0.02, 0.03, "yes"),
        (0.006, 0.02, 0.03, "yes, worth its cost"),
        (0.001, 0.02, 0.06, "undecided"),
        (-0.01, 0.02, 0.5, "undecided"),
        (-0.01, 0.004, 0.5, "no"),
        (-0.02, -0.001, 0.03, "no, harm"),
    ],
)
def test_what_the_plan_calls_a_yes(low, high, p, said):
    assert evidence.verdict(Interval((low + high) / 2, low, high), p) == said
