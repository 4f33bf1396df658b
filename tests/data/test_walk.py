"""Which files in folders are taken, which left alone, and which named."""

import errno

import pytest

from ovenet_jax.data.walk import counted, said, walk
from ovenet_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/c.PNG", "a/d.bmp", "e.bmp", "README", ".f.png", "._b.png", ".ipynb_checkpoints/b.png"):
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "folder"


def test_hidden_names_are_left_alone_and_others_counted_and_named(folder):
    found, left_out = walk(folder, (".png",))
    assert found == [folder / "a/c.PNG", folder / "b.png"]
    assert said(counted(left_out)) == [
        f"files without a suffix left out (only .png are read): 1; the first: {folder}/README",
        f"files .bmp left out (only .png are read): 2; the first: {folder}/a/d.bmp",
    ]


def test_files_without_the_end_are_named(folder):
    (folder / "x_label.png").touch()
    (folder / "x_label.json").touch()
    found, left_out = walk(folder, (".png",), "_label")
    assert found == [folder / "x_label.png"]
    assert ("files whose names do not end in _label left out", f"{folder}/b.png") in left_out
    assert f"{folder}/x_label.json" in [file for _, file in left_out]


def test_links_to_folders_are_followed(folder):
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "far.png").touch()
    (folder / "link").symlink_to(elsewhere)
    assert folder / "link/far.png" in walk(folder, (".png",))[0]


@pytest.mark.parametrize("target", ["..", "../..", "."])
def test_a_link_back_is_named_and_no_folder_in_it(folder, target):
    link = folder / "a/loop"
    link.symlink_to(target)
    with pytest.raises(UserError) as error:
        walk(folder, (".png",))
    assert str(error.value) == f"{link} is a link to {link.resolve()}, which contains it; remove the link."


def test_of_links_that_lead_back_the_last_is_named(folder):
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    (folder / "far").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to("..")
    with pytest.raises(UserError, match=rf"{folder}/far/back is a link to {folder.parent}, which contains it"):
        walk(folder, (".png",))


def test_a_link_to_itself_is_named_and_not_its_folder(folder):
    (folder / "a/self").symlink_to("self")
    with pytest.raises(UserError, match=r"folder/a/self cannot be read \(Too many levels of symbolic links\); mend it"):
        walk(folder, (".png",))


def test_a_folder_that_is_not_there_is_named(folder):
    with pytest.raises(UserError, match=r"folder/nowhere cannot be read \(No such file or directory\)"):
        walk(folder / "nowhere", (".png",))


def test_a_folder_without_rights_is_named(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)  # root may read every folder
    with pytest.raises(UserError, match=r"folder cannot be read \(Permission denied\); mend it or move it away"):
        walk(folder, (".png",))


def test_a_link_to_nothing_is_found_so_that_reading_it_names_it(folder):
    (folder / "x.png").symlink_to("nowhere")
    assert folder / "x.png" in walk(folder, (".png",))[0]
