"""How well wrong labels are found: python -m benchmarks.label_errors WORKDIR [--share=0.05]

Gives a share of the regions of the evaluation split another label on purpose, has the network of a run judge all
labels, and prints the average precision with which the changed regions, and the images that hold them, come first: by
the scores of evaluation/suspects.py, and by the plain "lowest mIoU".
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.table import Table, parser
from ovenet_jax import errors
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.evaluation import suspects
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.run import workdir
from ovenet_jax.supervision.task import task_of
from ovenet_jax.weights.network import restore_network

SMALLEST = 16 * suspects.SMALLEST  # pixels of an image: what is `SMALLEST` to a network of stride 4


@dataclass(frozen=True, eq=False)
class Mislabelled:
    """A source of which a share of the regions has another label, each drawn by itself, the same at all times."""

    source: pipeline.Source
    share: float

    @property
    def classes(self):
        return self.source.classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict:
        sample = self.source[index]
        return sample | {"label": self.changed(index)[0]}

    def changed(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The label, uint8 [H, W], and where it is another than it was, bool [H, W]."""
        before = self.source[index]["label"]
        label, rng = before.copy(), np.random.default_rng(index)
        for given in np.setdiff1d(np.unique(before), IGNORE):
            count, numbers, stats, _ = cv2.connectedComponentsWithStats(
                (before == given).astype(np.uint8), connectivity=4
            )
            for number in range(1, count):
                if stats[number, cv2.CC_STAT_AREA] >= SMALLEST and rng.random() < self.share:
                    label[numbers == number] = rng.choice(np.setdiff1d(range(len(self.classes.names)), given))
        return label, label != before


def average_precision(scores: Sequence[float], wrong: Sequence[bool]) -> float:
    """Of a ranking by rising score: the mean over all that are `wrong` of the share of wrong ones up to there. Raises
    UserError: none is."""
    if not any(wrong):
        raise errors.UserError(f"Of {len(wrong)} regions none has another label; raise --share, or name another run.")
    hits = np.array(wrong)[np.argsort(scores, kind="stable")]
    return float((np.cumsum(hits) / (1 + np.arange(len(hits))))[hits].mean())


def main() -> None:
    arguments = parse()
    config = workdir.config_of(arguments.workdir)
    task_of(config).prepare()
    network = restore_network(config.model, arguments.workdir, config.eval.checkpoint)
    evaluator = Evaluator(config, network.graphdef)
    evaluator.source = source = Mislabelled(evaluator.source, arguments.share)
    suspects.KEPT, suspects.DOUBTED = 10**9, 2  # all regions
    evaluation = evaluator.run(network.params, network.statistics, observers=[suspects.Suspects(evaluator)])
    mious = {image.number: image.miou for image in evaluation.images}
    changed = {one.number: source.changed(one.number)[1] for one in evaluation.suspects}
    images = [(one.score, mious[one.number], bool(changed[one.number].any())) for one in evaluation.suspects]
    regions = [
        (region.score, mious[one.number], bool(changed[one.number][region.y, region.x]))
        for one in evaluation.suspects
        for region in one.regions
    ]
    columns = {"of": "10s", "count": "8d", "wrong": "8d", "AP of the score": "18.3f", "AP of mIoU": "13.3f"}
    table = Table(columns, arguments.json, config=config.to_dict(), share=arguments.share)
    for name, ranked in (("regions", regions), ("images", images)):
        scores, lowest, wrong = ([one[i] for one in ranked] for i in range(3))
        precisions = (average_precision(values, wrong) for values in (scores, lowest))
        table.row(name, len(wrong), sum(wrong), *precisions)


def parse() -> argparse.Namespace:
    arguments = parser("label_errors", "How well a trained network finds labels that were changed on purpose.")
    arguments.add_argument("workdir", type=Path, help="of a run or an import")
    arguments.add_argument("--share", type=float, default=0.05, help="of the regions")
    return arguments.parse_args()


if __name__ == "__main__":
    sys.exit(errors.run(main))
