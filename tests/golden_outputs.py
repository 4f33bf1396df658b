"""What networks say of the goldens' images: their outputs, and class scores by a test protocol."""

from functools import cache
from typing import Any

import jax
import numpy as np
from flax import nnx

from ovenet_jax import parallel
from ovenet_jax.inference import Inference, Normalisation
from ovenet_jax.models import parameters
from ovenet_jax.models.fcn import FCN, PixelClassifier
from ovenet_jax.models.hrnet import HRNet, Stage
from ovenet_jax.models.layers import BatchNorm, InitialValues
from ovenet_jax.models.ocr import OCR, gather_regions
from ovenet_jax.models.ovenet import OVeNet
from ovenet_jax.models.segmentor import Logits, Segmentor
from ovenet_jax.protocol import Protocol
from tests.golden_case import Case, channels_first
from tests.published_keys import load_state_dict


def load_model(case: Case) -> nnx.Module:
    """The case's network with its weights, in evaluation mode."""
    model = build_model(case.network)
    model.set_attributes(BatchNorm, momentum=case.network["batch_norm"]["momentum"])
    weights = dict(np.load(case.weights_file, allow_pickle=False))
    model = load_state_dict(model, weights, str(case.weights_file))
    model.eval()
    return model


def build_model(network: dict) -> nnx.Module:
    """The network that `config.network` describes."""
    init = InitialValues(seed=0)
    backbone = network["backbone"]
    first, *stages = backbone["stages"]
    hrnet = HRNet(
        stages=[Stage(s["modules"], s["blocks"][0], tuple(s["channels"])) for s in stages],
        layer1_blocks=first["blocks"][0],
        layer1_width=first["planes"][0],
        stem_width=backbone["stem"]["channels"][0],
        align_corners=network["align_corners"],
        init=init,
    )
    features, classes = backbone["concat_channels"], network["num_classes"]
    head = network["head"]
    if head["type"] == "conv":
        head = FCN(PixelClassifier(features, classes, in_head=False, init=init))
    else:
        head = OCR(
            features,
            classes,
            aux=PixelClassifier(features, classes, init=init),
            mid_features=head["mid_channels"],
            key_features=head["key_channels"],
            dropout=network.get("dropout_in_this_case", head["dropout"]),
            init=init,
        )
    if "offset_head" not in network:
        return Segmentor(hrnet, head, align_corners=network["align_corners"])
    offset = network["offset_head"]
    return OVeNet(
        hrnet,
        head,
        align_corners=network["align_corners"],
        offset_branch=offset["branch"],
        offset_modules=tuple(stage["modules"] for stage in backbone["offset_stages"].values()),
        threshold=offset["threshold"],
        refinement=offset["refinement"],
        grid_align_corners=offset["grid_sample_align_corners"],
        logits=offset["logits"],
        init=init,
    )


@cache
def evaluate(case: Case, function=lambda model, image: model(image)) -> Any:
    """What the network in evaluation mode says of the image `x`, or a function of both."""
    graphdef, params, statistics = parameters.split(load_model(case))
    run = jax.jit(lambda p, s, image: function(parameters.merge(graphdef, p, s), image))
    return run(params, statistics, case.image())


def forward(case: Case) -> dict[str, np.ndarray]:
    """The outputs for the image `x`, and those of the parts inside an OVeNet where the case holds them."""
    arrays = output_arrays(evaluate(case))
    if "mid_layer1" in case.outputs:
        arrays |= evaluate(case, _parts)
    return {name: channels_first(x) for name, x in arrays.items()}


def output_arrays(output) -> dict[str, jax.Array]:
    """A network's output under the goldens' names, channels last."""
    if isinstance(output, Logits):
        return _named_logits(output, aux="aux", main="out")
    arrays = {"offset": output.offset, "confidence": output.confidence}
    for prefix, logits in (("s_i", output.initial), ("s_s", output.seed), ("s_f", output.fused)):
        main = prefix if logits.aux is None else f"{prefix}_out"  # the thesis has no auxiliary map
        arrays |= _named_logits(logits, aux=f"{prefix}_aux", main=main)
    return arrays


def _named_logits(logits: Logits, aux: str, main: str) -> dict[str, jax.Array]:
    return {main: logits.main} if logits.aux is None else {aux: logits.aux, main: logits.main}


def _parts(model: OVeNet, image: jax.Array) -> dict[str, jax.Array]:
    """The outputs of the named parts inside an OVeNet, `mid_*`."""
    stages = model.backbone(image)
    arrays = {"mid_layer1": stages[0][0]}
    for number, maps in enumerate(stages[1:], start=2):
        arrays |= {f"mid_stage{number}_{branch}": x for branch, x in enumerate(maps)}
    offset_stages = model.offset_trunk(stages[model.offset_branch - 2])
    for number, maps in enumerate(offset_stages, start=model.offset_branch):
        arrays |= {f"mid_stage{number}_2_{branch}": x for branch, x in enumerate(maps)}
    features = model.backbone.features(stages)
    pixels = model.head.pixels(features.main)
    regions = gather_regions(pixels, model.head.aux(features.aux))
    return arrays | {
        "mid_conv3x3_ocr": pixels,
        "mid_ocr_gather_head": regions[:, :, None],
        "mid_ocr_distri_head": model.head.augment(pixels, regions),
        "mid_aux_head_offset": model.offset_head.classifier(model.backbone.last(offset_stages)),
    }


def inference(case: Case) -> dict[str, np.ndarray]:
    """Class scores of `image` by the case's protocol: all scales with flip, scale 1 with and without; the classes."""
    spec = case.spec["inference"]
    every_scale = Protocol(
        base_size=spec["base_size"],
        window=tuple(spec["crop_size_hw"]),
        scales=tuple(spec["scales"]),
        flip=spec["flip"],
        windows="generic" if spec["variant"] == "base" else "cityscapes",
        parts_align_corners=False if spec["variant"] == "ade20k" else None,
    )
    graphdef, params, statistics = parameters.split(load_model(case))
    image = np.ascontiguousarray(case.io["image"][..., ::-1])  # BGR

    def scores(protocol: Protocol) -> dict[str, np.ndarray]:
        run = Inference(
            graphdef,
            protocol,
            align_corners=spec["align_corners"],
            normalisation=Normalisation(),
            mesh=parallel.create_mesh(jax.devices()[:1]),
        )
        segmentation = run(params, statistics, [image])
        return {name: channels_first(x) for name, x in segmentation.scores.items()}

    by_part = scores(every_scale)
    arrays = {f"dbg_s_{name[0]}": x for name, x in by_part.items()}  # initial, seed, fused
    arrays["ms_flip"] = list(by_part.values())[-1]
    for name, flip in (("ss", False), ("ss_flip", True)):
        if name in case.outputs:
            arrays[name] = list(scores(every_scale._replace(scales=(1.0,), flip=flip)).values())[-1]
    return arrays | {f"{name}_argmax": x.argmax(1) for name, x in arrays.items()}
