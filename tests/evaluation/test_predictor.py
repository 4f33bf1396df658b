"""A network called from a program says what --mode=predict writes, of images of any kind."""

import re
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import methodcaller

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

import ovenet_jax
from configs import camvid
from ovenet_jax.data.image_files import encoded, write_picture
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation import inference
from ovenet_jax.predict import predict
from ovenet_jax.segfix.files import read_offsets
from tests import trees
from tests.camvid_tree import write_tree
from tests.places import ROOT
from tests.untrained import save_untrained, tiny

SIZES = {"a": (32, 48), "b": (40, 30), "c": (32, 48)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder, of an OVeNet on a small ResNet, whose predictions of `images` by the command are there."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny(camvid.get_config("ovenet_tiny"), write_tree(folder, size=(32, 48)))
    config.predict.update({"ids": "train_ids", "offsets": True})
    save_untrained(config, folder)
    for name, size in SIZES.items():
        write_picture(folder / "images" / f"{name}.png", trees.image(size))
    assert predict(config, folder, folder / "images")
    return folder


@pytest.fixture(scope="module")
def network(run):
    return ovenet_jax.load(run)


def files(run):
    return [run / "images" / f"{name}.png" for name in SIZES]


def test_all_pixels_are_those_of_the_command(run, network):
    written = run / "predictions" / "images"
    for name, prediction in zip(SIZES, network.predict(files(run)), strict=True):
        label_map = cv2.imread(str(written / f"label_maps/{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(prediction.label_map, label_map)
        assert encoded(prediction.overlay(), ".jpg") == (written / f"overlays/{name}.jpg").read_bytes()
        offsets = read_offsets(written / f"offsets/{name}.png", SIZES[name])
        np.testing.assert_array_equal(prediction.offsets.offset, offsets.offset)
        np.testing.assert_allclose(prediction.offsets.confidence, offsets.confidence, atol=1 / 255)
        assert prediction.classes.names[0] == "sky" and len(prediction.classes.colors) == 11


def test_the_examples_of_the_pages_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("demo-ovenet", "camvid-ovenet"):
        (tmp_path / "runs" / name).symlink_to(run)
    pages = "\n".join((ROOT / page).read_text() for page in ("docs/index.md", "docs/api.md"))
    (in_readme,) = re.findall(r"In a program:\n\n((?: {4}.*\n|\n)+)", (ROOT / "README.md").read_text())
    known = {}
    for example in re.findall(r"```python\n(.*?)```", pages, re.DOTALL):
        exec(example, known)
    np.testing.assert_allclose(known["seed"], known["output"].seed.main, atol=1e-6)
    assert known["fused"].shape == (*known["first"].label_map.shape, 11)
    assert known["offset"].shape == (*known["confidence"].shape, 2) == (128, 256, 2)
    Image.open("street.png").save("street.jpg")
    exec(textwrap.dedent(in_readme), known)
    assert known["prediction"].label_map.shape == (128, 256)


def test_images_of_any_kind_are_one(run, network):
    """Of many sizes in a list, or alone; a grey one is read with three equal channels, a turned one upright."""
    (path, *_), grey = files(run), trees.image((32, 48))[..., 0]
    colour, turned = Image.open(path), Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees
    Image.fromarray(np.rot90(np.asarray(colour))).save(run / "turned.png", exif=turned)
    expected = network.predict(path).label_map
    for image in (str(path), colour, np.asarray(colour), Image.open(run / "turned.png")):
        np.testing.assert_array_equal(network.predict(image).label_map, expected)
    maps = [one.label_map for one in network.predict([grey, Image.fromarray(grey), np.stack([grey] * 3, -1)])]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_scores_and_the_picture_of_a_notebook(run, network):
    prediction = network.predict(files(run)[1])
    scores = prediction.scores()
    assert list(scores) == ["initial", "seed", "fused"]
    assert {x.shape for x in scores.values()} == {(40, 30, 11)}
    assert (scores["fused"].argmax(-1) == prediction.label_map).mean() > 0.99  # ties, to rounding
    assert repr(prediction) == "<Prediction of 30x40 pixels>"
    picture = cv2.imdecode(np.frombuffer(methodcaller("_repr_png_")(prediction), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(picture, prediction.overlay())


def test_offsets_need_a_pass_over_the_whole_image(run, network):
    prediction = network.predict(files(run)[0])
    assert prediction.offsets is prediction.offsets  # resized once
    with pytest.raises(UserError, match="Offsets need a pass over the whole image; set config.eval.windows to 'whole'"):
        replace(prediction, trunk=(None, None)).offsets  # noqa: B018


def test_threads_may_share_a_network(run, network):
    expected = network.predict(files(run))

    def predict(_):
        found = network.predict(files(run))
        return [x.label_map for x in found], found[0].scores()

    scores = expected[0].scores()
    with ThreadPoolExecutor(2) as threads:
        for maps, found in threads.map(predict, range(4)):
            for label_map, wanted in zip(maps, expected, strict=True):
                np.testing.assert_array_equal(label_map, wanted.label_map)
            jax.tree.map(np.testing.assert_array_equal, found, scores)


def test_scores_that_need_too_much_memory_get_one_sentence(network, monkeypatch):
    prediction = network.predict(trees.image(SIZES["a"]))

    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(network.parts, "over", full)
    with pytest.raises(UserError, match="too little memory .*lower config.eval.images_per_device"):
        prediction.scores()


def test_scores_that_are_not_finite_are_said(run, capsys):
    network = ovenet_jax.load(run, "latest")
    params, statistics = network.arrays
    bias = "offset_head.classifier.output.bias"
    network.arrays = params | {bias: params[bias] * np.float32(np.nan)}, statistics
    prediction = network.predict(trees.image(SIZES["a"]))
    capsys.readouterr()
    assert all(np.isfinite(x).all() for x in prediction.scores().values())
    assert "output is not finite at pixels of 1 image, the first: the image" in capsys.readouterr().out


def test_images_of_pillow_of_any_mode_are_read(network):
    """Transparent pixels are white, also those of a palette; of 16 bits 8 are kept."""
    colour = Image.fromarray(trees.image((32, 48)))
    palette = colour.quantize(8)
    palette.info["transparency"] = 0
    white = Image.composite(
        Image.new("RGB", colour.size, "white"), palette.convert("RGB"), palette.point(lambda i: 255 * (i == 0), "L")
    )
    grey = np.asarray(colour.convert("L"))
    for image, wanted in (
        (colour.convert("HSV"), colour.convert("HSV").convert("RGB")),
        (palette, white),
        (Image.fromarray(grey.astype(np.uint16) << 8), Image.fromarray(grey).convert("RGB")),
    ):
        np.testing.assert_array_equal(network.predict(image).image, np.asarray(wanted))


def test_few_programs_are_kept(run, monkeypatch):
    monkeypatch.setattr(inference, "MOST_SHAPES", 1)
    network = ovenet_jax.load(run)
    image = trees.image(SIZES["a"])
    first = network.predict(image).label_map
    kept = set(network.inference.shapes)
    assert network.predict(trees.image(SIZES["b"])).label_map.shape == SIZES["b"]
    assert len(network.inference.shapes) == 1 and not kept & network.inference.shapes
    np.testing.assert_array_equal(network.predict(image).label_map, first)
    assert network.inference.shapes == kept


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((4, 4, 3)), r"The image is float64 \[4, 4, 3\]; an image is a path, a PIL image, or an array, uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"The image is uint8 \[4, 4, 2\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"The image is uint8 \[2, 4, 4, 3\]"),
        (7, r"The image is int"),
        ("nowhere.png", "nowhere.png cannot be read: .*No such file"),
        (Image.new("F", (4, 4)), r"The image cannot be read: more than 16 bits per channel"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8)], r"images\[1\] is uint8 \[0, 4, 3\]"),
    ],
)
def test_what_is_no_image_gets_one_sentence(network, image, sentence):
    with pytest.raises(UserError, match=sentence):
        network.predict(image)


def test_a_folder_without_a_network_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        ovenet_jax.load(tmp_path)
