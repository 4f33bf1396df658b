"""How near published trainings come to the least times of `benchmarks.gpu_program`: in its environment,

    .venv-gpu-program/bin/python -m benchmarks.calibration

compiles the like of these trainings for the H200 that is described, and reads the programs with the rates of the cards
that they ran on. "efficiency" is the least time of an image over the published one: what to divide a least time by to
predict. The like: the same network, batch and precision (bfloat16 for float16), one GPU, without what the host does.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks import hlo
from benchmarks.gpu_program import UNTUNED, added_up, described_mesh, seconds
from benchmarks.gpus import GPUS
from benchmarks.table import Table, parser
from ovenet_jax.devices import parallel
from ovenet_jax.models import parameters
from ovenet_jax.models.hrnet import Bottleneck, HRNet, Stage
from ovenet_jax.models.layers import ConvNormAct, InitialValues
from ovenet_jax.models.resnet import Layer, ResNet

SIZE, CLASSES = 224, 1000


class Published(NamedTuple):
    """`rate`: images/s of one GPU."""

    name: str
    network: str
    gpu: str
    batch: int
    rate: float


TRAININGS = (
    # flax' ImageNet example, README.md, v100_x8_mixed_precision: 62,500 steps of 2,048 images in 4.3 h, in an earlier
    # version 5.0 h, evaluations included
    Published("flax, 8 V100, 4.3 h", "resnet50", "v100", 256, 2048 * 62_500 / (4.3 * 3600) / 8),
    Published("flax, 8 V100, 5.0 h", "resnet50", "v100", 256, 2048 * 62_500 / (5.0 * 3600) / 8),
    # timm, results/benchmark-train-amp-nhwc-...-rtx3090.csv: PyTorch, automatic mixed precision, channels last; a
    # batch that fits
    Published("timm, RTX 3090", "hrnet_w48", "rtx3090", 128, 279.0),
)


class ResNet50(nnx.Module):
    """Images [B, 224, 224, 3] -> logits [B, 1000]."""

    def __init__(self, init: InitialValues):
        layers = [Layer(64, 1, (1,) * 3), Layer(128, 2, (1,) * 4), Layer(256, 2, (1,) * 6), Layer(512, 2, (1,) * 3)]
        self.backbone = ResNet(layers, stem=(64,), init=init)
        self.classifier = nnx.Linear(2048, CLASSES, rngs=nnx.Rngs(0))

    def __call__(self, image: jax.Array) -> jax.Array:
        return self.classifier(self.backbone(image)[-1].mean((1, 2)))


class HRNetW48(nnx.Module):
    """The same, with HRNet's head for classes of images: branches of 128 to 1,024 channels, from the finest down."""

    def __init__(self, init: InitialValues):
        widths = (48, 96, 192, 384)
        stages = [Stage(n, (4,) * number, widths[:number]) for number, n in zip((2, 3, 4), (1, 4, 3), strict=True)]
        self.backbone = HRNet(stages=stages, layer1=(4, 64), stem_width=64, align_corners=True, init=init)
        wide = [128 * 2**branch for branch in range(4)]
        self.branches = nnx.List(Bottleneck(a, b // 4, init=init) for a, b in zip(widths, wide, strict=True))
        self.down = nnx.List(ConvNormAct(width, 2 * width, 3, stride=2, init=init) for width in wide[:3])
        self.last = ConvNormAct(wide[3], 2048, 1, init=init)
        self.classifier = nnx.Linear(2048, CLASSES, rngs=nnx.Rngs(0))

    def __call__(self, image: jax.Array) -> jax.Array:
        first, *others = (branch(x) for branch, x in zip(self.branches, self.backbone(image)[-1], strict=True))
        for down, x in zip(self.down, others, strict=True):
            first = x + down(first)
        return self.classifier(self.last(first).mean((1, 2)))


NETWORKS: dict[str, Callable[[InitialValues], nnx.Module]] = {"resnet50": ResNet50, "hrnet_w48": HRNetW48}


def main() -> None:
    arguments = parser("calibration", "How near published trainings come to their least times.").parse_args()
    columns = {
        "training": "22s",
        "kernels": "9d",
        "GB": "9.1f",
        "TFLOP": "9.2f",
        "least [ms an image]": "21.3f",
        "published": "11.3f",
        "efficiency": "12.1%",
    }
    table = Table(columns, arguments.json, jax=jax.__version__)
    programs: dict[str, list[hlo.Kernel]] = {}
    for training in TRAININGS:
        if training.network not in programs:
            programs[training.network] = hlo.kernels(compile_step(training.network, training.batch).as_text())
        total = added_up(programs[training.network], partial(seconds, gpu=GPUS[training.gpu]))
        least, published = 1e3 * total.floor / training.batch, 1e3 / training.rate
        table.row(
            training.name, total.kernels, total.bytes / 1e9, total.flop / 1e12, least, published, least / published
        )


def compile_step(network: str, batch: int) -> jax.stages.Compiled:
    """SGD with momentum on the cross entropy of a batch."""
    mesh = described_mesh(GPUS["h200"], 1, (0, 1))
    graphdef, params, statistics = parameters.split(NETWORKS[network](InitialValues(0, he=True)))
    optimizer = optax.sgd(0.1, momentum=0.9)

    def train_step(params, statistics, state, image, label):
        def loss(params):
            model = parameters.merge(graphdef, params, statistics)
            model.train()
            logits = model(image).astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return losses.mean(), parameters.statistics_of(model)

        gradients, after = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), after, state

    image = jnp.zeros((batch, SIZE, SIZE, 3), jnp.bfloat16)
    arguments = params, statistics, optimizer.init(params), image, jnp.zeros(batch, jnp.int32)
    traced = jax.jit(train_step, donate_argnums=(0, 1, 2)).trace(*parallel.replicated_shapes(mesh, arguments))
    return traced.lower(lowering_platforms=("cuda",)).compile(UNTUNED)


if __name__ == "__main__":
    main()
