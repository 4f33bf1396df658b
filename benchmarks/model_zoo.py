"""Parameters and operations of the networks: python -m benchmarks.model_zoo > docs/model_zoo.md

Nothing is trained or compiled: parameters are counted in the initialised networks, operations in their traces. It takes
some minutes.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
from flax import nnx
from jax.extend.core import jaxprs_in_params
from ml_collections import ConfigDict

from configs import acdc, ade20k, cityscapes, coco_stuff, lip, pascal_context
from ovenet_jax import plan
from ovenet_jax.models import attention, parameters
from ovenet_jax.models.zoo import create_model

FILES = {
    "acdc": acdc,
    "ade20k": ade20k,
    "cityscapes": cityscapes,
    "coco_stuff": coco_stuff,
    "lip": lip,
    "pascal_context": pascal_context,
}
SEVEN = '--config.eval.flip --config.eval.scales="(0.5,0.75,1.0,1.25,1.5,1.75,2.0)"'
OPENSEG = "openseg's model zoo"
OCNET = "OCNet.pytorch's README"
HRNET = "HRNet's README"


class Row(NamedTuple):
    """A network of one data set's config file; `miou` as published by `source`, with these flags of the test."""

    file: str
    variant: str
    miou: str
    source: str
    flags: str = ""


WITH_OFFSETS = {"hrnet": "thesis", "hrnet_ocr": "ovenet"}  # named by the code that published them; others: ovenet_...
ROWS = (
    Row("cityscapes", "hrnet", "80.9", HRNET),
    Row("cityscapes", "hrnet_ocr", "81.6", HRNET),
    Row("cityscapes", "base_oc_r101", "79.49", OPENSEG),
    Row("cityscapes", "isa_r101", "79.55", OPENSEG),
    Row("cityscapes", "ocr_r101", "79.63", OPENSEG),
    Row("cityscapes", "asp_ocr_r101", "79.89", OPENSEG),
    Row("cityscapes", "ocr_w48", "81.09", OPENSEG),
    Row("cityscapes", "fcn_r101", "", ""),
    Row("cityscapes", "base_oc_half_r101", "", ""),
    Row("cityscapes", "asp_oc_r101", "", ""),
    Row("cityscapes", "pyramid_oc_r101", "", ""),
    Row("cityscapes", "fcn_w48", "about 80.6", OPENSEG),
    Row("cityscapes", "asp_ocr_w48", "", ""),
    Row("cityscapes", "ocr_b_w48", "", ""),
    Row("cityscapes", "ocnet_base_oc_r101", "about 79.3", OCNET),
    Row("cityscapes", "ocnet_asp_oc_r101", "about 79.5", OCNET),
    Row("cityscapes", "ocnet_asp_oc_r101_ohem", "about 80.4", OCNET),
    Row("cityscapes", "ocnet_pyramid_oc_r101", "", ""),
    Row("pascal_context", "ocr_w48", "55.11", OPENSEG),
    Row("lip", "ocr_w48", "56.72", OPENSEG),
    Row("coco_stuff", "ocr_w48", "39.61", OPENSEG),
    Row("coco_stuff", "ocr_w48", "40.20", OPENSEG, SEVEN),
    Row("ade20k", "ocr_w48", "44.62", OPENSEG),
    Row("ade20k", "ocr_w48", "46.19", OPENSEG, SEVEN),
)


class Published(NamedTuple):
    """mIoU of a network with HRNet-W48 as published by `source`: at one scale, and with scales and flip."""

    file: str
    variant: str
    one_scale: str
    scales_and_flip: str
    source: str


MMSEGMENTATION = "mmsegmentation's README, 160k steps"
PADDLESEG = "PaddleSeg's README"
NOT_FOUND = "not found"

TO_BE_REACHED = (
    Published("cityscapes", "hrnet", "80.9", "", HRNET),
    Published("cityscapes", "hrnet", "80.65", "81.92", MMSEGMENTATION),
    Published("cityscapes", "hrnet", "80.70", "81.56", f"{PADDLESEG}, 80k steps"),
    Published("cityscapes", "hrnet_ocr", "81.6", "", HRNET),
    Published("cityscapes", "hrnet_ocr", "81.35", "82.70", MMSEGMENTATION),
    Published("cityscapes", "hrnet_ocr", "82.15", "82.85", f"{PADDLESEG}, 160k steps"),
    Published("cityscapes", "ovenet", NOT_FOUND, "", ""),
    Published("acdc", "hrnet", NOT_FOUND, "", ""),
    Published("acdc", "hrnet_ocr", NOT_FOUND, "", ""),
    Published("acdc", "ovenet", NOT_FOUND, "", ""),
    Published("ade20k", "hrnet", "43.1", "44.2", HRNET),
    Published("ade20k", "hrnet", "42.02", "43.86", MMSEGMENTATION),
    Published("ade20k", "hrnet_ocr", "44.5", "45.5", HRNET),
    Published("ade20k", "hrnet_ocr", "43.25", "44.88", MMSEGMENTATION),
    Published("ade20k", "ovenet", NOT_FOUND, "", ""),
)
# Cityscapes' networks with OCR train on train+val; numbers on val are of networks trained on train, for so many steps
TRAIN_ALONE = {"hrnet_ocr": 119548, "ovenet": 143748}

BEFORE = """# Model zoo

Made by `python -m benchmarks.model_zoo > docs/model_zoo.md`; what is published was not trained again here.

HRNet's own networks and OVeNet are the variants `hrnet`, `hrnet_ocr` and `ovenet` of the configs. Of the OCNet series
every head on every backbone is a variant `[ovenet_]HEAD_BACKBONE` of every data set's config, with OVeNet's offsets or
without.

- Heads: `fcn`, `fcn_no_aux` (without its auxiliary head), `ocr` (also what OCNet's paper calls Fast-OC), `ocr_b` (half
  of its channels), `asp_ocr` (its fast ASP-OC), `base_oc`, `base_oc_half` (attention among 2x2 pixels), `pyramid_oc`,
  `asp_oc`, `isa`; and those of OCNet's first release, `ocnet_base_oc`, `ocnet_pyramid_oc`, `ocnet_asp_oc`.
- Backbones: `r50` and `r101`, dilated ResNets of stride 8; `w18_small_v1`, `w18_small_v2`, `w18`, `w32`, `w48` and
  `w64`, HRNets of stride 4; `r_tiny` and `tiny`, one of each for a CPU.

`ocr_w48` is openseg's HRNet + OCR: BGR input, biases in the attention, a 3x3 auxiliary head, LeakyReLU. `hrnet_ocr` is
that of HRNet's own code, which OVeNet stands on. Neither loads the other's weights.

## Networks

GFLOPs: two operations per multiply-add, convolutions and matrix products alone, at the size behind them. In brackets:
with offsets (`ovenet_` before the variant; `thesis` for `hrnet`, `ovenet` for `hrnet_ocr`). Rows without a published
number are there to be compared.

| config | backbone | head | parameters [M] | GFLOPs | published mIoU [%] |
|---|---|---|---|---|---|
"""

AFTER = """
Published on the validation splits, COCO-Stuff 10k's test split, at one scale; LIP with flip. The second row of a
variant is published with `{seven}`.

## HRNet's own networks and OVeNet

What is to be reached with HRNet-W48 from ImageNet weights, mIoU [%] on the validation splits. OVeNet's abstract (arXiv
2303.14516) says that it gains on all three data sets; by how much was not found, nor was any number of HRNet's for
ACDC. mmsegmentation and PaddleSeg train by their own settings. HRNet + OCR trained on train+val reaches 82.3 on
Cityscapes' test server with scales and flip (HRNet's README).

| config | at one scale | with scales and flip | source |
|---|---|---|---|
{to_be_reached}

| config | hours on an H200 | on eight | command |
|---|---|---|---|
{their_commands}

Hours are estimates as by `--mode=plan`, with `--config.precision=bfloat16` and without evaluations; nothing was run. On
eight H200 a batch is a multiple of 8 images (`config.batch_size`), for as many images in all (`config.steps`).

Scales and flip: `--mode=evaluate --config.eval.flip --config.eval.scales="(0.5,0.75,1.0,1.25,1.5,1.75)"`; on ADE20K 2.0
as well. Cityscapes' configs of the networks with OCR train on train+val, as published for the test server; the commands
are those of numbers on val.

## Commands

ImageNet weights of a backbone, as published with the code base, are imported once, with whatever head:

    python main.py --config=configs/cityscapes.py:ocr_r101 --mode=import --source=FILE.pth --workdir=runs/imagenet-r101
    python main.py --config=configs/cityscapes.py:ocr_w48 --mode=import --source=FILE.pth --workdir=runs/imagenet-w48

A row below trains and at the end evaluates at one scale. At seven scales with flip, for example:

    python main.py --config=configs/ade20k.py:ocr_w48 --mode=evaluate \\
        {seven}

| config | command |
|---|---|
{commands}

A published checkpoint instead of training: `--mode=import --source=FILE.pth` with the row's config and a `--workdir` of
its own, then `--mode=evaluate` there. Cityscapes' variants take `_ohem` (only hard pixels train). For the test server
OCNet's first release trains on train+val for 80,000 steps and goes on from there at a fixed rate:

    python main.py --config=configs/cityscapes.py:ocnet_asp_oc_r101_ohem --config.init.base=runs/imagenet-r101 \\
        --config.data.train_split=train+val --config.steps=80000 --workdir=runs/ocnet-stage1
    python main.py --config=configs/cityscapes.py:ocnet_asp_oc_r101_stage2 --config.init.base=runs/ocnet-stage1

## Where the settings come from

Rates, batches, crops, losses and inputs are those of openseg's scripts and of the first release's code and README; what
its README alone tells are the 80,000 steps on train+val and the hard pixels of the second stage. openseg feeds its
networks BGR images. The first release converts to RGB and subtracts the same numbers, so its networks want RGB.
openseg's script for COCO-Stuff, like that for PASCAL-Context, trains heads at ten times the rate. The 80.6 of `fcn_w48`
is from the text of the model zoo, not from its table.

## What is not as published

- In-place ABN is BatchNorm and LeakyReLU; imported scales are folded into it.
- The poly schedule is one step late, as in HRNet's code. openseg's configs hold a warm-up of 1000 steps, except
  for Cityscapes; openseg's scripts leave it off, here it is on (`config.optimizer.warmup_steps`), in openseg's form:
  the backbone's rate grows with the fourth power.
- Training images are resampled once, bilinearly; openseg resizes some twice, bicubically. Scaled sizes are rounded, not
  cut off. Padding has the mean colour in whole grey levels, and the brightness of its image.
- In tests on images of all sizes the longer side of a pass is resized to a multiple of `config.eval.bucket` where
  openseg pads to multiples of 8; images are scaled with half-pixel centres, scores brought back bilinearly, not
  bicubically.
- The first release computes its queries and keys, which are one, twice: its GFLOPs are a little higher there.
"""


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.model_zoo", description=__doc__.split("\n")[0]).parse_args()
    measured: dict[tuple, tuple[int, int]] = {}

    def measure_once(config: ConfigDict) -> tuple[int, int]:
        key = (config.model.to_json(), test_size(config))
        if key not in measured:
            print(f"{config.name} ...", file=sys.stderr)
            measured[key] = measure(config)
        return measured[key]

    print(document(measure_once, hours_on_h200), end="")


def document(measure: Callable[[ConfigDict], tuple[int, int]], hours: Callable[[str, str], tuple[str, str]]) -> str:
    """docs/model_zoo.md. `measure`: parameters and operations of a config's network at its test size; `hours` that a
    training of a file's variant takes on one H200 and on eight."""
    lines = [table_line(row, measure) for row in ROWS]
    commands = dict.fromkeys(command_line(row.file, row.variant) for row in ROWS if row.variant not in WITH_OFFSETS)
    after = AFTER.format(
        seven=SEVEN,
        commands="\n".join(commands),
        to_be_reached="\n".join(
            f"| `{x.file}:{x.variant}` | {x.one_scale} | {x.scales_and_flip} | {x.source} |" for x in TO_BE_REACHED
        ),
        their_commands="\n".join(
            command_line(file, variant, hours(file, variant))
            for file, variant in dict.fromkeys((x.file, x.variant) for x in TO_BE_REACHED)
        ),
    )
    return BEFORE + "\n".join(lines) + "\n" + after


def table_line(row: Row, measure: Callable[[ConfigDict], tuple[int, int]]) -> str:
    """A row of the table."""
    with_offsets = WITH_OFFSETS.get(row.variant, f"ovenet_{row.variant}")
    plain, offsets = map(FILES[row.file].get_config, (row.variant, with_offsets))
    (count, work), (count_offsets, work_offsets) = measure(plain), measure(offsets)
    height, width = test_size(plain)
    model = plain.model
    backbone = "ResNet-101" if model.backbone.name == "resnet" else f"HRNet-W{model.backbone.width}"
    published = f"{row.miou} ({row.source})" if row.miou else ""
    return (
        f"| `{row.file}:{row.variant}` | {backbone} | {model.head.name} "
        f"| {count / 1e6:.2f} ({count_offsets / 1e6:.2f}) "
        f"| {work / 1e9:.1f} ({work_offsets / 1e9:.1f}) at {height}x{width} | {published} |"
    )


def command_line(file: str, variant: str, hours: Sequence[str] = ()) -> str:
    """A row of a table of commands."""
    backbone = "r101" if "r101" in variant else "w48"
    command = f"python main.py --config=configs/{file}.py:{variant} --config.init.base=runs/imagenet-{backbone}"
    if steps := steps_on_train(file, variant):
        command += f" --config.data.train_split=train --config.steps={steps}"
    return f"| {' | '.join([f'`{file}:{variant}`', *hours, f'`{command}`'])} |"


def steps_on_train(file: str, variant: str) -> int | None:
    """Of a training whose network is tested on the validation split; None: the config's."""
    return TRAIN_ALONE.get(variant) if file == "cityscapes" else None


def hours_on_h200(file: str, variant: str) -> tuple[str, str]:
    """What --mode=plan expects of the command, on one and on eight."""
    config = FILES[file].get_config(variant)
    config.precision = "bfloat16"
    images = config.batch_size * (steps_on_train(file, variant) or config.steps)
    found = []
    for count in (1, 8):
        config.batch_size = count * math.ceil(config.batch_size / count)
        seconds = plan.step_seconds(config, count, plan.GPUS["h200"])
        found.append(" to ".join(f"{images / config.batch_size * x / 3600:.1f}" for x in seconds))
    return found[0], found[1]


def test_size(config: ConfigDict) -> tuple[int, int]:
    """(H, W) of Cityscapes' images; of images of all sizes, the square of the side that passes have at scale 1."""
    if config.data.name == "cityscapes":
        return 1024, 2048
    return (config.eval.base_size,) * 2


def measure(config: ConfigDict) -> tuple[int, int]:
    """Parameters of the config's network, and its operations on one image of the test size."""
    network = create_model(config.model)
    _, params, _ = parameters.split(network)
    return sum(math.prod(x.shape) for x in params.values()), operations(network, test_size(config))


def operations(network: nnx.Module, size: tuple[int, int]) -> int:
    """Of the convolutions and matrix products that an image of `size` (H, W) takes, two for each multiply-add.

    Without those of bilinear resizing, which is a matrix product here and elsewhere is not, and of the pixels that fill
    up attention's last turn.
    """
    image = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
    with mock.patch.object(attention, "QUERIES", math.inf):  # all in one chunk
        return _operations(jax.make_jaxpr(network)(image))


def _operations(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if "resize_bilinear" in str(equation.source_info.name_stack):
            continue
        shapes = [x.aval.shape for x in (*equation.invars, equation.outvars[0])]
        if equation.primitive.name == "conv_general_dilated":
            _, kernel, out = shapes
            total += 2 * math.prod(out) * math.prod(kernel[:-1])
        elif equation.primitive.name == "dot_general":
            left, _, out = shapes
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
        else:
            times = equation.params.get("length", 1)  # of a scan
            total += times * sum(map(_operations, jaxprs_in_params(equation.params)))
    return total


if __name__ == "__main__":
    main()
