"""The heads of the OCNet series: which pixels a pixel's answer depends on, whatever the weights."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from numpy.testing import assert_allclose

from configs import openseg
from ovenet_jax.errors import UserError
from ovenet_jax.models.contracts import Features
from ovenet_jax.models.isa import ISA, InterlacedAttention
from ovenet_jax.models.layers import InitialValues
from ovenet_jax.models.ocnet import ASPOC, BaseOC, PyramidOC, at_half_resolution, attend_in_blocks
from ovenet_jax.models.zoo import create_model
from tests.narrow_head import narrow_head


def random(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def head(kind, **options):
    """A narrow head, in evaluation mode."""
    model = narrow_head(kind, 4, InitialValues(0, he=False), **options)
    model.eval()
    return model


def features(height, width):
    return Features(aux=random(1, height, width, 4), main=random(1, height, width, 6))


def pixels_that_change(model, x, y, column):
    """Where the main map changes with pixel (y, column) of the features: [H, W], bool."""
    run = nnx.jit(lambda model, main: model(x._replace(main=main)).main)
    changed = x.main.at[0, y, column].add(10.0)
    return np.asarray(run(model, x.main) != run(model, changed)).any((0, 3))


def enliven(attention):
    attention.output.kernel.set_value(random(*attention.output.kernel.shape))


@pytest.mark.parametrize("half", [False, True])
def test_the_context_of_base_oc_adds_nothing_at_first_and_then_reaches_everywhere(half):
    model = head(BaseOC, value_features=4, first_release=False, half=half, align_corners=True)
    x = features(7, 9)
    near = np.zeros((7, 9), bool)
    near[:3, :3] = True  # of pixel (1, 1), through the 3x3 convolution
    np.testing.assert_array_equal(pixels_that_change(model, x, 1, 1), near)
    enliven(model.attention)
    assert pixels_that_change(model, x, 1, 1).all()


def test_half_resolution_attends_among_maxima_and_comes_back():
    x = jnp.arange(20.0).reshape(1, 4, 5, 1)  # maxima 6 8, 16 18; an odd column takes no part
    expected = np.add.outer(np.linspace(6, 16, 4), np.linspace(0, 2, 5))
    assert_allclose(at_half_resolution(lambda y: y, x, align_corners=True)[0, :, :, 0], expected, rtol=1e-6)
    row = at_half_resolution(lambda y: y, x[:, :1, :4], align_corners=True)  # maxima 1 3
    assert_allclose(row[0, :, :, 0], [np.linspace(1, 3, 4)], rtol=1e-6)


@pytest.mark.parametrize("first_release", [False, True])
def test_asp_oc_keeps_the_size_and_starts_without_attention(first_release):
    options = {"branch_features": 4, "value_features": 4, "dilations": (1, 1, 1), "align_corners": True}
    model = head(ASPOC, first_release=first_release, **options)
    x = features(9, 9)
    near = np.zeros((9, 9), bool)
    near[:4, :4] = True  # of pixel (1, 1), through two 3x3 convolutions
    np.testing.assert_array_equal(pixels_that_change(model, x, 1, 1), near)
    enliven(model.attention)
    assert pixels_that_change(model, x, 1, 1).all()


def blocks(length, size):
    """Slices of `size` blocks; the last takes what remains."""
    starts = [i * (length // size) for i in range(size)]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], length], strict=True)]


@pytest.mark.parametrize(("height", "width", "size"), [(6, 6, 1), (6, 9, 3), (7, 11, 3), (7, 9, 3), (3, 3, 3)])
def test_blocks_attend_each_for_itself(height, width, size):
    query, key, value = random(2, height, width, 4), -random(2, height, width, 4), random(2, height, width, 6)
    expected = np.zeros(value.shape, np.float32)
    for rows in blocks(height, size):
        for columns in blocks(width, size):
            cut = (slice(None), rows, columns)
            weights = np.exp(np.einsum("bhwd,bijd->bhwij", query[cut], key[cut]) / 2)
            weights /= weights.sum((3, 4), keepdims=True)
            expected[cut] = np.einsum("bhwij,bijc->bhwc", weights, value[cut])
    result = jax.jit(attend_in_blocks, static_argnames="size")(query, key, value, size=size)
    assert_allclose(result, expected, atol=1e-5)


def test_a_pixel_of_pyramid_oc_depends_on_its_block():
    model = head(PyramidOC, sizes=(2, 3))
    for attention in model.attentions:
        enliven(attention)
    # Pixel (0, 0) reaches (1, 1) by the 3x3 convolution; blocks of 9 pixels are 4 and 5, or 3, 3 and 3.
    expected = np.zeros((9, 9), bool)
    expected[:4, :4] = True
    np.testing.assert_array_equal(pixels_that_change(model, features(9, 9), 0, 0), expected)


def test_a_map_too_small_for_the_pyramid_is_named():
    with pytest.raises(UserError, match="Pyramid-OC cuts its map in 6x6 blocks, and this one is 5x8; give larger"):
        jax.eval_shape(head(PyramidOC, sizes=(1, 2, 3, 6)), features(5, 8))


def interlaced(block):
    module = InterlacedAttention(
        3, key_features=4, block=block, activation=jax.nn.leaky_relu, init=InitialValues(0, he=False)
    )
    module.eval()
    return module


@pytest.mark.parametrize(("size", "block"), [((4, 6), (2, 3)), ((5, 8), (2, 3)), ((3, 2), (4, 4))])
def test_interlaced_attention_is_long_range_among_phases_then_short_range_in_blocks(size, block):
    module, x = interlaced(block), random(2, *size, 3)
    (p, q), missing = block, [-side % b for side, b in zip(size, block, strict=True)]
    top, left = missing[0] // 2, missing[1] // 2
    padded = np.pad(x, ((0, 0), (top, missing[0] - top), (left, missing[1] - left), (0, 0)))
    long_range, short_range = nnx.jit(module.long_range), nnx.jit(module.short_range)
    for y in range(p):
        for column in range(q):
            padded[:, y::p, column::q] = long_range(padded[:, y::p, column::q])
    for y in range(0, padded.shape[1], p):
        for column in range(0, padded.shape[2], q):
            cut = (slice(None), slice(y, y + p), slice(column, column + q))
            padded[cut] = short_range(padded[cut])
    expected = padded[:, top : top + size[0], left : left + size[1]]
    assert_allclose(nnx.jit(module)(x), expected, atol=1e-5)


def test_every_pixel_of_isa_reaches_every_other():
    jacobian = jax.jit(jax.jacobian(lambda x: interlaced((2, 3))(x)[0].sum(-1)))(random(1, 4, 7, 3))
    assert (np.abs(jacobian).max((2, 5)) > 0).all()  # [4, 7, 4, 7]: from every pixel to every pixel


def test_contexts_of_several_factors_stand_side_by_side():
    model = head(ISA, factors=((2, 2), (3, 4)))
    assert model.widening.conv.kernel.shape == (1, 1, 8, 16)
    assert model.fusion.conv.kernel.shape == (1, 1, 32, 8)
    x = features(7, 9)
    logits = jax.eval_shape(model, x)
    assert logits.main.shape == logits.aux.shape == (1, 7, 9, 5)


NAMES = "choose a whole network by the config's variant instead, --config=configs/FILE.py:HEAD_BACKBONE"


@pytest.mark.parametrize(
    ("head", "change", "sentence"),
    [
        ("isa", {"name": "isaa"}, "config.model.head.name is 'isaa'; known: 'fcn', .*'pyramid_oc', 'asp_oc', 'isa'"),
        ("ocr", {"name": "isa"}, rf"head \(name 'isa'\) lacks factors and does not use bias; {NAMES}"),
        ("base_oc", {"name": "fcn"}, r"head \(name 'fcn'\) lacks classifier and does not use activation, .*, half"),
        ("fcn", {"name": "ocr"}, r"head \(name 'ocr'\) lacks activation, .* and does not use classifier"),
        ("isa", {"activation": "gelu"}, "head.activation is 'gelu'; it must be one of 'relu', 'leaky_relu', 'none'"),
        ("isa", {"aux": {"activation": "gelu"}}, "head.aux.activation is 'gelu'; it must be one"),
        ("fcn", {"classifier": {"activation": "gelu"}}, "head.classifier.activation is 'gelu'; it must be"),
        *(
            ("isa", {"factors": factors}, f"head.factors is {re.escape(str(factors))}; it must be one or more, each .h")
            for factors in [((8, 0),), (8, 8), (), 8, ((8.0, 8),)]
        ),
        *(
            ("pyramid_oc", {"sizes": sizes}, "head.sizes is .*; it must be one or more, each a whole number")
            for sizes in [(2, 0), (), 2, (1.5,)]
        ),
        *(
            ("asp_oc", {"dilations": dilations}, "head.dilations is .*; it must be .first, second, third., each a")
            for dilations in [(12, 24), (12, 24, 0), 12]
        ),
    ],
)
def test_a_head_that_cannot_be_is_named(tiny_model, head, change, sentence):
    _, tiny_model.head = openseg.network(head, "tiny")
    with tiny_model.ignore_type():
        tiny_model.head.update(ConfigDict(change))
    with pytest.raises(UserError, match=sentence):
        create_model(tiny_model)


def test_ocr_without_its_auxiliary_head_is_named(tiny_model):
    del tiny_model.head.aux
    with pytest.raises(UserError, match=r"config.model.head \(name 'ocr'\) lacks aux; choose"):
        create_model(tiny_model)


@pytest.mark.parametrize("size", [(4, 4), (4, 64)])
@pytest.mark.parametrize("head", ["base_oc_half", "asp_oc"])
def test_a_map_of_one_row_attends_as_it_is(tiny_model, head, size):
    """Also without an activation, which asp_oc applies to its context by itself."""
    _, tiny_model.head = openseg.network(head, "tiny")
    tiny_model.head.activation = "none"
    output = jax.eval_shape(create_model(tiny_model), jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
    assert output.fused.main.shape == (1, 1, size[1] // 4, 5)
