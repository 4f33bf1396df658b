"""Images through the network under a test protocol; numbers are compared with the published ones in test_goldens.py."""

import dataclasses
import math
from functools import cache

import jax
import numpy as np
import pytest

from ovenet_jax.devices import parallel
from ovenet_jax.evaluation.inference import Inference
from ovenet_jax.evaluation.protocol import Protocol
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.supervision.measures import most_probable
from tests.collectives import collectives
from tests.imagenet import NORMALISATION
from tests.tiny_step import small_model, tiny_model

PROTOCOL = Protocol(96, (48, 64), "cityscapes", side="long", sum="exp", scales=(1.0, 1.5), flip=True, bucket=32)
ONCE = PROTOCOL._replace(scales=(1.0,), flip=False)
SIZES = [(60, 90), (58, 92), (62, 94), (60, 90), (61, 92)]  # of one canvas and one set of passes


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@cache
def network(hrnet):
    """(graphdef, parameters, statistics), of an OVeNet on HRNet or on a small ResNet"""
    config = tiny_model() if hrnet else small_model()
    config.backbone.he_init = True  # else initial scores are the same everywhere
    if hrnet:
        config.backbone.width = 7
    return parameters.split(create_model(config))


@pytest.fixture(scope="module")
def inference():
    """inference(devices, rows, **options) -> (Inference, arrays); `rows` devices share an image."""

    @cache
    def made(devices=1, rows=1, protocol=PROTOCOL, hrnet=False, **options):
        graphdef, *arrays = network(hrnet)
        mesh = parallel.create_mesh(jax.devices()[:devices], (0, rows))
        options |= {"align_corners": True, "normalisation": NORMALISATION, "mesh": mesh}
        return Inference(graphdef, protocol, **options), jax.device_put(arrays, parallel.replicated(mesh))

    return made


@pytest.fixture(scope="module")
def run(inference):
    """run(images, devices, rows, **options) -> Segmentation."""

    def run(images, *place, **options):
        running, arrays = inference(*place, **options)
        return running(*arrays, images)

    return run


@pytest.fixture
def programs(inference, monkeypatch):
    """programs(images, devices, rows, **options) -> the texts of the compiled programs, in the order they run in."""

    def programs(images, *place, **options):
        running, arrays = inference(*place, **options)
        texts = []

        def recorded(function):
            def call(*args, **kwargs):
                texts.append(function.lower(*args, **kwargs).compile().as_text())
                return function(*args, **kwargs)

            return call

        for name in ("read", "forward", "add"):
            monkeypatch.setattr(running, name, recorded(getattr(running, name)))
        running(*arrays, images)
        return texts

    return programs


def test_images_spread_over_devices_give_what_each_gives_alone(images, run, inference):
    together = run(images, 8)  # three of the eight rows are blank
    assert list(together.scores) == ["initial", "seed", "fused"]
    assert together.scores["fused"].shape == (8, 128, 128, 5)
    for row, image in enumerate(images):
        for name, scores in run([image]).scores.items():
            np.testing.assert_allclose(together.scores[name][row], scores[0], rtol=1e-4, atol=1e-5)
    assert inference(8)[0].pass_sizes == {(64, 96), (48, 64)}


@pytest.mark.parametrize("options", [{}, {"protocol": ONCE, "hrnet": True}], ids=["passes", "hrnet"])
def test_rows_spread_over_devices_give_what_one_gives(images, run, inference, options):
    """Of all passes; on HRNet the coarsest maps have less than two rows for each of four devices and stay whole."""
    alone, together = run(images[:1], **options), run(images[:1], 4, 4, **options)
    assert inference(4, 4, **options)[0].rows == 1
    for name, scores in alone.scores.items():
        np.testing.assert_allclose(together.scores[name], scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.offset, alone.offset, atol=1e-5)


def test_features_of_stride_4_are_never_made_whole(images, programs):
    """On a pass of 64 x 96 pixels. Coarser maps are: to be resized, or where a device would have less than two rows."""
    _, forward, *_ = programs(images[:1], 4, 4, protocol=ONCE, hrnet=True)
    sizes = {math.prod(shape) for collective in collectives(forward) for shape in collective.shapes}
    assert 5 * 16 * 24 in sizes  # the scores of 5 classes, for the seed gather
    assert max(sizes) < 7 * 16 * 24  # features have 7 channels or more


def test_scores_are_nothing_outside_the_image_and_something_inside(images, run):
    scores = np.asarray(run(images[:1]).prediction[0])
    assert (scores[60:] == 0).all()
    assert (scores[:, 90:] == 0).all()
    assert (scores[:60, :90] > 0).all()


def test_flip_averages_the_logits_with_those_of_the_mirror_image(run):
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    once = PROTOCOL._replace(scales=(1.0,), bucket=1)  # a pass of the image's own size: scores are exp(logits)
    flipped = np.log(run([image], protocol=once).prediction[0])
    straight, mirrored = (
        np.log(run([x], protocol=once._replace(flip=False)).prediction[0]) for x in (image, image[:, ::-1])
    )
    np.testing.assert_allclose(flipped, (straight + mirrored[:, ::-1]) / 2, rtol=1e-4, atol=1e-5)
    assert np.abs(flipped - straight).max() > 1e-3


@pytest.mark.parametrize(("factor", "shift"), [(1, 500), (1, -500), (1e3, 0), (1e37, 0), (-1e37, 0)])
def test_sums_of_exp_are_finite_for_any_finite_logits(images, inference, monkeypatch, factor, shift):
    running, arrays = inference()

    def scores(factor, shift):
        def forward(*inputs):
            said = network(*inputs)
            logits = {name: x * factor + shift for name, x in said.scores.items()}
            return dataclasses.replace(said, scores=logits)

        with monkeypatch.context() as patch:
            network = running.forward
            patch.setattr(running, "forward", forward)
            found = running(*arrays, images[:1]).prediction[0, : SIZES[0][0], : SIZES[0][1]]
        return np.asarray(found) / np.asarray(found).sum(-1, keepdims=True)

    found = scores(factor, shift)
    assert np.isfinite(found).all()
    if factor == 1:
        np.testing.assert_allclose(found, scores(1, 0), rtol=2e-3, atol=1e-5)
    else:  # the largest logit of any pass decides
        assert found.max(-1).min() > 0.1


def test_output_that_is_not_finite_counts_as_nothing_and_is_said(images, run, inference, capsys):
    """A network whose offset head overflows: its initial prediction stays, and no seed is used."""
    running, (params, statistics) = inference()
    bias = "offset_head.classifier.output.bias"
    params = params | {bias: params[bias] * np.float32(np.nan)}
    samples = [{"name": name, "image": image} for name, image in zip("abc", images[:3], strict=True)]
    found = [segmentation for _, segmentation in running.over(samples, params, statistics)]
    assert capsys.readouterr().out == (
        "Warning: the network's output is not finite at pixels of 3 images, the first: a; it counts as 0 there.\n"
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    assert not np.any(found[0].offset) and not np.any(found[0].confidence)
    whole = run(images[:1])
    np.testing.assert_array_equal(found[0].scores["initial"], whole.scores["initial"])
    list(running.over(samples, *inference()[1]))
    list(running.over(samples, params, statistics, warns=False))
    assert capsys.readouterr().out == ""


def test_output_that_is_not_finite_for_the_mirror_image_alone_is_said(images, run, inference, monkeypatch):
    running, _ = inference()
    read = running.read
    monkeypatch.setattr(running, "read", lambda *window: (read(*window)[0], read(*window)[1] * np.nan))
    assert run(images[:1]).broken[0]


def test_passes_add_up_their_logits_or_exp_of_them(run):
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    whole = PROTOCOL._replace(windows="whole", bucket=1, sum="logits")
    alone = [run([image], protocol=whole._replace(scales=(s,))).prediction[0] for s in whole.scales]
    together = run([image], protocol=whole).prediction[0]
    np.testing.assert_allclose(together, sum(alone), rtol=1e-4, atol=1e-5)
    exp = run([image], protocol=whole._replace(scales=(1.0,), sum="exp")).prediction[0]
    np.testing.assert_allclose(np.log(exp), alone[0], rtol=1e-4, atol=1e-5)


def test_left_and_right_change_places_in_the_mirror_image(run):
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    flipped = PROTOCOL._replace(scales=(1.0,), bucket=1)
    straight, mirrored = (
        run([x], protocol=flipped, flip_pairs=((0, 3), (2, 1))).prediction[0] for x in (image, image[:, ::-1])
    )
    exchanged = np.asarray(mirrored)[:, ::-1][..., [3, 2, 1, 0, 4]]
    np.testing.assert_allclose(straight, exchanged, rtol=1e-4, atol=1e-5)
    assert np.abs(straight - np.asarray(mirrored)[:, ::-1]).max() > 1e-3


def test_devices_do_not_talk_to_each_other(images, programs):
    texts = programs(images[:1], 8, protocol=PROTOCOL._replace(scales=(1.0,)))
    assert len(texts) == 6  # read, forward, forward of the mirror image, add for each prediction
    assert [list(collectives(text)) for text in texts] == [[]] * 6


def test_offsets_are_those_of_the_largest_whole_pass(images, run):
    segmentation = run(images[:1])
    assert segmentation.offset.shape == (1, 9, 13, 2)
    assert segmentation.confidence.shape == (1, 9, 13, 1)
    only_windows = PROTOCOL._replace(scales=(1.5,))
    assert run(images[:1], protocol=only_windows).offset is None


def test_the_answer_alone_is_the_same_up_to_rounding(images, run):
    """Another program, in which XLA may add up in another order."""
    alone, among_others = run(images[:1], answer_only=True), run(images[:1])
    assert list(alone.scores) == ["fused"]
    np.testing.assert_allclose(alone.prediction, among_others.prediction, rtol=1e-5)


def test_items_are_run_together_by_the_shape_of_their_image(inference):
    sizes = [(60, 90), (90, 60), (61, 92), (92, 61), (60, 90)]
    samples = [{"index": i, "image": np.zeros((*size, 3), np.uint8)} for i, size in enumerate(sizes)]
    batches = inference(images_per_device=2)[0].in_batches(samples)
    assert [[sample["index"] for sample in batch] for batch in batches] == [[0, 2], [1, 3], [4]]


def test_items_of_ever_new_sizes_do_not_pile_up(inference):
    read = []

    def items():
        for height in range(60, 700, 32):
            read.append(height)
            yield {"image": np.zeros((height, 90, 3), np.uint8)}

    handed_out = 0
    for batch in inference(images_per_device=2)[0].in_batches(items()):
        handed_out += len(batch)
        assert len(read) - handed_out <= 4 * 2
    assert handed_out == len(read) == 20


def test_a_class_map_holds_the_most_probable_class():
    scores = np.array([[[[0.1, 0.9], [0.5, 0.5]]]])
    ids = most_probable(scores)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[[1, 0]]]  # the first of equals
