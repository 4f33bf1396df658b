"""The control of OVeNet's offsets: the same trunk with a second plain head. python -m benchmarks.second_head MODULE ...

Runs a program of the project, such as `main` or `benchmarks.examine`, with the rest of the arguments; every OVeNet that
a config names is then this network. Leave its loss without the confidence's term, whose truth is that of seeds:
--config.loss.confidence_weight=0.
"""

import runpy
import sys
from functools import wraps
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx

from ovenet_jax.models import zoo
from ovenet_jax.models.contracts import Backbone, Head, Logits
from ovenet_jax.models.fcn import PixelClassifier
from ovenet_jax.models.layers import InitialValues, at_least_float32, relu
from ovenet_jax.models.ovenet import OVeNet, OVeNetOutput


class SecondHead(OVeNet):
    """An OVeNet whose offset head tells classes instead of offsets: fused = (1 - F) S_i + F S_2.

    S_2, the second head's own scores, is called `seed`; offsets are zero. Arrays have the names of an OVeNet's, and
    the trunk starts with the same values.
    """

    @wraps(OVeNet.__init__)  # whose parameters the zoo looks at
    def __init__(self, backbone: Backbone, head: Head, *, init: InitialValues, **options):
        super().__init__(backbone, head, init=init, **options)
        classes = head.classifier.kernel.shape[-1]
        self.offset_head.classifier = PixelClassifier(
            backbone.width,
            classes + 1,
            hidden_features=0,
            kernel_size=1,
            bias=True,
            output_bias=True,
            dropout=0.0,
            activation=relu,
            in_head=True,
            init=init,
        )

    def __call__(self, image: jax.Array, rngs: nnx.Rngs | None = None) -> OVeNetOutput:
        """As OVeNet's."""
        stages = self.backbone(image)
        initial = jax.tree.map(at_least_float32, self.head(self.backbone.features(stages), rngs))
        features = self.backbone.last(self.offset_trunk(stages[self.branch - 2]))
        scores = at_least_float32(self.offset_head.classifier(features))
        second, confidence = scores[..., :-1], jax.nn.sigmoid(scores[..., -1:])
        fused = (1 - confidence) * initial.main + confidence * second
        nowhere = jnp.zeros((*confidence.shape[:-1], 2))
        return OVeNetOutput(initial, Logits(None, second), Logits(None, fused), nowhere, confidence)


def main() -> None:
    if sys.argv[1:2] in ([], ["--help"]):
        print(__doc__)
        return
    module, *sys.argv = sys.argv[1:2] + sys.argv[1:]
    with mock.patch.object(zoo, "OVeNet", SecondHead):
        runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
