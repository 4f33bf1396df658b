"""Images of other channels than red, green and blue, which classes.yaml names: from their files to an export."""

import io
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import ovenet_jax
from configs import folder as own
from ovenet_jax import plan
from ovenet_jax.data import image_files, labels, pipeline
from ovenet_jax.data.augment import RandomScaleCrop, resize_short_side
from ovenet_jax.data.inventory import measured_input, moments_of
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import evaluate
from ovenet_jax.evaluation.colours import in_colors
from ovenet_jax.export import export
from ovenet_jax.models import parameters
from ovenet_jax.predict import predict
from ovenet_jax.run import workdir
from ovenet_jax.train import train
from ovenet_jax.weights.starting_point import FIRST
from tests import trees
from tests.untrained import save_untrained, tiny

NAMES = ("red", "green", "blue", "near_infrared")
SIZE = (32, 48)
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(10, 4000, (3, *SIZE, 4)).astype(np.uint16)


def array_file(array: np.ndarray) -> bytes:
    np.save(file := io.BytesIO(), array)
    return file.getvalue()


def encoded(suffix: str, array: np.ndarray) -> bytes:
    """A PNG or TIFF, whose channels OpenCV expects as blue, green, red, others."""
    return cv2.imencode(suffix, array[..., [2, 1, 0, 3]])[1].tobytes()


@pytest.fixture
def data(tmp_path):
    """config.data of a data set of four channels: training images of 16 bits as .npy and TIFF, of 8 bits as PNG."""
    data = trees.write_folder(tmp_path, ())
    files = {"train/a.npy": array_file(PIXELS[0]), "train/b.tif": encoded(".tif", PIXELS[1])}
    files |= {"train/c.png": encoded(".png", PIXELS[2].astype(np.uint8)), "val/d.npy": array_file(PIXELS[2])}
    for name, content in files.items():
        path = Path(data.root) / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        label = np.uint8((0, 7, 8, 26))[trees.ids(SIZE, range(4))]
        trees.write_image(Path(data.root) / "labels" / Path(name).with_suffix(".png"), label)
    name_channels(data, NAMES)
    return data


def name_channels(data, names):
    (Path(data.root) / "classes.yaml").write_text(f"{trees.CLASSES}channels: [{', '.join(names)}]\n")


def test_channels_are_read_as_they_are_from_every_kind_of_file(data):
    pipeline.prepare(data)
    source = pipeline.open_split(data, "train")
    expected = [PIXELS[0], PIXELS[1], PIXELS[2].astype(np.uint8)]
    for i, pixels in enumerate(expected):
        assert source[i]["image"].dtype == np.uint16
        np.testing.assert_array_equal(source[i]["image"], pixels)


def test_damaged_moments_are_a_damaged_inventory(data):
    report = Path(pipeline.prepare(data)["folder"]) / "report.json"
    report.write_text(report.read_text().replace('"moments"', '"momentum"', 1))
    with pytest.raises(UserError, match="report.json is damaged .*moments.*prepared anew"):
        pipeline.prepare(data)


def test_a_run_of_four_channels_from_weights_of_three(data, tmp_path):
    config = tiny(own.get_config("fcn_r_tiny"), data)
    config.model.num_classes = 2
    base = save_untrained(config, tmp_path / "rgb")
    config.init.base = str(base)
    config.augment.update({"base_size": 48, "crop": SIZE})
    config.eval.update({"images_per_device": 1})
    config.update({"batch_size": 8, "steps": 2, "evaluate_every": 2, "checkpoint_every": 2})
    config.optimizer.rate = 0.0
    folder = tmp_path / "run"
    assert train(config, folder)

    saved = workdir.config_of(folder).model.input
    values = np.concatenate([x.reshape(-1, 4) for x in (*PIXELS[:2], PIXELS[2].astype(np.uint8))]).astype(float)
    assert saved.channels == NAMES and not saved.bgr
    np.testing.assert_allclose(saved.mean, values.mean(0) / saved.divisor, rtol=1e-9)
    np.testing.assert_allclose(saved.std, values.std(0) / saved.divisor, rtol=1e-9)
    rgb, four = (parameters.split(ovenet_jax.load_model(x))[1][FIRST] for x in (base, folder))
    rgb = rgb[:, :, ::-1]
    np.testing.assert_allclose(four[:, :, :3], rgb * 0.75, rtol=1e-6)
    np.testing.assert_allclose(four.sum(2), rgb.sum(2), rtol=1e-4, atol=1e-6)
    assert train(config, folder)  # goes on where it ended
    assert list((folder / "evaluation/val").rglob("d.png"))

    asked = tiny(own.get_config("fcn_r_tiny"), data)  # as the command line gives it, without a workdir's config
    evaluate(asked, folder)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/x.npy").write_bytes(array_file(PIXELS[0]))
    assert predict(asked, folder, tmp_path / "new")
    network = ovenet_jax.load(folder)
    label_map = cv2.imread(str(folder / "predictions/new/label_maps/x.png"), cv2.IMREAD_UNCHANGED)
    for image in (tmp_path / "new/x.npy", PIXELS[0]):
        prediction = network.predict(image)
        np.testing.assert_array_equal(prediction.classes.label_ids()[prediction.label_map], label_map)
    assert prediction.overlay().shape == (*SIZE, 3)
    with pytest.raises(
        UserError, match=r"uint8 \[32, 48, 3\]; classes.yaml names uint8 or uint16 \[height, width, 4\]"
    ):
        network.predict(trees.image(SIZE))

    export(workdir.config_of(folder), folder, "stablehlo")
    program = jax.export.deserialize(bytearray((folder / "export/stablehlo/network.stablehlo").read_bytes()))
    assert program.call(PIXELS)[0].shape == (3, *SIZE)
    assert json.loads((folder / "export/stablehlo/export.json").read_text())["input"]["channels"] == list(NAMES)

    name_channels(data, NAMES[::-1])
    with pytest.raises(
        UserError, match="takes the channels red, green, blue, near_infrared, but images of folder have n"
    ):
        evaluate(asked, folder)
    with pytest.raises(UserError, match="holds the run of another config .*model.input.channels"):
        train(config, folder)


def test_other_images_than_the_names_say_are_named_with_the_others(data):
    root = Path(data.root) / "images"
    damaged = array_file(PIXELS[0])[:-5]
    np.save(pickled := io.BytesIO(), np.array([{}], object), allow_pickle=True)
    alike = PIXELS[0].astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(alike).save(root / "train/c.png", exif=turned)
    Image.fromarray(alike[..., :2], "LA").save(root / "val/e.png")
    more = {"train/a.npy": array_file(PIXELS[0, ..., :3]), "val/d.npy": array_file(PIXELS[0].astype(np.float32))}
    more |= {"train/b.tif": b"II*\0", "val/f.npy": damaged, "val/g.npy": pickled.getvalue()}
    for name, content in more.items():
        (root / name).write_bytes(content)
    for name in "efg":
        trees.write_image(Path(data.root) / f"labels/val/{name}.png", trees.ids(SIZE, range(7, 8)))
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    wanted = "classes.yaml names uint8 or uint16 [height, width, 4], the channels red, green, blue, near_infrared"
    neither = "neither a .npy of numbers nor an upright, interleaved PNG, JPEG or TIFF in RGB or RGBA"
    neither += "; save it as .npy, (H, W, C)"
    assert [line.strip().removeprefix(f"{root}/") for line in str(error.value).splitlines()[1:]] == [
        f"train/a.npy: uint16 [32, 48, 3]; {wanted}",
        f"train/b.tif: {neither}",
        f"train/c.png: {neither}",
        f"val/d.npy: float32 [32, 48, 4]; {wanted}",
        f"val/e.png: {neither}",
        f"val/f.npy: {neither}",
        f"val/g.npy: {neither}",
    ]


def tiff(planes: np.ndarray) -> bytes:
    """A TIFF whose channels [C, H, W] are stored one after the other."""
    count, *size = planes.shape
    area, bits = planes[0].nbytes, 8 * planes.itemsize
    fields = {
        256: size[1:],
        257: size[:1],
        258: [bits] * count,
        259: [1],
        262: [2],
        273: [area * i for i in range(count)],
    }
    fields |= {277: [count], 278: size[:1], 279: [area] * count, 284: [2]}
    start, lists, entries = 10 + 12 * len(fields) + 4, b"", b""
    begin = start + sum(4 * len(values) for values in fields.values())
    for tag, values in fields.items():
        content = struct.pack(f"<{len(values)}I", *(begin + x if tag == 273 else x for x in values))
        entries += struct.pack("<HHI", tag, 4, len(values))
        entries += content if len(values) == 1 else struct.pack("<I", start + len(lists))
        lists += b"" if len(values) == 1 else content
    head = b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + lists
    return head.ljust(begin, b"\0") + planes.tobytes()


def test_what_opencv_would_change_in_a_tiff_is_read_by_pillow_or_refused():
    eight = RNG.integers(0, 256, (*SIZE, 4)).astype(np.uint8)
    Image.fromarray(eight, "RGBA").save(file := io.BytesIO(), "TIFF")
    np.testing.assert_array_equal(image_files.read_channels(file.getvalue(), NAMES).array, eight)
    Image.fromarray(eight, "CMYK").save(cmyk := io.BytesIO(), "TIFF")
    planar = tiff(PIXELS[0, ..., :3].transpose(2, 0, 1).astype("<u2"))
    with Image.open(io.BytesIO(planar)) as picture:
        assert picture.mode == "RGB" and picture.size == SIZE[::-1]
    for data, names in ((cmyk.getvalue(), NAMES), (planar, NAMES[:3])):
        with pytest.raises(ValueError, match="nor an upright, interleaved PNG, JPEG or TIFF in RGB or RGBA; save"):
            image_files.read_channels(data, names)


def test_an_array_of_too_many_pixels_is_refused_and_the_size_in_a_header_allocates_nothing(monkeypatch):
    head = array_file(PIXELS[0]).replace(b"(32, 48, 4), }" + 6 * b" ", b"(99999999999, 4, 4),}")
    with pytest.raises(ValueError, match="neither a .npy of numbers"):
        image_files.read_channels(head, NAMES)
    monkeypatch.setattr(image_files, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="48x32 pixels; more than 100 are not read"):
        image_files.read_channels(array_file(PIXELS[0]), NAMES)


def test_a_channel_that_is_the_same_everywhere_is_not_scaled_up():
    image = np.full((200, 300, 2), 65535, np.uint16)
    image[..., 1] = RNG.integers(0, 2**16, (200, 300))
    moments = np.sum([moments_of(image)] * 9, axis=0).tolist()
    found = {"channels": ["a", "b"], "splits": {"train": {"moments": moments}}}
    config = ConfigDict({"data": {"train_split": "train"}, "model": {"input": {"divisor": 1.0}}})
    measured = measured_input(found, config)
    np.testing.assert_allclose(measured["mean"], image.mean((0, 1), float), rtol=1e-12)
    np.testing.assert_allclose(measured["std"], [1, image[..., 1].std(dtype=float)], rtol=1e-12)


def test_a_split_that_is_not_there_and_names_of_too_many_channels_are_named(data, tmp_path):
    config = tiny(own.get_config("fcn_r_tiny"), data)
    config.data.train_split = "trian"
    with pytest.raises(UserError, match="folder has no split 'trian'; choose one of train, val"):
        train(config, tmp_path / "run")
    name_channels(data, [f"band {i}" for i in range(labels.MOST_CHANNELS + 1)])
    with pytest.raises(UserError, match="channels: expected a list of 2 to 128 names, got .'band 0'"):
        pipeline.classes(data)


def test_a_training_on_own_classes_is_planned_before_it_is_prepared(data):
    config = tiny(own.get_config("fcn_r_tiny"), data)
    fixed, of_image = plan.memory(config, rematerialise=False)
    assert config.model.num_classes == 2 and fixed > 0 and of_image > 0


def test_without_names_the_sentence_leads_to_them(data):
    (Path(data.root) / "classes.yaml").write_text(trees.CLASSES)
    shutil.copy(Path(data.root) / "labels/train/c.png", Path(data.root) / "labels/train/e.png")
    with pytest.raises(UserError) as error:
        pipeline.prepare(data)
    hint = "; .npy, .tif, .tiff are read where classes.yaml names the channels of own images"
    for fault in (
        f"images/val: no image in this folder{hint}",
        f"no image images/train/a{hint}",
        f"no image images/train/b{hint}",
        "no image images/train/e\n",  # nor any other file of that name
        "transparent pixels; save it without an alpha channel, or name the channels of own images in classes.yaml",
    ):
        assert fault in str(error.value)


def test_labels_matched_by_the_names_of_their_classes_keep_the_channels_of_the_images(data):
    pipeline.prepare(data)
    split = pipeline.open_split(data, "train")
    numbers = np.uint8([2, 1])
    learned = replace(split.classes, names=("sky", "car", "road"), channels=())  # as data.json gives it
    found = split.relabelled(learned, lambda sample: numbers[np.minimum(sample["label"], 1)])
    assert (found.classes.names, found.classes.channels) == (learned.names, NAMES)
    np.testing.assert_array_equal(found[0]["image"], PIXELS[0])
    np.testing.assert_array_equal(found[0]["label"], numbers[np.minimum(split[0]["label"], 1)])


def test_what_needs_red_green_and_blue_is_refused_or_done_to_these(data):
    classes = pipeline.classes(data)
    settings = own.get_config().augment
    settings.update({"base_size": 0, "crop": SIZE, "scale_factor": 0, "scale_range": (1.0, 1.0), "flip": False})
    settings.update({"brightness": 9, "brightness_share": 1.0})
    crop, brightness = pipeline.augmentations(settings, classes)
    sample = {"image": PIXELS[0], "label": np.zeros(SIZE, np.uint8)}
    image = brightness(crop(sample, RNG), np.random.default_rng(1))["image"].astype(int)
    np.testing.assert_array_equal(image[..., 3], PIXELS[0, ..., 3])
    shifts = (image - PIXELS[0])[..., :3]
    assert shifts.min() == shifts.max() != 0
    settings.photometric_distortion = True
    with pytest.raises(UserError, match="photometric_distortion is of RGB; for named channels unset it"):
        pipeline.augmentations(settings, classes)
    data.storage = "decoded"
    with pytest.raises(UserError, match="storage='decoded' holds RGB; for named channels it must be 'compressed'"):
        pipeline.prepare(data)


@pytest.mark.parametrize("count", [2, 3, 5, labels.MOST_CHANNELS])
def test_any_number_of_channels_is_resized_padded_mirrored_and_shown(count):
    names = [f"band {i}" for i in range(count)]
    image = RNG.integers(0, 60_000, (*SIZE, count)).astype(np.uint16)
    sample = {"image": image, "label": np.zeros(SIZE, np.uint8)}
    act = RandomScaleCrop(0, (40, 60), scale_range=(1.0, 1.0), pad_color=(9, 9, 9))
    padded = act(sample, RNG)["image"]
    np.testing.assert_array_equal(padded[:32, :48], image)
    assert padded.shape == (40, 60, count) and not padded[32:].any()
    assert resize_short_side(sample, 16)["image"].shape == (16, 24, count)
    shown = in_colors(image, names)
    assert (shown.shape, shown.dtype) == ((*SIZE, 3), np.uint8)
    order = [0, 0, 0] if count == 2 else [0, 1, 2]
    np.testing.assert_allclose(shown, np.minimum(image[..., order] / 60_000 * 255, 255), atol=5)
