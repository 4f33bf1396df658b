"""A baseline: backbone and context head, no offsets."""

from typing import NamedTuple

import jax
from flax import nnx

from ovenet_jax.models.hrnet import HRNet, fuse_resolutions


class Logits(NamedTuple):
    """Class scores [B, h, w, K] at the network's stride; `aux` is None where a head has no auxiliary output."""

    aux: jax.Array | None
    main: jax.Array

    @property
    def predictions(self) -> dict[str, jax.Array]:
        """Scores to evaluate, by name."""
        return {"main": self.main}


class Segmentor(nnx.Module):
    """HRNet and a head: image [B, H, W, 3] -> Logits at stride 4."""

    def __init__(self, backbone: HRNet, head: nnx.Module):
        self.backbone = backbone
        self.head = head

    @property
    def align_corners(self) -> bool:
        """Whether the network resizes its maps with aligned corners; its scores are to be resized alike."""
        return self.backbone.align_corners

    def __call__(self, image: jax.Array, rngs: nnx.Rngs | None = None) -> Logits:
        maps = self.backbone(image)[-1]
        features = fuse_resolutions(maps, align_corners=self.align_corners)
        return self.head(features, rngs)
