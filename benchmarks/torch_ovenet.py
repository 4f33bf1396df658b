"""A plain PyTorch rendering of the same networks and their training step, to compare times with.

`python -m benchmarks.train_step` runs it in processes of its own. Channels last, autocast for bfloat16, torch.compile
with --compile, and the GPU if there is one. It prints one line of JSON: seconds of a step and of compilation, and on a
GPU the peak memory. Of what our step measures besides the loss, like accuracies, it computes nothing.
"""

import argparse
import json
import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy, grid_sample, interpolate

from benchmarks import networks
from benchmarks.timing import median_seconds
from benchmarks.train_step import add_arguments
from ovenet_jax.data import imagenet


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, act: bool = True, bias: bool = False):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *[nn.ReLU(inplace=True)] * act)


def resize(x: torch.Tensor, size: torch.Size, align_corners: bool = True) -> torch.Tensor:
    return interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def concatenate(maps: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([resize(x, maps[0].shape[2:]) for x in maps], 1)


class Block(nn.Module):
    def __init__(self, layers: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.layers, self.shortcut = layers, shortcut

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.layers(x))


def basic_block(width: int) -> Block:
    return Block(nn.Sequential(conv_norm(width, width, 3), conv_norm(width, width, 3, act=False)), nn.Identity())


def bottleneck(inputs: int, width: int) -> Block:
    wide = 4 * width
    shortcut = nn.Identity() if inputs == wide else conv_norm(inputs, wide, 1, act=False)
    layers = conv_norm(inputs, width, 1), conv_norm(width, width, 3), conv_norm(width, wide, 1, act=False)
    return Block(nn.Sequential(*layers), shortcut)


class ExchangeModule(nn.Module):
    def __init__(self, blocks: int, widths: list[int]):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(basic_block(w) for _ in range(blocks))) for w in widths)
        self.fuse = nn.ModuleList(
            nn.ModuleList(self.bring(widths, i, j) for j in range(len(widths))) for i in range(len(widths))
        )

    @staticmethod
    def bring(widths: list[int], i: int, j: int) -> nn.Module:
        if j == i:
            return nn.Identity()
        if j > i:
            return conv_norm(widths[j], widths[i], 1, act=False)
        steps = [conv_norm(widths[j], widths[j], 3, 2) for _ in range(i - j - 1)]
        return nn.Sequential(*steps, conv_norm(widths[j], widths[i], 3, 2, act=False))

    def forward(self, maps):
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [
            torch.relu(sum(resize(layer(x), maps[i].shape[2:]) if j > i else layer(x)
                           for j, (layer, x) in enumerate(zip(layers, maps, strict=True))))
            for i, layers in enumerate(self.fuse)
        ]  # fmt: skip


class Stage(nn.Module):
    """Transition and exchange modules."""

    def __init__(self, before: list[int], widths: list[int], modules: int, blocks: int):
        super().__init__()
        kept = [nn.Identity() if a == b else conv_norm(a, b, 3) for a, b in zip(before, widths, strict=False)]
        self.transition = nn.ModuleList([*kept, conv_norm(before[-1], widths[-1], 3, 2)])
        self.exchange = nn.Sequential(*(ExchangeModule(blocks, widths) for _ in range(modules)))

    def forward(self, maps):
        maps = [*maps, maps[-1]]
        return self.exchange([layer(x) for layer, x in zip(self.transition, maps, strict=True)])


def classifier(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(inputs, inputs, 1, bias=True), nn.Conv2d(inputs, outputs, 1))


class PlainHead(nn.Module):
    def __init__(self, inputs: int, classes: int):
        super().__init__()
        self.main = classifier(inputs, classes)

    def forward(self, x):
        return [self.main(x)]


class OCR(nn.Module):
    def __init__(self, inputs: int, classes: int, mid: int):
        super().__init__()
        key = mid // 2
        self.aux, self.pixels = classifier(inputs, classes), conv_norm(inputs, mid, 3, bias=True)
        self.query = nn.Sequential(conv_norm(mid, key, 1), conv_norm(key, key, 1))
        self.key = nn.Sequential(conv_norm(mid, key, 1), conv_norm(key, key, 1))
        self.value, self.back, self.fusion = (
            conv_norm(mid, key, 1),
            conv_norm(key, mid, 1),
            conv_norm(2 * mid, mid, 1),
        )
        self.main = nn.Sequential(nn.Dropout2d(0.05), nn.Conv2d(mid, classes, 1))

    def forward(self, x):
        aux, pixels = self.aux(x), self.pixels(x)
        regions = aux.flatten(2).softmax(2) @ pixels.flatten(2).mT  # [B, K, mid]
        regions = regions.mT.unsqueeze(3)
        query, key, value = (f(y).flatten(2) for f, y in
                             ((self.query, pixels), (self.key, regions), (self.value, regions)))  # fmt: skip
        weights = (query.mT @ key * key.shape[1] ** -0.5).softmax(2)  # [B, H W, K]
        context = self.back((value @ weights.mT).unflatten(2, pixels.shape[2:]))
        return [aux, self.main(self.fusion(torch.cat([context, pixels], 1)))]


class Network(nn.Module):
    """HRNet with a head; for OVeNet also a second stage 4, offsets, confidence and fusion."""

    def __init__(self, arguments: argparse.Namespace):
        super().__init__()
        modules, blocks, mid = ((1, 1, 1), 1, 32) if arguments.small else ((1, 4, 3), 4, 512)
        widths = [arguments.width * 2**branch for branch in range(4)]
        layer1 = (bottleneck(64 if i == 0 else 256, 64) for i in range(blocks))
        self.stem = nn.Sequential(conv_norm(3, 64, 3, 2), conv_norm(64, 64, 3, 2), *layer1)
        self.stage2 = Stage([256], widths[:2], modules[0], blocks)
        self.stage3 = Stage(widths[:2], widths[:3], modules[1], blocks)
        self.stage4 = Stage(widths[:3], widths, modules[2], blocks)
        plain = arguments.network == "hrnet"
        self.head = PlainHead(sum(widths), arguments.classes) if plain else OCR(sum(widths), arguments.classes, mid)
        self.offset_stage = None
        if arguments.network == "ovenet":
            self.offset_stage = Stage(widths[:3], widths, min(2, modules[2]), blocks)
            self.offset_head = classifier(sum(widths), 3)

    def forward(self, image):
        """-> logits (initial, seed, fused; or initial alone), each (aux, main) or (main,), and offset, confidence."""
        maps = self.stage3(self.stage2([self.stem(image)]))
        initial = [x.float() for x in self.head(concatenate(self.stage4(maps)))]
        if self.offset_stage is None:
            return [initial], None, None
        raw = self.offset_head(concatenate(self.offset_stage(maps))).float()
        offset, confidence = 0.2 * raw[:, :2].tanh(), raw[:, 2:].sigmoid()
        positions = (grid(offset) + offset).clamp(-1, 1).permute(0, 2, 3, 1)
        seed = [grid_sample(x, positions, padding_mode="border", align_corners=True) for x in initial]
        fused = [(1 - confidence) * i + confidence * s for i, s in zip(initial, seed, strict=True)]
        return [initial, seed, fused], offset, confidence


def grid(like: torch.Tensor) -> torch.Tensor:
    """[2, H, W]: own positions (x, y)."""
    y, x = (torch.linspace(-1, 1, n, device=like.device) for n in like.shape[2:])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def loss_of(output, label: torch.Tensor) -> torch.Tensor:
    logits, offset, confidence = output
    total = 0.0
    for weight, maps in zip((0.5, 0.5, 1.0) if offset is not None else (1.0,), logits, strict=True):
        losses = [cross_entropy(resize(x, label.shape[1:]), label, ignore_index=255) for x in maps]
        total += weight * (losses[-1] + (0.4 * losses[0] if len(losses) > 1 else 0.0))
    if offset is None:
        return total
    offset, confidence = (resize(x, label.shape[1:], align_corners=False) for x in (offset, confidence))
    positions = (grid(offset) + offset).permute(0, 2, 3, 1)
    own = label.masked_fill(label == 255, 0).unsqueeze(1)
    nearest = {"mode": "nearest", "padding_mode": "border", "align_corners": True}
    same = grid_sample(own.float(), positions.detach(), **nearest) == own
    return total - 2 * torch.log(torch.where(same, confidence, 1 - confidence) + 1e-7).mean()


def create_step(arguments: argparse.Namespace, network: nn.Module, device: str):
    """One training step on random images, as a function without arguments."""
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (imagenet.MEAN, imagenet.STD))
    size = (arguments.batch, *arguments.crop)
    image = torch.randint(0, 256, (arguments.batch, 3, *arguments.crop), dtype=torch.uint8, device=device)
    label = torch.randint(0, arguments.classes, size, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    precision = torch.autocast(device, torch.bfloat16, enabled=arguments.precision == "bfloat16")

    def forward(image, label):
        with precision:
            output = network(((image / 255 - mean) / std).contiguous(memory_format=torch.channels_last))
        return loss_of(output, label)

    if arguments.compile:
        forward = torch.compile(forward)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward(image, label).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torch_ovenet", description="Time of a training step in PyTorch."
    )
    networks.add_arguments(parser)
    add_arguments(parser)
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does, and as cuDNN does by itself
    network = Network(arguments).to(device, memory_format=torch.channels_last).train()
    step = create_step(arguments, network, device)
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    seconds = median_seconds(step, arguments.repeats)
    row = {
        "seconds": seconds,
        "compile_seconds": max(first - seconds, 0) if arguments.compile else None,
        "gigabytes": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
