"""What must hold of the networks whatever their weights; their numbers are the goldens' matter."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from numpy.testing import assert_allclose

from configs import common
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.layers import BatchNorm
from ovenet_jax.models.ocr import gather_regions
from ovenet_jax.models.zoo import create_model
from tests.tiny_step import small_model

ROUNDING = 1e-4  # a seed's float32 position is off by some 1e-6 pixels, logits of up to 10 change by 10 a pixel


@pytest.fixture
def small() -> ConfigDict:
    """`config.model` of an OVeNet on a small ResNet: offsets, seeds and fusion are the same on any backbone."""
    return small_model()


@pytest.fixture
def thesis_model(tiny_model) -> ConfigDict:
    """`config.model` with offsets on the plain head."""
    model = copy.deepcopy(tiny_model)
    model.head = common.fcn()
    model.update({"align_corners": False, "norm_momentum": 0.01})
    model.offset.default_init = False
    return model


def image(height=64, width=96):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, height, width, 3)), jnp.float32)


def run(model, x, **arrays):
    """The model in evaluation mode with kernels that keep its maps lively, some parameters replaced by name."""
    model.eval()
    graphdef, params, statistics = parameters.split(model)
    rng = np.random.default_rng(1)
    for name, value in params.items():
        if value.ndim == 4:
            params[name] = rng.normal(0, np.sqrt(2 / np.prod(value.shape[:3])), value.shape).astype(np.float32)
    for name, value in arrays.items():
        params[name] = jnp.broadcast_to(jnp.float32(value), params[name].shape)
    return jax.jit(lambda p, s, x: parameters.merge(graphdef, p, s)(x))(params, statistics, x)


def shapes(model, x):
    """Of the model's maps, in the form of its output."""
    graphdef, *arrays = parameters.split(model)
    return jax.eval_shape(lambda *arrays: parameters.merge(graphdef, *arrays)(x), *arrays)


def with_offset_head(model, x, kernel, bias):
    name = "offset_head.classifier.output."
    return run(model, x, **{f"{name}kernel": kernel, f"{name}bias": bias})


def test_zero_offsets_make_seed_and_fused_equal_the_initial_prediction(small):
    output = with_offset_head(create_model(small), image(), kernel=0.0, bias=0.0)
    assert not output.offset.any()
    for initial, seed, fused in zip(output.initial, output.seed, output.fused, strict=True):
        assert_allclose(seed, initial, atol=ROUNDING)
        assert_allclose(fused, initial, atol=ROUNDING)


@pytest.mark.parametrize(("bias", "chosen"), [(-30.0, "initial"), (30.0, "seed")])
def test_confidence_chooses_between_initial_and_seed(small, bias, chosen):
    name = "offset_head.classifier.output.bias"
    output = run(create_model(small), image(), **{name: jnp.asarray([1.0, -1.0, bias])})
    assert np.abs(output.seed.main - output.initial.main).max() > 1e-4
    assert_allclose(output.fused.main, getattr(output, chosen).main, atol=ROUNDING)


def test_offsets_stay_within_the_threshold(small):
    output = with_offset_head(create_model(small), image(), kernel=0.0, bias=50.0)
    assert_allclose(output.offset, small.offset.threshold, rtol=1e-6)


def test_refinement_prolongs_offsets_where_they_meet_further_ones(small):
    small.offset.refinement = 1
    output = with_offset_head(create_model(small), image(), kernel=0.0, bias=50.0)
    # A constant offset field doubles wherever the seed lies inside the map.
    assert_allclose(output.offset[:, 0, 0], 2 * small.offset.threshold, rtol=1e-5)


def test_without_logits_the_initial_main_map_is_a_probability(small):
    small.offset.logits = False
    output = run(create_model(small), image())
    assert_allclose(output.initial.main.sum(-1), 1.0, atol=1e-5)
    assert_allclose(output.fused.main.sum(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize(("branch", "modules"), [(4, (2,)), (3, (1, 1)), (2, (1, 1, 2))])
def test_the_offset_trunk_may_leave_before_any_stage(tiny_model, branch, modules):
    tiny_model.offset.update({"branch": branch, "modules": modules})
    output = shapes(create_model(tiny_model), image(33, 50))  # odd sizes, too
    assert output.offset.shape == (2, 9, 13, 2)
    assert output.fused.main.shape == (2, 9, 13, 5)
    assert output.confidence.shape == (2, 9, 13, 1)


def test_an_offset_trunk_with_blocks_and_widths_of_its_own(tiny_model):
    """Published: NUM_BLOCKS and NUM_CHANNELS of STAGE3_2 and STAGE4_2. Transitions end in the backbone's widths."""
    before, after = {3: (8, 16, 32), 4: (8, 16, 32, 64)}, {3: (8, 12, 40), 4: (20, 16, 4, 64)}
    blocks = {3: (1, 2, 1), 4: (3, 1, 1, 2)}
    tiny_model.backbone.update({"width": 8, "modules": (1, 1, 1)})
    tiny_model.offset.update({"branch": 3, "modules": (2, 1)})
    tiny_model.offset.update({"blocks": tuple(blocks.values()), "widths": tuple(after.values())})
    model = nnx.eval_shape(lambda: create_model(tiny_model))
    shapes = {name: x.shape for name, x in parameters.split(model)[1].items() if name.endswith("kernel")}
    for stage in (3, 4):
        for branch, (old, new, count) in enumerate(zip(before[stage], after[stage], blocks[stage], strict=True)):
            of_branch = f"offset_trunk.stage{stage}.0.branches.{branch}."
            assert shapes[f"{of_branch}0.conv1.conv.kernel"] == (3, 3, old, new)
            assert shapes.get(f"{of_branch}0.downsample.conv.kernel") == ((1, 1, old, new) if old != new else None)
            assert shapes[f"{of_branch}{count - 1}.conv2.conv.kernel"] == (3, 3, new, new)
            assert f"{of_branch}{count}.conv1.conv.kernel" not in shapes
    assert shapes["offset_trunk.stage3.1.branches.2.0.conv1.conv.kernel"] == (3, 3, 40, 40)
    assert shapes["offset_trunk.transition2.2.conv.kernel"] == (3, 3, 16, 32)
    assert shapes["offset_trunk.transition3.1.conv.kernel"] == (3, 3, 12, 16)  # from stage 3's own
    assert shapes["offset_trunk.transition3.2.conv.kernel"] == (3, 3, 40, 32)
    assert "offset_trunk.transition3.0.conv.kernel" not in shapes
    assert shapes["offset_trunk.stage4.0.fuse_layers.0.2.conv.kernel"] == (1, 1, 4, 20)
    assert shapes["offset_head.classifier.output.kernel"] == (1, 1, 104, 3)
    assert shapes["head.pixels.conv.kernel"][2] == 120
    assert "backbone.trunk.stage4.0.branches.0.0.downsample.conv.kernel" not in shapes


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("offset", {"blocks": ((1, 1, 1),)}, r"offset.blocks: stage 4 has 4 branches, got \(1, 1, 1\)"),
        ("offset", {"widths": ((4,) * 4, (4,) * 4)}, r"offset.widths is .*; it must have one entry"),
        ("backbone", {"stage_widths": ((4,), (4,), (4,))}, r"stage_widths: stage 2 has 2 branches, got \(4,\)"),
    ],
)
def test_stages_with_other_numbers_of_branches_are_refused(tiny_model, key, value, sentence):
    tiny_model.offset.update({"branch": 4, "modules": (1,)})
    tiny_model[key].update(value)
    with pytest.raises(UserError, match=sentence):
        nnx.eval_shape(lambda: create_model(tiny_model))


def test_the_thesis_has_one_map_of_each_kind(thesis_model):
    output = shapes(create_model(thesis_model), image())
    assert [logits.aux for logits in output[:3]] == [None] * 3
    assert [logits.main.shape for logits in output[:3]] == [(2, 16, 24, 5)] * 3
    assert output.offset.shape == (2, 16, 24, 2)


def test_the_offset_head_starts_at_pytorchs_default_or_like_a_backbone(tiny_model, thesis_model):
    name = "offset_head.classifier.hidden.conv.kernel"
    of_ovenet, of_thesis = (parameters.split(create_model(m))[1][name] for m in (tiny_model, thesis_model))
    bound = 1 / np.sqrt(of_ovenet.shape[2])
    assert 0.9 * bound < np.abs(of_ovenet).max() <= bound
    assert abs(float(of_thesis.std()) / 0.001 - 1) < 0.1


def test_every_batch_norm_has_the_configured_momentum(thesis_model):
    modules = [module for _, module in nnx.iter_modules(create_model(thesis_model))]
    assert {module.momentum for module in modules if isinstance(module, BatchNorm)} == {0.01}


def test_a_baseline_shares_its_names_and_initial_values_with_ovenet(tiny_model):
    ovenet = parameters.split(create_model(tiny_model, seed=3))[1]
    del tiny_model.offset
    baseline = parameters.split(create_model(tiny_model, seed=3))[1]
    assert baseline.keys() < ovenet.keys()
    for name, value in baseline.items():
        np.testing.assert_array_equal(value, ovenet[name])


def test_initial_values_follow_the_seed(tiny_model):
    first, again, other = (parameters.split(create_model(tiny_model, seed))[1] for seed in (0, 0, 1))
    name = "backbone.conv1.conv.kernel"
    np.testing.assert_array_equal(first[name], again[name])
    assert (first[name] != other[name]).any()
    assert abs(float(first[name].std()) / 0.001 - 1) < 0.2


def test_arrays_by_name_make_the_same_model_again(tiny_model):
    model = create_model(tiny_model)
    graphdef, params, statistics = parameters.split(model)
    again = parameters.split(parameters.merge(graphdef, params, statistics))
    assert again[0] == graphdef
    assert again[1].keys() == params.keys()
    assert again[2].keys() == statistics.keys()


def test_dropout_follows_its_key_and_drops_whole_channels(tiny_model):
    tiny_model.head.dropout = 0.5
    model = create_model(tiny_model)
    model.train()
    x = jnp.ones((1, 4, 4, 64))
    first, again, other = (model.head.dropout(x, rngs=nnx.Rngs(dropout=key)) for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert set(np.unique(first.std((1, 2)))) == {0.0}


def test_region_features_are_means_under_the_soft_regions():
    features = jnp.asarray([[[[1.0, 10.0], [3.0, 30.0]]]])  # two pixels
    logits = jnp.asarray([[[[0.0, 50.0], [0.0, 0.0]]]])  # class 0 spreads evenly, class 1 sits on the first pixel
    assert_allclose(gather_regions(features, logits), [[[2, 20], [1, 10]]], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backbone": {"name": "vgg"}}, "config.model.backbone.name is 'vgg'; known: 'hrnet'"),
        ({"head": {"name": "oc"}}, "config.model.head.name is 'oc'; known: 'fcn', 'ocr'"),
        (
            {"backbone": {"modules": (1, 1)}},
            r"config.model.backbone.modules is \(1, 1\); it must be \(stage 2, 3, 4\), each a whole number",
        ),
        ({"num_classes": None}, "config.model.num_classes is None; set it"),
        ({"offset": {"branch": 5}}, "config.model.offset.branch is 5; it must be one of 2, 3, 4"),
        ({"offset": {"modules": (1, 1)}}, r"modules is \(1, 1\); it must have one entry for each stage from branch=4"),
    ],
)
def test_a_model_that_cannot_be_is_named(tiny_model, change, sentence):
    tiny_model.update(ConfigDict(change))
    with pytest.raises(UserError, match=sentence):
        create_model(tiny_model)
