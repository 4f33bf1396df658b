"""Which files in folders are taken, which left alone, and which named."""

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
        f"1 files without a suffix left out (only .png are read); the first: {folder}/README",
        f"2 files .bmp left out (only .png are read); the first: {folder}/a/d.bmp",
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
def test_a_link_back_is_named(folder, target):
    (folder / "a" / "loop").symlink_to(target)
    with pytest.raises(UserError, match=r"(loop|folder) is a link to its own parent folder .*; remove the link"):
        walk(folder, (".png",))


def test_a_folder_that_cannot_be_read_is_named(folder):
    (folder / "a" / "self").symlink_to("self")
    with pytest.raises(UserError, match=r"folder/a cannot be read \(Too many levels of symbolic links\)"):
        walk(folder, (".png",))
