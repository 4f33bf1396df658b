import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ovenet_jax.errors import UserError
from ovenet_jax.models.layers import InitialValues
from ovenet_jax.models.resnet import ResNet, dilated_layers, max_pool_ceil
from ovenet_jax.models.zoo import create_model

WIDTHS = (4, 4, 6, 8)
DILATED = {"output_stride": 8, "multi_grid": (1, 1, 1), "half_dilation": True}


@pytest.mark.parametrize(
    ("options", "strides", "dilations"),
    [
        ({}, (1, 2, 1, 1), ((1, 1), (1, 1), (1, 2), (2, 4, 4))),
        ({"half_dilation": False}, (1, 2, 1, 1), ((1, 1), (1, 1), (2, 2), (4, 4, 4))),
        ({"multi_grid": (1, 2, 4)}, (1, 2, 1, 1), ((1, 1), (1, 1), (1, 2), (2, 8, 16))),
        ({"output_stride": 16}, (1, 2, 2, 1), ((1, 1), (1, 1), (1, 1), (1, 2, 2))),
        (
            {"output_stride": 16, "multi_grid": (1, 2, 4), "half_dilation": False},
            (1, 2, 2, 1),
            ((1, 1), (1, 1), (1, 1), (2, 4, 8)),
        ),
    ],
)
def test_strides_become_dilation(options, strides, dilations):
    layers = dilated_layers((2, 2, 2, 3), WIDTHS, **DILATED | options)
    assert tuple(layer.stride for layer in layers) == strides
    assert tuple(layer.dilations for layer in layers) == dilations


def test_the_3x3_of_each_block_has_the_stride_and_dilation_of_its_layer():
    trunk = ResNet(
        dilated_layers((1, 2, 2, 3), WIDTHS, **DILATED), stem=(4, 4, 6), init=InitialValues(0, he=False)
    ).trunk
    convs = [block.conv2.conv for name in ("layer2", "layer4") for block in getattr(trunk, name)]
    assert [(conv.stride, conv.dilation) for conv in convs] == [(2, 1), (1, 1), (1, 2), (1, 4), (1, 4)]


@pytest.mark.parametrize(
    ("size", "output_stride", "sizes"),
    [
        ((64, 96), 8, [(17, 25), (9, 13), (9, 13), (9, 13)]),
        ((64, 96), 16, [(17, 25), (9, 13), (5, 7), (5, 7)]),
        ((65, 97), 8, [(17, 25), (9, 13), (9, 13), (9, 13)]),
        ((63, 58), 8, [(17, 15), (9, 8), (9, 8), (9, 8)]),
    ],
)
def test_output_sizes(size, output_stride, sizes):
    layers = dilated_layers((1, 1, 1, 3), WIDTHS, **DILATED | {"output_stride": output_stride})
    model = ResNet(layers, stem=(4, 4, 6), init=InitialValues(0, he=False))
    maps = jax.eval_shape(model, jax.ShapeDtypeStruct((2, *size, 3), jnp.float32))
    assert [x.shape for x in maps] == [(2, *s, 4 * w) for s, w in zip(sizes, WIDTHS, strict=True)]
    features = model.features(maps)
    assert (features.aux.shape[-1], features.main.shape[-1]) == (model.aux_width, model.width) == (24, 32)


@pytest.mark.parametrize("size", [(5, 12), (11, 6), (7, 10), (9, 8)])
def test_max_pooling_in_ceil_mode_is_pytorchs(torch, size):
    x = np.random.default_rng(0).normal(-5, 1, (1, *size, 2)).astype(np.float32)  # zeros at the border would show
    pool = torch.nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
    expected = pool(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(max_pool_ceil(jnp.asarray(x)), expected)


@pytest.fixture
def resnet_model(tiny_model) -> ConfigDict:
    """`config.model` of an OVeNet on a tiny dilated ResNet."""
    tiny_model.backbone = ConfigDict(
        {
            "name": "resnet",
            "blocks": (1, 1, 1, 2),
            "widths": WIDTHS,
            "stem": (4, 4, 6),
            "output_stride": 8,
            "multi_grid": (1, 1),
            "half_dilation": True,
            "he_init": False,
        }
    )
    return tiny_model


def test_ovenet_copies_the_last_layer(resnet_model):
    model = create_model(resnet_model)
    assert len(model.offset_trunk.layer4) == 1
    output = jax.eval_shape(model, jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32))
    assert output.fused.main.shape == (1, 9, 13, 5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backbone": {"output_stride": 32}}, "config.model.backbone.output_stride is 32; it must be one of 8, 16"),
        ({"backbone": {"multi_grid": (1, 2, 4)}}, r"config.model.backbone.multi_grid is \(1, 2, 4\); .* 2 blocks"),
        (
            {"backbone": {"multi_grid": (1, 0)}},
            r"config.model.backbone.multi_grid is \(1, 0\); it must be one or more, each a whole number of at least 1",
        ),
        ({"backbone": {"multi_grid": 2}}, "config.model.backbone.multi_grid is 2; it must be one or more"),
        *(
            (
                {"backbone": {"blocks": blocks}},
                "config.model.backbone.blocks is .*; it must be .*; for a ResNet .layer 1, 2",
            )
            for blocks in [(1, 1, 2), (1, 1, 0, 2), (0, 1, 1, 2), (1, 1, 1, 2, 1)]
        ),
        (
            {"backbone": {"widths": (4, 4, 6)}},
            r"widths is \(4, 4, 6\); it must be \(layer 1, 2, 3, 4\), each a whole number",
        ),
        ({"backbone": {"stem": ()}}, r"config.model.backbone.stem is \(\); it must be one or more"),
        (
            {"backbone": {"name": "hrnet"}},
            r"config.model.backbone \(name 'hrnet'\) lacks layer1_blocks, .*, width and does not use .*, stem, "
            "widths; choose a whole network by the config's variant instead, --config=configs/FILE.py:HEAD_BACKBONE",
        ),
        ({"offset": {"modules": (3,)}}, "offset.modules: a layer of 2 blocks cannot give a copy of 3; choose 1 to 2"),
    ],
)
def test_a_resnet_that_cannot_be_is_named(resnet_model, change, sentence):
    with resnet_model.ignore_type():
        resnet_model.update(ConfigDict(change))
    with pytest.raises(UserError, match=sentence):
        create_model(resnet_model)
