import errno
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.run import checksums, workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.run.state import TrainState
from tests.places import ROOT

OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def state(step=0, value=1.0, size=3, devices=8):
    params = {"head.kernel": np.full((2, size), value, np.float32)}
    opt_state = jax.tree.map(lambda x: x + value, OPTIMIZER.init(params))
    state = TrainState(jnp.int32(step), params, {"norm.mean": np.full(size, value, np.float32)}, opt_state)
    return jax.device_put(state, parallel.replicated(parallel.create_mesh(jax.devices()[:devices])))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def test_the_whole_state_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(5, 2.5))
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 5
    assert_equal(again.restore_latest(state()), (state(5, 2.5), ()))
    step, params, statistics = again.restore_model("latest", state().params, state().statistics)
    assert step == 5
    assert_equal(params, state(5, 2.5).params)
    assert_equal(statistics, state(5, 2.5).statistics)


def test_the_best_and_the_two_latest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step, miou in ((1, 0.1), (2, 0.9), (3, 0.3), (4, None), (5, 0.2)):
        checkpoints.save(state(step))
        if miou is not None:
            checkpoints.score(step, miou)
    checkpoints.close()
    assert steps(tmp_path) == [2, 4, 5]
    again = Checkpoints(tmp_path)
    assert (again.step_of(), again.latest_step()) == (2, 5)
    assert [again.is_scored(step) for step in (2, 4, 5)] == [True, False, True]
    assert_equal(again.restore_latest(state()), (state(5), ()))


def test_a_later_score_makes_the_best_of_a_checkpoint(tmp_path):
    """As when the evaluation was interrupted: the next start makes up for it."""
    with closing(Checkpoints(tmp_path)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step))
        checkpoints.score(1, 0.5)
        assert checkpoints.step_of() == 1
    with closing(Checkpoints(tmp_path)) as again:
        again.score(2, 0.6)
        assert again.step_of() == 2


def test_the_earliest_of_equal_scores_is_the_best_and_is_kept(tmp_path):
    with closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(state(step))
            checkpoints.score(step, 0.5)
        assert checkpoints.step_of() == 1
    assert steps(tmp_path) == [1, 4]


def test_without_an_evaluation_the_latest_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    assert checkpoints.step_of() == 2
    checkpoints.close()


def test_a_model_alone_is_the_best_and_latest_checkpoint(tmp_path):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save_model(state(value=3.0).params, state(value=4.0).statistics)
    with closing(Checkpoints(tmp_path, read_only=True)) as again:
        assert (again.step_of(), again.latest_step()) == (0, 0)
        _, params, statistics = again.restore_model("best", state().params, state().statistics)
    assert_equal(params, state(value=3.0).params)
    assert_equal(statistics, state(value=4.0).statistics)


def test_what_an_interrupted_save_left_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1, 1.5))
    checkpoints.close()
    (tmp_path / "2.orbax-checkpoint-tmp" / "model").mkdir(parents=True)
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 1
    again.save(state(2))
    again.close()
    assert 2 in steps(tmp_path)


def test_a_checkpoint_counts_only_once_its_background_check_is_over(tmp_path, monkeypatch):
    """What a process that ends amid the check leaves: the next one goes on from the checkpoint before."""
    write, left = checksums.write, tmp_path / "left"

    def check_slowly(unfinished):
        if unfinished.name.startswith("2."):
            shutil.copytree(tmp_path / "run", left)
        write(unfinished)

    with monkeypatch.context() as patch, closing(Checkpoints(tmp_path / "run")) as checkpoints:
        patch.setattr(checksums, "write", check_slowly)
        for step in (1, 2):
            checkpoints.save(state(step, step))
        checkpoints.wait()
    assert any((path / "model").is_dir() for path in left.iterdir() if path.name.startswith("2."))
    with closing(Checkpoints(left)) as checkpoints:
        assert_equal(checkpoints.restore_latest(state()), (state(1, 1), ()))
        checkpoints.save(state(2, 3.0))
        checkpoints.check_saved(2)
    assert steps(left) == [1, 2]


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    checkpoints.close()
    with pytest.raises(UserError, match="Checkpoint 1 in .* is of another model in 2 arrays, the first") as error:
        Checkpoints(tmp_path).restore_latest(state(size=4))
    assert "head.kernel: (2, 3) in the checkpoint, (2, 4) in the config's model" in str(error.value)


def test_averages_are_the_model_and_the_rest_comes_back_beside_them(tmp_path):
    def averaging(step, value, average):
        ema = (state(value=average).params, state(value=average).statistics)
        return state(step, value)._replace(ema=ema)

    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(averaging(5, 2.5, 1.5))
    with closing(Checkpoints(tmp_path)) as again:
        assert_equal(again.restore_latest(averaging(0, 0.0, 0.0)), (averaging(5, 2.5, 1.5), ()))
        _, params, statistics = again.restore_model("best", state().params, state().statistics)
    assert_equal((params, statistics), averaging(5, 2.5, 1.5).ema)


@pytest.mark.parametrize(("trained_on", "goes_on_on"), [(8, 1), (1, 8)])
def test_a_state_comes_back_on_another_number_of_devices(tmp_path, trained_on, goes_on_on):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(state(5, 2.5, devices=trained_on), {"loss": state(5, devices=trained_on).step})
    like = state(devices=goes_on_on)
    with closing(Checkpoints(tmp_path)) as checkpoints:
        restored, collected = checkpoints.restore_latest(like, {"loss": like.step})
    assert_equal(restored, state(5, 2.5, devices=goes_on_on))
    assert collected == {"loss": 5}
    jax.tree.map(lambda x, y: x.sharding == y.sharding or pytest.fail(str(x.sharding)), restored, like)


def test_averages_of_other_measures_do_not_come_back(tmp_path, capsys):
    """As after an update of this package: the state does come back."""
    zero, five = state().step, state(5).step
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(state(5, 2.5), {"loss": five, "accuracy": five})
    with closing(Checkpoints(tmp_path)) as checkpoints:
        assert_equal(checkpoints.restore_latest(state(), {"loss": zero}), (state(5, 2.5), {"loss": zero}))
    assert "Note: checkpoint 5 holds averages of other metrics" in capsys.readouterr().out


def damage(folder):
    """Cuts all files of a checkpoint short, as a machine that lost power may leave them."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        file.write_bytes(file.read_bytes()[:10])


def test_the_one_before_a_damaged_checkpoint_is_used(tmp_path, capsys):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step, step))
    damage(tmp_path / "2")
    with closing(Checkpoints(tmp_path)) as checkpoints:
        assert_equal(checkpoints.restore_latest(state()), (state(1, 1), ()))
        assert "checkpoint 2 in" in capsys.readouterr().out
        assert (tmp_path / "2.damaged").is_dir()
        checkpoints.save(state(2, 3.0))
        checkpoints.check_saved(2)
        assert_equal(checkpoints.restore_latest(state()), (state(2, 3.0), ()))


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_a_fault_of_the_machine_sets_no_checkpoint_aside(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    with closing(Checkpoints(tmp_path)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step, step))
    with closing(Checkpoints(tmp_path)) as checkpoints:
        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr("ovenet_jax.run.checksums.check", fail)
            checkpoints.restore_latest(state())
        assert_equal(checkpoints.restore_latest(state()), (state(2, 2), ()))
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), ValueError("Reading [os_error_code='5']")])
def test_a_file_that_the_disk_cannot_read_is_damaged(tmp_path, monkeypatch, error):
    def check(folder, _):
        if folder.name == "2":
            raise error

    with closing(Checkpoints(tmp_path)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step, step))
        monkeypatch.setattr("ovenet_jax.run.checksums.check", check)
        assert_equal(checkpoints.restore_latest(state()), (state(1, 1), ()))


def test_no_flipped_bit_goes_unnoticed(tmp_path, capsys):
    """In any file that a restore reads: the checkpoint is set aside, and the one before is used."""
    with closing(Checkpoints(tmp_path / "whole")) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step, step))
            checkpoints.score(step, step / 10)
    whole = tmp_path / "whole"
    paths = [p for item in ("model", "training") for p in (whole / "2" / item).rglob("*") if p.is_file()]
    rng = random.Random(0)
    for number, path in enumerate(paths):
        folder = shutil.copytree(whole, tmp_path / str(number))
        file = folder / path.relative_to(whole)
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        if "model" in path.parts and number % 3:
            with closing(Checkpoints(folder, read_only=True)) as checkpoints:
                step, params, _ = checkpoints.restore_model("best", state().params, state().statistics)
            assert step == 1
            assert_equal(params, state(1, 1).params)
        else:
            with closing(Checkpoints(folder)) as checkpoints:
                assert_equal(checkpoints.restore_latest(state()), (state(1, 1), ()))
        assert "; it is renamed to 2.damaged, and checkpoint 1 is used." in capsys.readouterr().out
        assert (folder / "2.damaged").is_dir()
    assert len(paths) > 6


def test_the_best_of_the_others_stands_in_for_a_damaged_best(tmp_path, monkeypatch, capsys):
    """Also where the damage is seen by another process alone, and where nothing can be renamed."""
    with closing(Checkpoints(tmp_path)) as checkpoints:
        for step, miou in ((1, 0.9), (2, 0.5), (3, 0.4)):
            checkpoints.save(state(step, step))
            checkpoints.score(step, miou)
    like = state().params, state().statistics
    found = ["damaged there", ""]
    with closing(Checkpoints(tmp_path, read_only=True)) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(parallel, "gather", lambda own: [own, found.pop(0) if found else ""])
        patch.setattr(Path, "rename", lambda path, _: path.rmdir())
        assert checkpoints.restore_model("best", *like)[0] == 2
        assert "checkpoint 1 in" in (said := capsys.readouterr().out)
        assert "(damaged there); it could not be renamed (Directory not empty), and checkpoint 2 is used" in said
    damage(tmp_path / "3")
    with closing(Checkpoints(tmp_path, read_only=True)) as checkpoints:
        assert [checkpoints.restore_model(which, *like)[0] for which in ("best", "latest")] == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3.damaged"]


def test_a_reader_renames_nothing_beside_a_training_but_its_own(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    with closing(Checkpoints(folder)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step, step))
    damage(folder / "2")
    others, own = (workdir.held(tmp_path), False), (workdir.held(tmp_path), True)
    cases = (others, ["1", "2"]), ((nullcontext(), False), ["1", "2.damaged"]), (own, ["1", "2.damaged"])
    for (training, held), left in cases:
        if held:
            (folder / "2.damaged").rename(folder / "2")
        with training, closing(Checkpoints(folder, read_only=True, held=held)) as checkpoints:
            assert checkpoints.restore_model("best", state().params, state().statistics)[0] == 1
        said = capsys.readouterr().out
        assert ("it could not be renamed (" in said and "which trains or imports there" in said) == ("2" in left)
        assert sorted(path.name for path in folder.iterdir()) == left


def test_a_checkpoint_without_checksums_is_read(tmp_path):
    """As commit 27140ce has written them."""
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(state(1, 1.5))
    (tmp_path / "1/xxh3.json").unlink()
    with closing(Checkpoints(tmp_path)) as checkpoints:
        assert_equal(checkpoints.restore_latest(state()), (state(1, 1.5), ()))


@pytest.mark.parametrize("score", [b"", b"\xff", b"[]", b'{"miou": "high"}', b'{"miou": NaN}', b"{}"])
def test_a_damaged_score_counts_as_none(tmp_path, score):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        for step, miou in ((1, 0.1), (2, 0.9), (3, 0.3)):
            checkpoints.save(state(step))
            checkpoints.score(step, miou)
    (tmp_path / "2/metrics/metrics").write_bytes(score)
    with closing(Checkpoints(tmp_path)) as checkpoints:
        assert [checkpoints.is_scored(step) for step in (2, 3)] == [False, True]
        assert checkpoints.step_of() == 3
        assert_equal(checkpoints.restore_latest(state()), (state(3), ()))
        checkpoints.score(2, 0.8)
        assert checkpoints.step_of() == 2


@pytest.mark.parametrize("name", ["runs [v2]", "a*b", "what?", "a\\b"])
def test_a_path_whose_checkpoints_could_not_be_read_is_refused(tmp_path, name):
    with pytest.raises(
        UserError, match="contains ., so that checkpoints could be written but not read; choose another"
    ):
        Checkpoints(tmp_path / name / "checkpoints")


ODD = ["a b", "\u00fc", "100%", "a#b", "a:b", "{x}", "~a", "c]", "a'b\"c", "$HOME", "-a", "a\nb", "a ", "@a&b=c"]


@pytest.mark.parametrize("name", ODD)
def test_other_odd_paths_work(tmp_path, name):
    with closing(Checkpoints(tmp_path / name)) as checkpoints:
        checkpoints.save(state(1, 1.5))
        checkpoints.check_saved(1)
        assert_equal(checkpoints.restore_latest(state()), (state(1, 1.5), ()))


def test_where_no_checkpoint_can_be_read_none_is_touched(tmp_path):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step))
    for step in (1, 2):
        damage(tmp_path / str(step))
    with closing(Checkpoints(tmp_path)) as checkpoints, pytest.raises(UserError, match="No checkpoint in .* can be"):
        checkpoints.restore_latest(state())
    assert steps(tmp_path) == [1, 2]


@contextmanager
def no_file_longer_than(size):
    """As on a full disk, writing fails; it is the file system that refuses, in whichever thread."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_fails_is_said_and_the_next_one_is_tried(tmp_path, capsys):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.check_saved(1)
        with no_file_longer_than(100):
            checkpoints.save(state(2))
            checkpoints.wait()
        assert "Warning: step 2 could not be saved in" in capsys.readouterr().out
        with pytest.raises(UserError, match="Step 2 could not be saved .* the same command goes on from checkpoint 1"):
            checkpoints.check_saved(2)
        checkpoints.score(2, 0.5)
        assert checkpoints.step_of() == 1
        checkpoints.save(state(3))
        checkpoints.check_saved(3)
        checkpoints.save(state(4))
    assert steps(tmp_path) == [3, 4]  # what was half written is gone


def test_a_disk_without_space_is_not_even_tried(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60))
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(state(1))
        assert "step 1 could not be saved in" in capsys.readouterr().out
        with pytest.raises(UserError, match="Step 1 could not be saved .* the same command starts anew"):
            checkpoints.check_saved(1)


def test_another_fault_of_a_save_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("a fault of the program")

    with closing(Checkpoints(tmp_path)) as checkpoints:
        monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", fail)
        with pytest.raises(ValueError, match="a fault of the program"):
            checkpoints.save(state(1))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="checkpoints cannot be written .*; fix that or choose another --workdir"):
        Checkpoints(tmp_path / "checkpoints")


@pytest.fixture
def without_rights():
    """A folder that cannot be written by who runs the test; root, who may write everywhere, is nobody meanwhile."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # all may look into it, unlike into tmp_path
        Path(folder).chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        yield Path(folder)
        os.seteuid(user)


def test_a_folder_without_rights_is_named_before_anything_is_saved(without_rights):
    with pytest.raises(UserError, match="cannot be written .Permission denied.; fix that or choose another --workdir"):
        Checkpoints(without_rights)


def test_orbax_stays_as_it_was_for_the_rest_of_the_process(tmp_path):
    """It writes our arrays in our way, others' in its own, and nothing is printed."""
    code = f"""
import jax, numpy, orbax.checkpoint as ocp
types = [jax.Array, numpy.ndarray, *ocp.type_handlers.supported_types()]
before = [ocp.type_handlers.get_type_handler(type) for type in types]
from pathlib import Path
from ovenet_jax.run.checkpoint import Checkpoints
model = {{"kernel": jax.numpy.ones(3)}}, {{"mean": jax.numpy.ones(3)}}
checkpoints = Checkpoints(Path({str(tmp_path)!r}))
checkpoints.save_model(*model)
assert checkpoints.restore_model("best", *model)[1]["kernel"].sum() == 3
checkpoints.close()
after = [ocp.type_handlers.get_type_handler(type) for type in types]
assert all(x is y for x, y in zip(before, after, strict=True))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
