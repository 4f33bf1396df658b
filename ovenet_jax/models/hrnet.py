"""HRNet (HRNetV2): four parallel resolutions with repeated fusion.

Source: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020.
Attribute paths follow the published state dicts (`stage4.0.branches.1.0.conv1`).
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ovenet_jax.models.contracts import Features
from ovenet_jax.models.layers import ConvNormAct, InitialValues, chain, in_step, relu_of_sum, resize_bilinear, together

Branches = Sequence[tuple[int, ...]]  # a number for each branch, for each stage


class Stage(NamedTuple):
    """`modules`: number of exchange modules. `blocks`, `widths`: residual blocks and channels of each branch.

    Blocks are BasicBlocks, or with `bottlenecks` Bottlenecks with a quarter of the branch's channels inside.
    `in_widths`: channels after the transition; (): `widths`. Else the first blocks change them to `widths`.
    """

    modules: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    bottlenecks: bool = False
    in_widths: tuple[int, ...] = ()


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut, [B, H, W, in] -> [B, H, W, width]."""

    def __init__(self, in_features: int, width: int, *, init: InitialValues):
        self.conv1 = ConvNormAct(in_features, width, 3, init=init)
        self.conv2 = ConvNormAct(width, width, 3, activation=None, init=init)
        project = partial(ConvNormAct, in_features, width, 1, activation=None, init=init)
        self.downsample = project() if in_features != width else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return residual([self], [x])[0]

    def layers(self) -> list[ConvNormAct]:
        return [self.conv1, self.conv2]


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 convolutions (width, width, 4 * width) and a shortcut.

    [B, H, W, in] -> [B, ceil(H / stride), ceil(W / stride), 4 * width]; stride and dilation are the 3x3's.
    """

    def __init__(self, in_features: int, width: int, *, stride: int = 1, dilation: int = 1, init: InitialValues):
        self.conv1 = ConvNormAct(in_features, width, 1, init=init)
        self.conv2 = ConvNormAct(width, width, 3, stride=stride, dilation=dilation, init=init)
        self.conv3 = ConvNormAct(width, 4 * width, 1, activation=None, init=init)
        project = partial(ConvNormAct, in_features, 4 * width, 1, stride=stride, activation=None, init=init)
        self.downsample = project() if stride != 1 or in_features != 4 * width else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return residual([self], [x])[0]

    def layers(self) -> list[ConvNormAct]:
        return [self.conv1, self.conv2, self.conv3]


def residual(blocks: Sequence[BasicBlock | Bottleneck], maps: Sequence[jax.Array]) -> list[jax.Array]:
    """`block(x)` for each block and its map; parallel BatchNorms share an all-reduce, see `together`."""
    projections = [[] if block.downsample is None else [block.downsample] for block in blocks]
    shortcuts = in_step(projections, maps, together)
    inner = in_step([block.layers() for block in blocks], maps, together)
    return list(map(relu_of_sum, shortcuts, inner))


class ExchangeModule(nnx.Module):
    """Residual blocks on every branch, then every branch receives the sum of all branches at its resolution.

    fuse_layers[i][j] converts branch j for branch i: None for i = j, a 1x1 convolution (then upsampling) from a
    coarser branch, i - j strided 3x3 convolutions from a finer one.
    """

    def __init__(self, in_widths: Sequence[int], stage: Stage, *, align_corners: bool, init: InitialValues):
        def block(in_features: int, width: int) -> BasicBlock | Bottleneck:
            if stage.bottlenecks:
                return Bottleneck(in_features, width // 4, init=init)
            return BasicBlock(in_features, width, init=init)

        widths = stage.widths
        self.branches = nnx.List(
            nnx.List(block(features, width) for features in (first, *(count - 1) * [width]))
            for first, width, count in zip(in_widths, widths, stage.blocks, strict=True)
        )
        self.fuse_layers = nnx.List(
            nnx.List(_fuse_layer(widths, i, j, init) for j in range(len(widths))) for i in range(len(widths))
        )
        self.align_corners = align_corners

    def __call__(self, maps: list[jax.Array]) -> list[jax.Array]:
        maps = in_step(self.branches, maps, residual)
        indices = range(len(maps))
        paths = [[x] if j > i else x or [] for i in indices for j, x in enumerate(self.fuse_layers[i])]
        converted = iter(in_step(paths, maps * len(maps), together))
        sizes = [x.shape[1:3] for x in maps]
        resize = partial(resize_bilinear, align_corners=self.align_corners)
        return [relu_of_sum(*[resize(next(converted), size) for _ in indices]) for size in sizes]


def _fuse_layer(widths: Sequence[int], i: int, j: int, init: InitialValues):
    if j == i:
        return None
    if j > i:
        return ConvNormAct(widths[j], widths[i], 1, activation=None, init=init)
    steps = [ConvNormAct(widths[j], widths[j], 3, stride=2, init=init) for _ in range(i - j - 1)]
    return nnx.List([*steps, ConvNormAct(widths[j], widths[i], 3, stride=2, activation=None, init=init)])


class Trunk(nnx.Module):
    """The transitions and `stages` up to stage 4; each stage has one branch more than its input.

    HRNet has one from stage 2 on; OVeNet's offset trunk is a second one, from stage `branch` on.
    `in_widths`: channels per branch of its input. With the attribute `rematerialise` only the inputs of exchange
    modules are stored for the backward pass.
    """

    def __init__(self, in_widths: Sequence[int], stages: Sequence[Stage], *, align_corners: bool, init: InitialValues):
        self.numbers = tuple(range(5 - len(stages), 5))
        self.rematerialise = False
        for number, stage in zip(self.numbers, stages, strict=True):
            changed = stage.in_widths or stage.widths
            setattr(self, f"transition{number - 1}", _transition(in_widths, changed, init))
            module = partial(ExchangeModule, stage=stage, align_corners=align_corners, init=init)
            setattr(self, f"stage{number}", nnx.List(map(module, [changed, *(stage.modules - 1) * [stage.widths]])))
            in_widths = stage.widths
        self.width = sum(in_widths)

    def __call__(self, maps: list[jax.Array]) -> list[list[jax.Array]]:
        """The maps before the first stage -> the maps after each stage."""
        outputs = []
        for number in self.numbers:
            with jax.named_scope(f"stage{number}"):
                maps = [*maps, maps[-1]]  # the new branch is made from the coarsest map
                transitions = getattr(self, f"transition{number - 1}")
                maps = in_step([[] if layer is None else [layer] for layer in transitions], maps, together)
                maps = chain(getattr(self, f"stage{number}"), maps, rematerialise=self.rematerialise)
            outputs.append(maps)
        return outputs


def _transition(in_widths: Sequence[int], widths: Sequence[int], init: InitialValues) -> nnx.List:
    """Per branch: None (identity), a 3x3 convolution if the width changes, a strided 3x3 for the new branch.

    The code of OVeNet's thesis predecessor applies all of them to the last map. That fails unless they are for the
    last branch or the new one, so the networks which that code can run are the same here.
    """
    pairs = zip(in_widths, widths, strict=False)
    layers = [None if old == width else ConvNormAct(old, width, 3, init=init) for old, width in pairs]
    return nnx.List([*layers, ConvNormAct(in_widths[-1], widths[-1], 3, stride=2, init=init)])


class HRNet(nnx.Module):
    """The backbone: a stem to stride 4, `layer1` of bottlenecks, then the trunk of stages 2 to 4.

    `layer1`: number of its blocks and their width, (4, 64) in all published W18 to W64 except the small ones.
    `stages`: stages 2, 3 and 4. Published W48: widths 48, 96, 192, 384; modules 1, 4, 3; 4 blocks.
    With the attribute `rematerialise` only the inputs of layer1's blocks are stored for the backward pass.

    `layer1` None: the double-resolution network of SegFix, "hrnet2x", with a stem to stride 2 and `stages` 1 to 4,
    each of one branch more. Published 2x20: bottlenecks of 128 and 256 channels, then widths 20 to 320; modules 1, 1,
    4, 3; 4 blocks.
    """

    def __init__(
        self,
        *,
        stages: Sequence[Stage],
        layer1: tuple[int, int] | None,
        stem_width: int,
        align_corners: bool,
        channels: int = 3,
        init: InitialValues,
    ):
        self.conv1 = ConvNormAct(channels, stem_width, 3, stride=2, init=init)
        widths = [stem_width]
        if layer1 is not None:
            blocks, width = layer1
            self.conv2 = ConvNormAct(stem_width, stem_width, 3, stride=2, init=init)
            widths += [4 * width] * blocks
            self.layer1 = nnx.List(Bottleneck(features, width, init=init) for features in widths[:-1])
        self.trunk = Trunk(widths[-1:], stages, align_corners=align_corners, init=init)
        self.rematerialise = False
        self.stages = tuple(stages)
        after_stages = (tuple(widths[-1:]), *(stage.widths for stage in stages))
        self.stage_widths = after_stages[-4:]  # of stages 1 to 4
        self.double_resolution = layer1 is None
        self.align_corners = align_corners
        self.width = self.aux_width = self.trunk.width

    def __call__(self, image: jax.Array) -> list[list[jax.Array]]:
        """Image [B, H, W, C] -> the maps after each of stages 1 to 4, finest first: [B, H / 4, W / 4, C] (hrnet2x: H /
        2) ..."""
        with jax.named_scope("stage1"):
            x = self.conv1(image)
            if not self.double_resolution:
                x = chain(self.layer1, self.conv2(x), rematerialise=self.rematerialise)
        return self.trunk([x]) if self.double_resolution else [[x], *self.trunk([x])]

    def last(self, stages: Sequence[list[jax.Array]]) -> jax.Array:
        """All branches of the last stage at the size of the finest, concatenated: [B, H / 4, W / 4, sum of widths]."""
        size = stages[-1][0].shape[1:3]
        resized = [resize_bilinear(x, size, align_corners=self.align_corners) for x in stages[-1]]
        return jnp.concatenate(resized, axis=-1)

    def features(self, stages: Sequence[list[jax.Array]]) -> Features:
        """The same features for the head and an auxiliary head."""
        last = self.last(stages)
        return Features(aux=last, main=last)

    def offset_trunk(
        self, branch: int, modules: Sequence[int], *, blocks: Branches = (), widths: Branches = (), init: InitialValues
    ) -> Trunk:
        """`blocks`, `widths`: per branch, for each stage; (): the backbone's. As published, transitions keep the
        backbone's widths; the first block of each branch, with a 1x1 convolution as shortcut, changes to its own."""
        copied = self.stages[branch - 5 :]
        blocks, widths = blocks or [x.blocks for x in copied], widths or [x.widths for x in copied]
        own = zip(copied, modules, blocks, widths, strict=True)
        stages = [Stage(m, b, w, stage.bottlenecks, in_widths=stage.widths) for stage, m, b, w in own]
        return Trunk(self.stage_widths[branch - 2], stages, align_corners=self.align_corners, init=init)
