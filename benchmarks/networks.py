"""The published networks with an HRNet of any width, made without a config: wherever jax, flax and optax are."""

import argparse

from flax import nnx

from ovenet_jax.data import imagenet
from ovenet_jax.models.fcn import FCN, PixelClassifier
from ovenet_jax.models.hrnet import HRNet, Stage
from ovenet_jax.models.layers import InitialValues, relu
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.ocr import OCR
from ovenet_jax.models.ovenet import OVeNet, Segmentor

NORMALISATION = Normalisation(imagenet.MEAN, imagenet.STD, divisor=255.0, bgr=False)
NAMES = ("ovenet", "hrnet_ocr", "hrnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of create_network."""
    parser.add_argument("--network", choices=NAMES, default="ovenet", help="with plain head, OCR, or OCR and offsets")
    parser.add_argument("--width", type=int, default=18, help="of HRNet's first branch; published: 48")
    parser.add_argument("--classes", type=int, default=19, help="number of classes")
    parser.add_argument("--small", action="store_true", help="few layers, to try the benchmark out")


def create_network(arguments: argparse.Namespace) -> nnx.Module:
    """With initial values, in evaluation mode."""
    init = InitialValues(seed=0, he=True)
    modules, blocks, head_width = ((1, 1, 1), 1, 32) if arguments.small else ((1, 4, 3), 4, 512)
    widths = [arguments.width * 2**branch for branch in range(4)]
    stages = [
        Stage(n, (blocks,) * number, tuple(widths[:number])) for number, n in zip((2, 3, 4), modules, strict=True)
    ]
    backbone = HRNet(stages=stages, layer1=(blocks, 64), stem_width=64, align_corners=True, init=init)
    classifier = PixelClassifier(
        backbone.width,
        arguments.classes,
        hidden_features=0,
        kernel_size=1,
        bias=True,
        output_bias=True,
        dropout=0.0,
        activation=relu,
        in_head=arguments.network != "hrnet",
        init=init,
    )
    if arguments.network == "hrnet":
        network = Segmentor(backbone, FCN(classifier=classifier))
    else:
        head = OCR(
            backbone.width,
            arguments.classes,
            aux=classifier,
            mid_features=head_width,
            key_features=head_width // 2,
            dilations=(),
            bias=False,
            output_bias=True,
            activation=relu,
            dropout=0.05,
            init=init,
        )
        if arguments.network == "hrnet_ocr":
            network = Segmentor(backbone, head)
        else:
            network = OVeNet(
                backbone,
                head,
                branch=4,
                modules=(min(2, modules[-1]),),
                threshold=0.2,
                refinement=0,
                grid_align_corners=True,
                logits=True,
                default_init=True,
                init=init,
            )
    network.eval()
    return network
