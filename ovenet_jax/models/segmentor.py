"""A baseline: backbone and context head, no offsets."""

import jax
from flax import nnx

from ovenet_jax.models.contracts import Backbone, Head, Logits
from ovenet_jax.models.layers import at_least_float32


class Segmentor(nnx.Module):
    """Backbone and head: image [B, H, W, 3] -> float32 Logits at the backbone's stride (HRNet 4, dilated ResNet 8)."""

    def __init__(self, backbone: Backbone, head: Head):
        self.backbone = backbone
        self.head = head

    def __call__(self, image: jax.Array, rngs: nnx.Rngs | None = None) -> Logits:
        features = self.backbone.features(self.backbone(image))
        with jax.named_scope("head"):
            return jax.tree.map(at_least_float32, self.head(features, rngs))
