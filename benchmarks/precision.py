"""What the type of the network changes in its answers: python -m benchmarks.precision WORKDIR [--split=val]

A trained network is evaluated in float32, as GPUs round float32 by default (TF32: 10 bits of the factors of
convolutions and products), and in bfloat16. On any device, since the factors are rounded before they are multiplied.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.table import Table, parser
from ovenet_jax import errors
from ovenet_jax.devices import environment
from ovenet_jax.evaluation.evaluator import Batch, Evaluator
from ovenet_jax.evaluation.results import Evaluation
from ovenet_jax.run import identity, workdir
from ovenet_jax.weights.network import restore_network


class Answers:
    """An `Observer` that keeps the class maps of the final prediction, uint8 [H, W], and their labels, by image."""

    def __init__(self):
        self.maps: dict[int, np.ndarray] = {}
        self.labels: dict[int, np.ndarray] = {}

    def measure(self, batch: Batch, /) -> jax.Array:
        return batch.class_maps[batch.segmentation.answer]

    def found(self, samples: list[dict], measured: np.ndarray, /) -> Evaluation:
        for sample, answer in zip(samples, measured, strict=False):
            label = sample["label"]
            self.labels[int(sample["index"])] = label
            self.maps[int(sample["index"])] = answer[: label.shape[0], : label.shape[1]]
        return Evaluation()


def main() -> None:
    arguments = parser("precision", "Answers of a trained network in float32, TF32 and bfloat16.")
    arguments.add_argument("workdir", type=Path, help="of a run")
    arguments.add_argument("--split", default="val", help="of the run's data set")
    arguments = arguments.parse_args()
    environment.convolve_by_eigen()
    config = workdir.config_of(arguments.workdir)
    config.data.eval_split = arguments.split
    network = restore_network(config.model, arguments.workdir, "latest")
    columns = {"precision": "12s", "mIoU [%]": "10.3f", "other pixels [%]": "18.4f", "right before [%]": "18.1f"}
    table = Table(columns | {"right now [%]": "15.1f"}, arguments.json, config=config.to_dict())
    before = Answers()
    for title, around in {"float32": nullcontext, "TF32": tf32, "bfloat16": nullcontext}.items():
        config.eval.precision = "bfloat16" if title == "bfloat16" else "float32"
        evaluator = Evaluator(config, network.graphdef, identity.classes_of(arguments.workdir), answer_only=True)
        now = before if title == "float32" else Answers()
        with around():
            evaluation = evaluator.run(network.params, network.statistics, observers=[now])
        other = {i: now.maps[i] != before.maps[i] for i in before.maps}
        share = np.mean(np.concatenate([x.ravel() for x in other.values()]))
        right = [share_right(answers, before.labels, other) for answers in (before, now)] if share else [None, None]
        table.row(title, 100 * evaluation.miou, 100 * share, *right)


def share_right(answers: Answers, labels: dict[int, np.ndarray], among: dict[int, np.ndarray]) -> float:
    """In percent of these pixels."""
    return 100 * np.mean(np.concatenate([(answers.maps[i] == labels[i])[pixels] for i, pixels in among.items()]))


@contextmanager
def tf32() -> Iterator[None]:
    """Convolutions and products of default precision round their float32 factors as GPUs do."""

    def rounding(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def rounded(*factors: Any, **options: Any) -> jax.Array:
            if options.get("precision") is None:
                factors = tuple(x if isinstance(x, str) else jax.lax.reduce_precision(x, 8, 10) for x in factors)
            return function(*factors, **options)

        return rounded

    with (
        mock.patch.object(jax.lax, "conv_general_dilated", rounding(jax.lax.conv_general_dilated)),
        mock.patch.object(jnp, "einsum", rounding(jnp.einsum)),
    ):
        yield


if __name__ == "__main__":
    sys.exit(errors.run(main))
