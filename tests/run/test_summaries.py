import json
import sys
from types import SimpleNamespace

import pytest

from ovenet_jax.run.summaries import JsonLines, Summaries


@pytest.fixture(autouse=True)
def without_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "clu", None)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def written(folder):
    """The lines of a run that evaluates at 0 and 2, reports at 1 and 2, and breaks off in the line after them."""
    first = Summaries(folder, 0)
    for step, name in ((0, "eval_miou"), (1, "loss"), (2, "loss"), (2, "eval_miou"), (3, "loss")):
        first.scalars(step, {name: step})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    return lambda *parts: [{"step": step, name: step} for step, name in parts]


def test_a_resumed_run_drops_what_came_after_its_step(tmp_path):
    expected = written(tmp_path)
    Summaries(tmp_path, 2).scalars(5, {"loss": 5})
    assert lines(tmp_path) == expected((0, "eval_miou"), (1, "loss"), (2, "loss"), (2, "eval_miou"), (5, "loss"))


def test_an_evaluation_that_is_done_again_leaves_one_line(tmp_path):
    expected = written(tmp_path)
    Summaries(tmp_path, 2, evaluated=False).scalars(2, {"eval_miou": 2})
    assert lines(tmp_path) == expected((0, "eval_miou"), (1, "loss"), (2, "loss"), (2, "eval_miou"))


def test_a_line_that_lacks_its_end_is_ended(tmp_path):
    """A process may be killed between any two bytes."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}')
    Summaries(tmp_path, 1).scalars(2, {"loss": 2.0})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


DAMAGED = {
    "a bad byte": b'{"step": 2, "lo\xff": 2.0}\n',
    "another type": b'["step"]\n',
    "no number": b'{"step": "two"}\n',
    "zeros": bytes(40) + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_lines_are_set_aside_and_said(tmp_path, capsys, damage):
    file = tmp_path / "metrics.jsonl"
    before = b'{"step": 1, "loss": 1.0}\n' + DAMAGED[damage] + b'{"step": 3, "loss": 3.0}\n{"step": 4, "lo'
    file.write_bytes(before)
    Summaries(tmp_path, 3).scalars(4, {"loss": 4.0})
    assert [line["step"] for line in lines(tmp_path)] == [1, 3, 4]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    assert f"Warning: damaged lines of {file} are removed" in capsys.readouterr().out


def test_a_log_that_is_none_keeps_no_run_from_going_on(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").mkdir()
    Summaries(tmp_path, 3).scalars(4, {"loss": 4.0})
    assert "metrics.jsonl cannot be read (Is a directory)" in (said := capsys.readouterr().out)
    assert "metrics.jsonl cannot be written now" in said


def test_what_is_not_finite_is_null(tmp_path):
    Summaries(tmp_path, 0).scalars(1, {"loss": float("nan"), "learning_rate": 0.1})
    assert lines(tmp_path) == [{"step": 1, "loss": None, "learning_rate": 0.1}]


def test_tensorboard_groups_what_is_measured(tmp_path, monkeypatch):
    written = {}
    writer = SimpleNamespace(write_scalars=lambda _, values: written.update(values))
    monkeypatch.setattr("ovenet_jax.run.summaries.create_tensorboard_writer", lambda _: writer)
    Summaries(tmp_path, 0).scalars(1, {"loss_total": 1.0, "eval_miou_fused": 0.5, "images_per_second": 2.0})
    assert written == {"loss/total": 1.0, "eval/miou_fused": 0.5, "training/images_per_second": 2.0}


def test_where_tensorboard_fails_the_metrics_go_on(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise RuntimeError("; No space left on device\nat record_writer.cc")

    monkeypatch.setattr(
        "ovenet_jax.run.summaries.create_tensorboard_writer", lambda _: SimpleNamespace(write_scalars=full)
    )
    summaries = Summaries(tmp_path, 0)
    for step in (1, 2):
        summaries.scalars(step, {"loss": 1.0})
    summaries.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert capsys.readouterr().out.count("TensorBoard's files are not written (; No space left on device)") == 1


def test_where_tensorboard_cannot_begin_the_metrics_are_written(tmp_path, monkeypatch, capsys):
    def no_folder(_):
        raise RuntimeError("Not a directory [Op:CreateSummaryFileWriter]")  # one of TensorFlow's own kinds

    monkeypatch.setattr("ovenet_jax.run.summaries.create_tensorboard_writer", no_folder)
    Summaries(tmp_path, 0).scalars(1, {"loss": 1.0})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]
    assert "TensorBoard's files are not written (Not a directory" in capsys.readouterr().out


def test_a_full_disk_delays_lines_and_loses_none(tmp_path, monkeypatch, capsys):
    file = JsonLines(tmp_path / "metrics.jsonl", keep=lambda _: True)
    file.append({"step": 1})
    path = type(tmp_path)
    opened = path.open

    def half_of_it(self, mode):
        with opened(self, mode) as file:
            file.write('{"st')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(path, "open", half_of_it)
        file.append({"step": 2})
    assert "metrics.jsonl cannot be written now (No space left on device)" in capsys.readouterr().out
    assert lines(tmp_path) == [{"step": 1}]
    file.append({"step": 3})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("space", [True, False])
def test_what_is_pending_is_written_at_the_end(tmp_path, monkeypatch, capsys, space):
    def full(*_):
        raise OSError(28, "No space left on device")

    summaries = Summaries(tmp_path, 0)
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", full)
        summaries.scalars(1, {"loss": 1.0})
        if not space:
            summaries.close()
    summaries.close()
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]
    assert ("its last lines are lost" in capsys.readouterr().out) != space


def test_who_only_reads_counts_and_leaves_the_file_alone(tmp_path):
    written(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    file = JsonLines(tmp_path / "metrics.jsonl", lambda line: line["step"] < 2, read_only=True)
    file.append({"step": 2})
    assert file.count == 3
    assert (tmp_path / "metrics.jsonl").read_text() == before
