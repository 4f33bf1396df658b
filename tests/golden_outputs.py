"""What networks say of the goldens' images: their outputs, and class scores by a test protocol."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovenet_jax.devices import parallel
from ovenet_jax.evaluation.inference import Inference
from ovenet_jax.evaluation.protocol import Protocol
from ovenet_jax.models import parameters
from ovenet_jax.models.contracts import Logits
from ovenet_jax.models.fcn import FCN, PixelClassifier
from ovenet_jax.models.hrnet import HRNet, Stage
from ovenet_jax.models.isa import ISA
from ovenet_jax.models.layers import BatchNorm, InitialValues, relu, resize_bilinear
from ovenet_jax.models.ocnet import ASPOC, BaseOC, PyramidOC
from ovenet_jax.models.ocr import OCR, gather_regions
from ovenet_jax.models.ovenet import OVeNet, Segmentor
from ovenet_jax.models.resnet import Layer, ResNet
from ovenet_jax.models.segfix import SegFix, SegFixOutput
from ovenet_jax.weights.torch_weights import fold_in_place_abn
from tests.golden_case import Case, channels_first
from tests.imagenet import NORMALISATION
from tests.published_keys import load_state_dict

ACTIVATIONS = {"relu": relu, "leaky_relu_0.01": jax.nn.leaky_relu, "none": None}
ARCHITECTURES = (
    *("ovenet_hrnet_ocr", "thesis_offset_hrnet", "hrnet", "hrnet_ocr", "hrnet_asp_ocr"),
    *("ocr", "asp_ocr", "base_oc", "asp_oc", "isa", "fcn", "pyramid_oc", "segfix"),
)


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
    init = InitialValues(seed=0, he=False)
    backbone = build_backbone(network, init)
    if network["architecture"] == "segfix":
        return SegFix(
            backbone,
            hidden_features=network["head"]["mid_channels"],
            directions=network["head"]["num_directions"],
            activation=jax.nn.leaky_relu,
            init=init,
        )
    head = build_head(network, backbone, init)
    if "offset_head" not in network:
        return Segmentor(backbone, head)
    offset, stages = network["offset_head"], network["backbone"]["offset_stages"].values()
    return OVeNet(
        backbone,
        head,
        branch=offset["branch"],
        modules=tuple(stage["modules"] for stage in stages),
        blocks=tuple(tuple(stage["blocks"]) for stage in stages),
        widths=tuple(tuple(stage["channels"]) for stage in stages),
        threshold=offset["threshold"],
        refinement=offset["refinement"],
        grid_align_corners=offset["grid_sample_align_corners"],
        logits=offset["logits"],
        default_init=True,
        init=init,
    )


def build_backbone(network: dict, init: InitialValues) -> nnx.Module:
    backbone = network["backbone"]
    if backbone["type"] == "resnet":
        numbers = zip(backbone["planes"], backbone["strides"], backbone["dilations"], strict=True)
        layers = [Layer(width, stride, tuple(dilations)) for width, stride, dilations in numbers]
        return ResNet(layers, stem=backbone["stem"]["channels"], init=init)
    first = backbone["stages"][0]
    stages = [
        Stage(s["modules"], tuple(s["blocks"]), tuple(s["channels"]), bottlenecks=s["block"] == "bottleneck")
        for s in backbone["stages"]
    ]
    double_resolution = backbone["type"] == "hrnet2x"
    return HRNet(
        stages=stages if double_resolution else stages[1:],
        layer1=None if double_resolution else (first["blocks"][0], first["planes"][0]),
        stem_width=backbone["stem"]["channels"][0],
        align_corners=network["align_corners"],
        init=init,
    )


def build_head(network: dict, backbone: nnx.Module, init: InitialValues) -> nnx.Module:
    """The head, with the auxiliary one."""
    head, features, classes = network["head"], backbone.width, network["num_classes"]
    aux = None
    if "aux_head" in network:
        aux = build_classifier(network["aux_head"], backbone.aux_width, init)
    if head["type"] == "conv":
        return FCN(classifier=build_classifier(head, features, init), aux=aux)
    options = {
        "aux": aux,
        "mid_features": head.get("mid_channels", head.get("hidden_channels")),
        "key_features": head["key_channels"],
        "activation": ACTIVATIONS[head["activation"]],
        "dropout": network.get("dropout_in_this_case", head["dropout"]),
        "init": init,
    }
    if head["type"] == "ocr":
        return OCR(features, classes, dilations=(), bias=head["attention_bias"], output_bias=True, **options)
    if head["type"] == "asp_ocr":
        options |= {"dilations": head["dilations"], "output_bias": head["classifier_bias"]}
        return OCR(features, classes, bias=True, **options)
    if head["type"] == "isa":
        return ISA(features, classes, factors=[tuple(block) for block in head["factors"]], **options)
    if head["type"] == "pyramid_oc":
        return PyramidOC(features, classes, sizes=head["pyramid_sizes"], **options)
    options |= {
        "value_features": head["value_channels"],
        "first_release": head["shared_query_key"],
        "align_corners": network["align_corners"],
    }
    if head["type"] == "base_oc":
        return BaseOC(features, classes, half=head["attention_pool"] == 2, **options)
    options |= {"branch_features": head["hidden_channels"], "dilations": head["dilations"]}
    return ASPOC(features, classes, **options)


def build_classifier(head: dict, features: int, init: InitialValues) -> PixelClassifier:
    return PixelClassifier(
        features,
        head["out_channels"],
        hidden_features=head["hidden_channels"],
        kernel_size=head["hidden_kernel"],
        bias=head["hidden_bias"],
        output_bias=head["classifier_bias"],
        activation=ACTIVATIONS[head["activation"]],
        dropout=head["dropout"],
        in_head=True,
        init=init,
    )


@cache
def evaluate(case: Case, function=lambda model, image: model(image)) -> Any:
    """What the network in evaluation mode says of the image `x`, or a function of both."""
    graphdef, params, statistics = parameters.split(load_model(case))
    run = jax.jit(lambda p, s, image: function(parameters.merge(graphdef, p, s), image))
    return run(params, statistics, case.image())


def forward(case: Case) -> dict[str, np.ndarray]:
    """The outputs for the image `x`, at its size where they are, and those of the parts that the case holds."""
    if "mid_layer1" in case.outputs:
        arrays = evaluate(case, _with_parts)
    elif "backbone_0" in case.outputs:
        arrays = evaluate(case, _with_backbone)
    else:
        arrays = output_arrays(evaluate(case))
    for output in case.network["outputs"]:
        if output.get("resized_to_input"):
            x, size = arrays[output["array"]], case.image().shape[1:3]
            resized = resize_bilinear(x, size, align_corners=case.network["align_corners"])
            arrays = arrays | {output["array"]: resized}
    return {name: channels_first(x) for name, x in arrays.items()}


def output_arrays(output) -> dict[str, jax.Array]:
    """A network's output under the goldens' names, channels last."""
    if isinstance(output, Logits):
        return _named_logits(output, aux="aux", main="out")
    if isinstance(output, SegFixOutput):
        return {"mask_map": output.boundary, "dir_map": output.direction}
    arrays = {"offset": output.offset, "confidence": output.confidence}
    for prefix, logits in (("s_i", output.initial), ("s_s", output.seed), ("s_f", output.fused)):
        main = prefix if logits.aux is None else f"{prefix}_out"  # the thesis has no auxiliary map
        arrays |= _named_logits(logits, aux=f"{prefix}_aux", main=main)
    return arrays


def _named_logits(logits: Logits, aux: str, main: str) -> dict[str, jax.Array]:
    return {main: logits.main} if logits.aux is None else {aux: logits.aux, main: logits.main}


def _with_backbone(model: Segmentor | SegFix, image: jax.Array) -> dict[str, jax.Array]:
    """The output, and what openseg's heads read: the branches of HRNet's last stage, a ResNet's last two layers."""
    stages = model.backbone(image)
    maps = stages[-2:] if isinstance(model.backbone, ResNet) else stages[-1]
    return output_arrays(model(image)) | {f"backbone_{number}": x for number, x in enumerate(maps)}


def _with_parts(model: OVeNet, image: jax.Array) -> dict[str, jax.Array]:
    """The output, and those of the named parts inside an OVeNet, `mid_*`."""
    stages = model.backbone(image)
    arrays = output_arrays(model(image)) | {"mid_layer1": stages[0][0]}
    for number, maps in enumerate(stages[1:], start=2):
        arrays |= {f"mid_stage{number}_{branch}": x for branch, x in enumerate(maps)}
    offset_stages = model.offset_trunk(stages[model.branch - 2])
    for number, maps in enumerate(offset_stages, start=model.branch):
        arrays |= {f"mid_stage{number}_2_{branch}": x for branch, x in enumerate(maps)}
    features = model.backbone.features(stages)
    pixels = model.head.pixels(features.main)
    regions = gather_regions(pixels, model.head.aux(features.aux))
    context = model.head.attention(pixels, regions)
    return arrays | {
        "mid_conv3x3_ocr": pixels,
        "mid_ocr_gather_head": regions[:, :, None],
        "mid_ocr_distri_head": model.head.fusion(jnp.concatenate([context, pixels], axis=-1)),
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
        side="long",
        sum="exp",
        parts_align_corners=False if spec["variant"] == "ade20k" else None,
    )
    graphdef, params, statistics = parameters.split(load_model(case))
    image = np.ascontiguousarray(case.io["image"][..., ::-1])  # BGR

    def scores(protocol: Protocol) -> dict[str, np.ndarray]:
        run = Inference(
            graphdef,
            protocol,
            align_corners=spec["align_corners"],
            normalisation=NORMALISATION,
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


def batch_norm(case: Case) -> dict[str, np.ndarray]:
    """BatchNorm with the scale as it is and as in-place ABN's, by running and batch statistics, and its activation."""
    plain = {f"backbone.bn1.{name}": case.io[name] for name in case.spec["inputs"] if name != "x"}
    states = {"plain": plain, "abs": fold_in_place_abn(plain)}
    arrays = {}
    for name in case.outputs:
        _, scale, mode, activation = name.split("_")
        state, norm = states[scale], BatchNorm(case.io["x"].shape[1], eps=case.spec["config"]["eps"])
        for ours, key in (("scale", "weight"), ("bias", "bias"), ("mean", "running_mean"), ("var", "running_var")):
            getattr(norm, ours).set_value(state[f"backbone.bn1.{key}"])
        norm.set_attributes(use_running_average=mode == "eval")
        y = norm(case.image())
        arrays[name] = channels_first(jax.nn.leaky_relu(y) if activation == "leaky" else y)
    return arrays
