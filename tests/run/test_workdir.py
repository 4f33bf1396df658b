import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext

import pytest
from ml_collections import ConfigDict

from configs import camvid
from ovenet_jax import described
from ovenet_jax.errors import UserError
from ovenet_jax.run import workdir
from tests.places import ROOT


def config(**changes):
    found = ConfigDict({**camvid.get_config("hrnet_tiny").to_dict(), "steps": 10, "report_every": 5})
    found.data.update({"root": "a", "workers": 0})
    with found.ignore_type():
        found.update(changes)
    return found


def begin(folder, settings):
    """A run of this config that has a checkpoint."""
    workdir.claim(folder, settings)
    (folder / "checkpoints" / "1").mkdir(parents=True)


def test_an_import_of_other_classes_than_its_config_has_weights_for_is_read(tmp_path):
    settings = config()
    settings.model.num_classes = 21  # given to --mode=import, which needs no weights of classes
    workdir.claim(tmp_path, settings)
    assert workdir.config_of(tmp_path).model.num_classes == 21


def test_a_folder_is_claimed_and_open_to_the_same_config(tmp_path):
    begin(tmp_path / "run", config())
    workdir.check(tmp_path / "run", config())
    assert described.with_tuples(json.loads((tmp_path / "run" / "config.json").read_text())) == config().to_dict()


def test_what_only_feeds_or_watches_a_run_may_change(tmp_path):
    begin(tmp_path, config())
    changed = config(report_every=7, data={"root": "b", "workers": 4, "test_split": "val"}, eval={"scales": (1.0,)})
    workdir.check(tmp_path, changed)
    workdir.claim(tmp_path, changed)
    assert json.loads((tmp_path / "config.json").read_text())["data"]["workers"] == 4


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"steps": 20}, "steps is 10 in the run and 20 now.*; to train longer add --config.init.base="),
        ({"model": {"backbone": {"width": 8}}}, "model.backbone.width is 12 in the run and 8 now"),
        ({"extra": 1}, "extra is 'absent' in the run and 1 now"),
    ],
)
def test_another_configs_run_is_not_touched(tmp_path, changes, difference):
    begin(tmp_path, config())
    with pytest.raises(UserError, match="holds the run of another config") as error:
        workdir.check(tmp_path, config(**changes))
    assert re.search(difference, str(error.value))
    assert "choose another --workdir" in str(error.value)
    assert (f"to train longer add --config.init.base={tmp_path}" in str(error.value)) == ("steps" in changes)


@pytest.mark.parametrize("off", [None, False, 0, 0.0, "", ()])
def test_a_key_of_another_version_that_turns_nothing_on_makes_no_difference(tmp_path, off):
    begin(tmp_path / "earlier", config())
    workdir.check(tmp_path / "earlier", config(extra=off))
    begin(tmp_path / "later", config(extra=off))
    workdir.check(tmp_path / "later", config())


# ---- one at a time ----


def holder(folder, host=None, process=10**7, kernel=""):
    """As a process that has the folder names itself."""
    (folder / workdir.HOLDER).write_text(f"{host or socket.gethostname()}\n{process}\n2026-01-01 00:00:00\n{kernel}")


def test_a_second_training_is_told_who_holds_the_folder(tmp_path):
    with workdir.held(tmp_path / "run"):
        said = f"run is held by process {os.getpid()} on {socket.gethostname()}, since 20.*; wait for its end, or"
        with pytest.raises(UserError, match=said) as error, workdir.held(tmp_path / "run"):
            pass
        assert error.value.exit_code == 2
    with workdir.held(tmp_path / "run"):
        pass


@pytest.mark.parametrize("host", [socket.gethostname(), "a container of this machine"])
def test_a_holder_that_has_died_is_taken_over(tmp_path, monkeypatch, host):
    code = (
        "import os, signal, sys; from pathlib import Path; from ovenet_jax.run import workdir\n"
        "with workdir.held(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT).returncode == -signal.SIGKILL
    assert (tmp_path / workdir.HOLDER).read_text().startswith(f"{socket.gethostname()}\n")
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    with workdir.held(tmp_path):
        assert (tmp_path / workdir.HOLDER).read_text().split("\n")[1] == str(os.getpid())
    assert (tmp_path / workdir.HOLDER).read_text() == ""


def test_a_holder_on_another_host_is_named_with_how_to_take_over(tmp_path):
    holder(tmp_path, host="elsewhere")
    said = f"process 10000000 on elsewhere, since .*, or delete {tmp_path / workdir.HOLDER} if that has ended"
    with pytest.raises(UserError, match=said), workdir.held(tmp_path):
        pass


@pytest.mark.parametrize(
    ("host", "process", "free"), [(None, 10**7, True), (None, os.getppid(), False), ("a container", 10**7, False)]
)
def test_without_locks_the_holder_is_asked_for(tmp_path, monkeypatch, host, process, free):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    holder(tmp_path, host, process, workdir.KERNEL.read_text().strip())
    with nullcontext() if free else pytest.raises(UserError, match="is held by"), workdir.held(tmp_path):
        pass


@pytest.mark.parametrize("note", [b"\xff{", b"3\n\n\n\n", bytes(100)])
def test_a_damaged_note_of_the_holder_says_how_to_go_on(tmp_path, note):
    (tmp_path / workdir.HOLDER).write_bytes(note)
    with pytest.raises(UserError, match="is held by .* or delete .* if that has ended"), workdir.held(tmp_path):
        pass


# ---- damage ----


def test_a_start_that_left_no_checkpoint_binds_nobody(tmp_path):
    workdir.claim(tmp_path, config())
    (tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp").mkdir(parents=True)  # of an interrupted save
    assert not workdir.has_checkpoint(tmp_path)
    workdir.check(tmp_path, config(steps=20))


def test_no_training_goes_on_in_a_folder_of_imported_weights(tmp_path):
    begin(tmp_path, config())
    (tmp_path / workdir.IMPORT_REPORT).write_text("{}")
    with pytest.raises(UserError, match=f"train from them with --config.init.base={tmp_path} and another"):
        workdir.check(tmp_path, config())


def test_a_run_stays_one_where_somebody_puts_weights_beside_its_checkpoints(tmp_path):
    workdir.claim(tmp_path, config())
    (tmp_path / workdir.WEIGHTS).touch()
    with pytest.raises(UserError, match="holds weights, not a run"):
        workdir.check(tmp_path, config())
    begin(tmp_path, config())
    workdir.check(tmp_path, config())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file cannot be written .*; fix that or choose another --workdir"):
        workdir.claim(tmp_path / "file", config())


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"steps": 1')
    with pytest.raises(UserError, match="config.json is damaged"):
        workdir.check(tmp_path, config())


def test_another_data_set_is_refused_and_another_model_noted_in_evaluation(tmp_path, capsys):
    begin(tmp_path, config(data={"name": "camvid"}))
    workdir.note_differences(tmp_path, config(data={"name": "camvid"}, model={"backbone": {"width": 8}}))
    assert f"config.model.backbone.width is 8; {tmp_path} was trained with 12" in capsys.readouterr().out
    with pytest.raises(UserError, match="was trained on 'camvid', not on 'acdc'"):
        workdir.note_differences(tmp_path, config(data={"name": "acdc"}))


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        workdir.note_differences(tmp_path, config())
