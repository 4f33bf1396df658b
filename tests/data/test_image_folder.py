"""Folders of images to predict."""

from ovenet_jax.data import image_files
from ovenet_jax.data.image_folder import ImageFolder
from tests import trees

RGB = trees.image((6, 8))


def test_an_odd_image_to_predict_is_named(tmp_path):
    (tmp_path / "deep.png").write_bytes(image_files.encoded(RGB)[:-20])
    assert ImageFolder(tmp_path)[0] == {"fault": f"{tmp_path}/deep.png: does not decode as an image", "name": "deep"}


def test_images_to_predict_are_found_and_named_apart(tmp_path):
    for name in ("a.png", "a.jpg", "a.jpg.jpg", "b.PNG", "deep/a.left.png", "deep/.hidden.png", ".trash/c.png"):
        trees.write_image(tmp_path / name, RGB)
    (tmp_path / "notes.txt").write_text("")
    source = ImageFolder(tmp_path)
    assert source.names == ["a.jpg", "a.jpg.jpg", "a.png", "b", "deep/a.left"]
    assert source.left_out == [
        f"files .txt left out (only {', '.join(image_files.PREDICTED_SUFFIXES)} are read): 1; the first: "
        f"{tmp_path}/notes.txt"
    ]
    assert ImageFolder(tmp_path / "a.png").names == ["a"]
