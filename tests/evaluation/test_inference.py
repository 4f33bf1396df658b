"""Images through the network under a test protocol; numbers are compared with the published ones in test_goldens.py."""

import math

import jax
import numpy as np
import pytest

from ovenet_jax.devices import parallel
from ovenet_jax.evaluation.inference import Inference
from ovenet_jax.evaluation.protocol import Protocol
from ovenet_jax.models import parameters
from ovenet_jax.models.predictions import class_maps
from ovenet_jax.models.zoo import create_model
from tests.collectives import collectives
from tests.imagenet import NORMALISATION

PROTOCOL = Protocol(
    96, (48, 64), "cityscapes", side="long", sum="exp", scales=(1.0, 1.5), flip=True, bucket=32
)
SIZES = [(60, 90), (58, 92), (62, 94), (60, 90), (61, 92)]  # of one canvas and one set of passes


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def run(tiny_model):
    """run(images, devices, rows, **options) -> (Segmentation, Inference); `rows` devices share an image."""
    tiny_model.backbone.update({"he_init": True, "width": 7})  # else initial scores are the same everywhere
    graphdef, *arrays = parameters.split(create_model(tiny_model))

    def run(images, devices=1, rows=1, protocol=PROTOCOL, record=None, **options):
        mesh = parallel.create_mesh(jax.devices()[:devices], (0, rows))
        inference = Inference(
            graphdef, protocol, align_corners=True, normalisation=NORMALISATION, mesh=mesh, **options
        )
        if record is not None:
            for part in ("_read", "_forward", "_add"):
                setattr(inference, part, recording(getattr(inference, part), record))
        return inference(*jax.device_put(arrays, parallel.replicated(mesh)), images), inference

    return run


def recording(function, programs):
    """The jitted function, which also adds the text of its compiled program to `programs`."""

    def call(*args, **kwargs):
        programs.append(function.lower(*args, **kwargs).compile().as_text())
        return function(*args, **kwargs)

    return call


def test_images_spread_over_devices_give_what_each_gives_alone(images, run):
    together, inference = run(images, devices=8)  # three of the eight rows are blank
    assert list(together.scores) == ["initial", "seed", "fused"]
    assert together.scores["fused"].shape == (8, 128, 128, 5)
    for row, image in enumerate(images):
        alone, _ = run([image])
        for name, scores in alone.scores.items():
            np.testing.assert_allclose(together.scores[name][row], scores[0], rtol=1e-4, atol=1e-5)
    assert inference.pass_sizes == {(64, 96), (48, 64)}


def test_rows_spread_over_devices_give_what_one_gives(images, run):
    """Passes of 64 and 96 rows; the coarsest maps have less than two for each of four devices and stay whole."""
    alone, _ = run(images[:1])
    together, inference = run(images[:1], devices=4, rows=4)
    assert inference.rows == 1
    for name, scores in alone.scores.items():
        np.testing.assert_allclose(together.scores[name], scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.offset, alone.offset, atol=1e-5)


def test_features_of_stride_4_are_never_made_whole(images, run):
    """On a pass of 64 x 96 pixels. Coarser maps are: to be resized, or where a device would have less than two rows."""
    programs = []
    protocol = PROTOCOL._replace(scales=(1.0,), flip=False)
    run(images[:1], devices=4, rows=4, protocol=protocol, record=programs)
    _, forward, _ = programs
    sizes = {math.prod(shape) for collective in collectives(forward) for shape in collective.shapes}
    assert 5 * 16 * 24 in sizes  # the scores of 5 classes, for the seed gather
    assert max(sizes) < 7 * 16 * 24  # features have 7 channels or more


def test_scores_are_nothing_outside_the_image_and_something_inside(images, run):
    scores = np.asarray(run(images[:1])[0].answer[0])
    assert (scores[60:] == 0).all()
    assert (scores[:, 90:] == 0).all()
    assert (scores[:60, :90] > 0).all()


def test_flip_averages_the_logits_with_those_of_the_mirror_image(run):
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    once = PROTOCOL._replace(
        scales=(1.0,), bucket=1
    )  # one pass of the image's own size: scores are exp(logits)
    flipped = np.log(run([image], protocol=once)[0].answer[0])
    straight, mirrored = (
        np.log(run([x], protocol=once._replace(flip=False))[0].answer[0]) for x in (image, image[:, ::-1])
    )
    np.testing.assert_allclose(flipped, (straight + mirrored[:, ::-1]) / 2, rtol=1e-4, atol=1e-5)
    assert np.abs(flipped - straight).max() > 1e-3


def test_passes_add_up_their_logits_or_exp_of_them(run):
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    whole = PROTOCOL._replace(windows="whole", bucket=1, sum="logits")
    alone = [run([image], protocol=whole._replace(scales=(s,)))[0].answer[0] for s in whole.scales]
    together = run([image], protocol=whole)[0].answer[0]
    np.testing.assert_allclose(together, sum(alone), rtol=1e-4, atol=1e-5)
    exp = run([image], protocol=whole._replace(scales=(1.0,), sum="exp"))[0].answer[0]
    np.testing.assert_allclose(np.log(exp), alone[0], rtol=1e-4, atol=1e-5)


def test_left_and_right_change_places_in_the_mirror_image(run):
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    flipped = PROTOCOL._replace(scales=(1.0,), bucket=1)
    straight, mirrored = (
        run([x], protocol=flipped, flip_pairs=((0, 3), (2, 1)))[0].answer[0] for x in (image, image[:, ::-1])
    )
    exchanged = np.asarray(mirrored)[:, ::-1][..., [3, 2, 1, 0, 4]]
    np.testing.assert_allclose(straight, exchanged, rtol=1e-4, atol=1e-5)
    assert np.abs(straight - np.asarray(mirrored)[:, ::-1]).max() > 1e-3


def test_devices_do_not_talk_to_each_other(images, run):
    programs = []
    run(images[:1], devices=8, protocol=PROTOCOL._replace(scales=(1.0,)), record=programs)
    assert len(programs) == 4  # read, forward, forward of the mirror image, add
    for text in programs:
        for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter"):
            assert word not in text


def test_offsets_are_those_of_the_largest_whole_pass(images, run):
    segmentation, _ = run(images[:1])
    assert segmentation.offset.shape == (1, 16, 24, 2)
    assert segmentation.confidence.shape == (1, 16, 24, 1)
    only_windows = PROTOCOL._replace(scales=(1.5,))
    assert run(images[:1], protocol=only_windows)[0].offset is None


def test_the_answer_alone_is_the_same(images, run):
    answer, _ = run(images[:1], answer_only=True)
    assert list(answer.scores) == ["fused"]
    np.testing.assert_allclose(
        answer.answer, run(images[:1])[0].answer, rtol=1e-5
    )  # another program rounds otherwise


def test_items_are_run_together_by_the_shape_of_their_image(run):
    _, inference = run([np.zeros((60, 90, 3), np.uint8)], images_per_device=2)
    sizes = [(60, 90), (90, 60), (61, 92), (92, 61), (60, 90)]
    items = [(index, np.zeros((*size, 3), np.uint8)) for index, size in enumerate(sizes)]
    batches = inference.in_batches(items, lambda item: item[1])
    assert [[index for index, _ in batch] for batch in batches] == [[0, 2], [1, 3], [4]]


def test_items_of_ever_new_sizes_do_not_pile_up(run):
    _, inference = run([np.zeros((60, 90, 3), np.uint8)], images_per_device=2)
    read = []

    def items():
        for height in range(60, 700, 32):
            read.append(height)
            yield np.zeros((height, 90, 3), np.uint8)

    handed_out = 0
    for batch in inference.in_batches(items(), lambda image: image):
        handed_out += len(batch)
        assert len(read) - handed_out <= 4 * 2
    assert handed_out == len(read) == 20


def test_a_class_map_holds_the_most_probable_class():
    scores = np.array([[[[0.1, 0.9], [0.5, 0.5]]]])
    (ids,) = class_maps({"main": scores}).values()
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[[1, 0]]]  # the first of equals
