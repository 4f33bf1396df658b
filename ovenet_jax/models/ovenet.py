"""OVeNet: every pixel looks at its seed, the pixel at the end of its predicted offset. And its base, a segmentor.

Source: Alexandropoulos, Sakaridis and Van Gool, "OVeNet: Offset Vector Network for Semantic Segmentation",
WACV 2024.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ovenet_jax.models import contracts, fcn, hrnet, layers, sampling


class Segmentor(nnx.Module):
    """Backbone and head: image [B, H, W, C] -> float32 Logits at the backbone's stride (HRNet 4, dilated ResNet 8)."""

    def __init__(self, backbone: contracts.Backbone, head: contracts.Head):
        self.backbone = backbone
        self.head = head

    def __call__(self, image: jax.Array, rngs: nnx.Rngs | None = None) -> contracts.Logits:
        features = self.backbone.features(self.backbone(image))
        with jax.named_scope("head"):
            return jax.tree.map(layers.at_least_float32, self.head(features, rngs))


class OVeNetOutput(NamedTuple):
    """OVeNet's output for an image, all at the network's stride.

    `initial` is S_i, `seed` S_s (S_i read at the seeds), `fused` S_f = (1 - F) S_i + F S_s. `offset`
    [B, h, w, 2], x first, in normalised coordinates (2 is a whole side); `confidence` F [B, h, w, 1] in (0, 1).
    """

    initial: contracts.Logits
    seed: contracts.Logits
    fused: contracts.Logits
    offset: jax.Array
    confidence: jax.Array

    @property
    def predictions(self) -> dict[str, jax.Array]:
        """See Output.predictions."""
        return {"initial": self.initial.main, "seed": self.seed.main, "fused": self.fused.main}


class OffsetHead(nnx.Module):
    """Features [B, H, W, C] -> offset [B, H, W, 2] within +-`threshold` in x and y, confidence [B, H, W, 1]."""

    def __init__(self, in_features: int, threshold: float, *, in_head: bool, init: layers.InitialValues):
        options: dict[str, Any] = {"kernel_size": 1, "bias": True, "output_bias": True, "dropout": 0.0}
        options |= {"activation": layers.relu, "in_head": in_head, "init": init}
        self.classifier = fcn.PixelClassifier(in_features, 3, hidden_features=0, **options)
        self.threshold = threshold

    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        raw = layers.at_least_float32(self.classifier(features))
        return self.threshold * jnp.tanh(raw[..., :2]), jax.nn.sigmoid(raw[..., 2:])


class OVeNet(nnx.Module):
    """A base segmentor, an offset trunk that branches off before stage `branch`, and their fusion.

    Published with HRNet and OCR. HRNet's plain head makes it the network of the preceding thesis.
    `modules`: number of exchange modules (ResNet: blocks) for each stage (ResNet: layer) of the offset trunk.
    `blocks`, `widths`: of HRNet, for each stage its residual blocks and channels per branch; (): the backbone's.
    `refinement`: number of iterations of offset += offset at the seed (iterative refinement).
    `grid_align_corners` True is the method; False reproduces runs of the published code on PyTorch >= 1.3.
    `logits` False: S_i's main scores are turned into probabilities before sampling and fusion.
    `default_init` False: the offset head's kernels are initialised like the backbone's, as in the thesis.
    """

    def __init__(
        self,
        backbone: contracts.Backbone,
        head: contracts.Head,
        *,
        branch: int,
        modules: tuple[int, ...],
        threshold: float,
        refinement: int,
        grid_align_corners: bool,
        logits: bool,
        default_init: bool,
        init: layers.InitialValues,
        blocks: hrnet.Branches = (),
        widths: hrnet.Branches = (),
    ):
        self.backbone = backbone
        self.head = head
        own = {key: value for key, value in (("blocks", blocks), ("widths", widths)) if value}
        self.offset_trunk = backbone.offset_trunk(branch, modules, init=init, **own)
        features = sum(widths[-1]) if widths else backbone.width
        self.offset_head = OffsetHead(features, threshold, in_head=default_init, init=init)
        self.branch = branch
        self.refinement = refinement
        self.grid_align_corners = grid_align_corners
        self.logits = logits
        self.lay_out = layers.keep_layout

    def __call__(self, image: jax.Array, rngs: nnx.Rngs | None = None) -> OVeNetOutput:
        """Image [B, H, W, C] -> OVeNetOutput at the backbone's stride; `rngs` (stream "dropout") in training only."""
        stages = self.backbone(image)
        with jax.named_scope("head"):
            initial = jax.tree.map(layers.at_least_float32, self.head(self.backbone.features(stages), rngs))
        if not self.logits:
            initial = initial._replace(main=jax.nn.softmax(initial.main, axis=-1))

        with jax.named_scope("offset_trunk"):
            offset_stages = self.offset_trunk(stages[self.branch - 2])
        with jax.named_scope("offset_head"):
            offset, confidence = self.offset_head(self.backbone.last(offset_stages))
        for _ in range(self.refinement):
            offset = offset + self._sample(offset, sampling.seed_positions(offset), padding="zeros")

        positions = sampling.seed_positions(offset)
        seed = jax.tree.map(lambda x: self._sample(x, positions), initial)
        with jax.named_scope("fuse"):
            fused = jax.tree.map(lambda i, s: (1 - confidence) * i + confidence * s, initial, seed)
        return OVeNetOutput(initial, seed, fused, offset, confidence)

    def _sample(self, values: jax.Array, positions: jax.Array, padding: str = "border") -> jax.Array:
        values = self.lay_out(values, reach=values.shape[1])
        return sampling.sample(values, positions, align_corners=self.grid_align_corners, padding=padding)
