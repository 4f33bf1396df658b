"""Networks of the options that experiment files have, drawn at random: they have the kernels of the published rule."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model

Kernels = Iterator[tuple[str, tuple[int, int, int, int]]]


def drawn(seed: int) -> ConfigDict:
    """config.model of a small HRNet, or in half of the draws OVeNet, each with widths and blocks of its own."""
    rng = np.random.default_rng(seed)

    def numbers(count: int, most: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, most, count, endpoint=True).tolist())

    def by_stage(first: int, most: int) -> tuple[tuple[int, ...], ...]:
        return tuple(numbers(stage, most) for stage in range(first, 5)) if rng.random() < 0.7 else ()

    model = ConfigDict({"backbone": common.hrnet(rng.integers(1, 5).item()), "num_classes": 3})
    model.head = common.fcn() if rng.random() < 0.5 else common.ocr(4)
    blocks, layer1_blocks, layer1_width = numbers(3, 2)
    model.backbone.update({"blocks": blocks, "layer1_blocks": layer1_blocks, "layer1_width": layer1_width})
    model.backbone.update({"modules": numbers(3, 2), "stem_width": numbers(1, 9)[0]})
    model.backbone.update({"stage_blocks": by_stage(2, 3), "stage_widths": by_stage(2, 6)})
    model.update({"align_corners": rng.random() < 0.5, "norm_momentum": 0.1})
    if rng.random() < 0.5:
        branch = rng.integers(2, 5).item()
        model.offset = {"branch": branch, "modules": numbers(5 - branch, 2), **common.defaults_of("model.offset.")}
        model.offset.update({"blocks": by_stage(branch, 3), "widths": by_stage(branch, 6)})
    return model


def trunk(
    name: str,
    before: Sequence[int],
    modules: Sequence[int],
    blocks: Sequence[Sequence[int]],
    widths: Sequence[Sequence[int]],
    inside: Sequence[Sequence[int]],
) -> Kernels:
    """`widths`: of each stage after its transition; `inside`: of its branches, by their first blocks."""
    for number, *of_stage in zip(range(5 - len(modules), 5), modules, blocks, widths, inside, strict=True):
        count, depths, after, own = of_stage
        for i, width in enumerate(after):
            if i == len(before) or before[i] != width:
                yield f"{name}.transition{number - 1}.{i}", (3, 3, before[min(i, len(before) - 1)], width)
        for module in range(count):
            prefix, entering = f"{name}.stage{number}.{module}", own if module else after
            for i, (first, width, depth) in enumerate(zip(entering, own, depths, strict=True)):
                for block in range(depth):
                    in_width = width if block else first
                    yield f"{prefix}.branches.{i}.{block}.conv1", (3, 3, in_width, width)
                    yield f"{prefix}.branches.{i}.{block}.conv2", (3, 3, width, width)
                    if in_width != width:
                        yield f"{prefix}.branches.{i}.{block}.downsample", (1, 1, in_width, width)
            for i, to in enumerate(own):
                for j, source in enumerate(own):
                    if j > i:
                        yield f"{prefix}.fuse_layers.{i}.{j}", (1, 1, source, to)
                    for step in range(i - j):
                        yield (
                            f"{prefix}.fuse_layers.{i}.{j}.{step}",
                            (3, 3, source, to if step == i - j - 1 else source),
                        )
        before = own


def published(model: ConfigDict) -> Kernels:
    """The kernels of backbone and offset trunk, and the first ones of the heads."""
    backbone, stem = model.backbone, model.backbone.stem_width
    yield "backbone.conv1", (3, 3, 3, stem)
    yield "backbone.conv2", (3, 3, stem, stem)
    inner, outer = backbone.layer1_width, 4 * backbone.layer1_width
    for block in range(backbone.layer1_blocks):
        in_width = outer if block else stem
        yield f"backbone.layer1.{block}.conv1", (1, 1, in_width, inner)
        yield f"backbone.layer1.{block}.conv2", (3, 3, inner, inner)
        yield f"backbone.layer1.{block}.conv3", (1, 1, inner, outer)
        if in_width != outer:
            yield f"backbone.layer1.{block}.downsample", (1, 1, in_width, outer)
    stages = range(2, 5)
    widths = backbone.stage_widths or [[backbone.width * 2**i for i in range(stage)] for stage in stages]
    blocks = backbone.stage_blocks or [[backbone.blocks] * stage for stage in stages]
    yield from trunk("backbone.trunk", [outer], backbone.modules, blocks, widths, widths)
    yield "head.classifier.hidden" if model.head.name == "fcn" else "head.aux.hidden", (1, 1, *2 * [sum(widths[-1])])
    if "offset" in model:
        first = model.offset.branch - 2
        before = widths[first - 1] if first else [outer]
        own = model.offset.widths or widths[first:]
        depths = model.offset.blocks or blocks[first:]
        yield from trunk("offset_trunk", before, model.offset.modules, depths, widths[first:], own)
        yield "offset_head.classifier.hidden", (1, 1, *2 * [sum(own[-1])])


@pytest.mark.parametrize("seed", range(50))
def test_kernels_follow_the_published_rule(seed):
    model = drawn(seed)
    _, arrays, _ = parameters.split(create_model(model))
    shapes = {name.removesuffix(".conv.kernel"): x.shape for name, x in arrays.items() if name.endswith("conv.kernel")}
    expected = dict(published(model))
    rest = shapes.keys() - expected.keys()
    assert {name: shapes.get(name) for name in expected} == expected
    assert all(name.startswith("head.") for name in rest), rest
    assert all(np.isfinite(x).all() for x in arrays.values())


def test_the_draws_have_all_kinds():
    models = [drawn(seed) for seed in range(50)]
    assert {model.offset.branch for model in models if "offset" in model} == {2, 3, 4}
    own = [(bool(model.offset.blocks), bool(model.offset.widths)) for model in models if "offset" in model]
    assert len(set(own)) == 4
    assert {(bool(m.backbone.stage_blocks), bool(m.backbone.stage_widths)) for m in models} == set(own)
