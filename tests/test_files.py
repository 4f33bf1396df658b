"""Files and folders of ours: the old or the new after any fault, and one sentence about those that are damaged."""

import errno
import json
import os
import resource
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from ovenet_jax import files
from ovenet_jax.errors import UserError

FULL = OSError(28, "No space left on device")


@contextmanager
def fault(number: int, error: BaseException):
    """The call to the disk of this number, from 0, fails; yields a list of the calls."""
    calls = []

    def watched(name, call):
        def watched_call(*arguments, **options):
            calls.append(name)
            if len(calls) == number + 1:
                raise error
            return call(*arguments, **options)

        return watched_call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((os, "fsync"), *((Path, name) for name in ("open", "mkdir", "replace", "rename"))):
            patch.setattr(owner, name, watched(name, getattr(owner, name)))
        yield calls


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- writing ----


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path):
    file = tmp_path / "new/folder/a.json"
    files.write_json(file, {"a": (1, None)})
    assert json.loads(file.read_text()) == {"a": [1, None]}
    files.write(file, b"\x00\xff")
    files.write(file.with_name("b"), "é")
    assert everything(tmp_path) == {"new/folder/a.json": b"\x00\xff", "new/folder/b": "é".encode()}


def test_json_has_no_nan_and_no_infinity(tmp_path):
    odd = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (np.float64("-inf"), True, None)}}
    files.write_json(tmp_path / "a.json", odd)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.5, None], "c": {"d": [None, True, None]}}
    assert files.to_json({"a": [1, float("nan")]}) == '{"a": [1, null]}'


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "\N{HORSE}" * 63])
def test_names_of_any_length_are_written(tmp_path, name):
    files.write(tmp_path / name, "content")
    assert everything(tmp_path) == {name: b"content"}
    with files.new_folder(tmp_path / "out" / name, "--out") as folder:
        files.write(folder / "a", "1")
    assert (tmp_path / "out" / name / "a").exists()


def test_a_name_of_any_bytes_is_written_into_a_text(tmp_path):
    files.write(tmp_path / "faults.txt", "café caf\udce9")
    assert (tmp_path / "faults.txt").read_bytes() == b"caf\xc3\xa9 caf\\udce9"


def test_a_place_is_known_by_any_of_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(UserError, match="^out cannot be written .No space left on device.; fix that or choose another"),
        files.new_folder(Path("out"), "--out") as folder,
    ):
        raise OSError(28, "No space left on device", str(folder.absolute() / "a"))


def test_a_file_elsewhere_that_fails_is_not_called_a_failure_to_write(tmp_path):
    with (
        pytest.raises(UserError, match="/elsewhere cannot be used .No such file.*, so nothing was written at"),
        files.new_folder(tmp_path / "out", "--out") as folder,
    ):
        files.write(folder / "a", Path(tmp_path / "elsewhere").read_bytes())


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 75), (errno.EACCES, 2), (errno.EROFS, 2)])
def test_after_a_full_disk_the_same_command_goes_on(tmp_path, number, code):
    with pytest.raises(UserError, match="cannot be written") as refusal, files.writing(tmp_path, "--workdir"):
        raise OSError(number, os.strerror(number), str(tmp_path))
    assert refusal.value.exit_code == code


def test_what_the_machine_does_is_not_called_a_failure_of_a_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many"), files.writing(tmp_path, "--workdir"):
        fail()
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Too many"):
        files.read_json(tmp_path / "data.json", FORM, "delete it")


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "interrupted"])
def test_after_any_fault_a_file_is_the_old_or_the_new_one(tmp_path, error):
    file = tmp_path / "file"
    for number in count():
        files.write(file, "old")
        with fault(number, error) as calls:
            try:
                files.write(file, "new")
                break
            except type(error) as raised:
                assert raised is error or (raised.errno, raised.filename) == (28, str(file))
        assert everything(tmp_path) == {"file": b"new" if "replace" in calls[:number] else b"old"}
    assert calls == ["mkdir", "open", "fsync", "replace", "fsync"]
    assert everything(tmp_path) == {"file": b"new"}


def test_half_a_file_is_none(tmp_path):
    file = tmp_path / "file"
    files.write(file, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{file}'"):
            files.write(file, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert everything(tmp_path) == {"file": b"old"}


def test_new_folders_are_flushed_with_those_they_stand_in(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def watched(descriptor):
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    files.make_folder(tmp_path / "a/b")
    assert flushed == [tmp_path / "a", tmp_path]
    flushed.clear()
    with files.new_folder(tmp_path / "out", "--out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub/file").touch()
    assert set(flushed) == {tmp_path, folder, folder / "sub", folder / "sub/file"}
    assert flushed[-1] == tmp_path


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "interrupted"])
def test_after_any_fault_a_folder_is_whole_or_not_there(tmp_path, error):
    whole = {"out/a": b"1", "out/sub/b": b"2"}
    for number in count():
        parent = tmp_path / str(number)
        files.make_folder(parent)
        with fault(number, error) as calls:
            try:
                with files.new_folder(parent / "out", "--out") as folder:
                    files.write(folder / "a", "1")
                    files.write(folder / "sub/b", "2")
                break
            except (UserError, KeyboardInterrupt) as raised:
                message = f"{parent}/out cannot be written (No space left on device); fix that or choose another --out."
                assert raised is error or str(raised) == message
        assert everything(parent) == (whole if "rename" in calls[:number] else {})
        assert not list(parent.glob(".*"))
    assert everything(parent) == whole
    assert number > 10


def test_a_folder_that_is_there_is_not_overwritten_and_one_that_stays_empty_does_not_come(tmp_path):
    with files.new_folder(tmp_path / "out", "--out"):
        pass
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with (
        pytest.raises(UserError, match="out exists already .*; move it away, or choose another --out"),
        files.new_folder(tmp_path / "out", "--out"),
    ):
        raise AssertionError


# ---- reading ----

FORM = {"name": str, "steps": int, "rate": float, "splits": [{"images": int}], "origins": {str: str}}
SOUND = {"name": "a", "steps": 1, "rate": 1, "splits": [{"images": 3}], "origins": {"head": "new"}, "more": None}


def test_what_is_sound_is_read(tmp_path):
    files.write_json(tmp_path / "a.json", SOUND)
    assert files.read_json(tmp_path / "a.json", FORM, "no remedy") == SOUND


DAMAGED = {
    "cut off": (json.dumps(SOUND)[:-5], "damaged (Expecting"),
    "empty": ("", "damaged (Expecting value"),
    "binary": (b"\x80\x02}q\x00.", "damaged ('utf-8' codec can't decode"),
    "zeros": (bytes(100), "damaged (Expecting value"),
    "too deep": ("[" * 100_000, "damaged (it is nested too deeply)"),
    "another type": ("[]", "damaged (it is a list, expected an object)"),
    "no key": ('{"name": "a"}', "damaged (it has no key 'steps')"),
    "a value of another type": (json.dumps(SOUND | {"name": None}), "damaged (it['name'] is null, expected a text)"),
    "a fraction": (json.dumps(SOUND | {"steps": 1.5}), "damaged (it['steps'] is a number, expected a whole number)"),
    "an odd value of any key": (
        json.dumps(SOUND | {"origins": {"head": "new", "neck": ["new"]}}),
        "damaged (it['origins']['neck'] is a list, expected a text)",
    ),
    "an odd element": (
        json.dumps(SOUND | {"splits": [{"images": 1}, {"images": "3"}]}),
        "damaged (it['splits'][1]['images'] is a text, expected a whole number)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_damaged_gets_one_sentence_with_the_remedy(tmp_path, damage):
    content, sentence = DAMAGED[damage]
    file = tmp_path / "a.json"
    files.write(file, content)
    with pytest.raises(UserError) as error:
        files.read_json(file, FORM, "choose another --workdir")
    assert str(error.value).startswith(f"{file} is {sentence}")
    assert str(error.value).endswith("; choose another --workdir.")


def test_what_is_not_there_gets_one_sentence_with_the_remedy(tmp_path):
    for file, cause in ((tmp_path / "a.json", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError) as error:
            files.read_json(file, FORM, "choose another --workdir")
        assert str(error.value) == f"{file} cannot be read ({cause}); choose another --workdir."


def test_a_fault_of_the_system_is_no_damage(tmp_path, monkeypatch):
    def stale(file):
        raise OSError(errno.ESTALE, "Stale file handle", str(file))

    monkeypatch.setattr(Path, "read_bytes", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        files.read_json(tmp_path / "a.json", FORM, "delete it")
