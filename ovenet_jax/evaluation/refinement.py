"""Measures what refinement by another network's offsets gains on a split; segfix/refine.py refines files."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from ovenet_jax import errors, files, tables
from ovenet_jax.devices import parallel
from ovenet_jax.evaluation import predictor, report, results
from ovenet_jax.evaluation.evaluator import Batch, Evaluator
from ovenet_jax.run import workdir
from ovenet_jax.segfix.scores import COLUMNS, Scores, means, scores_of, summed, table
from ovenet_jax.segfix.shift import Shift, refined_numbers, shift_of
from ovenet_jax.supervision.task import task_of
from ovenet_jax.weights.network import Network


def evaluate_refined(evaluator: Evaluator, network: Network, folder: Path) -> None:
    """Scores the class maps of a checkpoint of `folder` before and after refinement by a second network, whose workdir
    is config.eval.segfix (SegFix or OVeNet). Prints the scores of segfix/scores.py and writes them as report.json.

    Raises UserError: the workdir of the second network holds none, or one without offsets.
    """
    config, refinement = evaluator.config, Refinement(evaluator.config)
    split, protocol, classes = config.data.eval_split, evaluator.inference.protocol, evaluator.task.classes
    what = {"split": split, "step": network.step, "eval": config.eval.to_dict(), "data": evaluator.source.identity}
    what["refiner"] = refinement.name
    what_with = f"{folder}, step {network.step}, on {split} with {refinement.name}"
    images = tables.number_of(len(evaluator.source), "image")
    parallel.say(f"Refining predictions of {what_with}: {images}, {protocol}.")
    evaluation = evaluator.run(network.params, network.statistics, observers=[refinement])
    assert evaluation is not None  # nothing interrupts it
    if jax.process_index() == 0:
        scores = Scores._make(evaluation.sums[name] for name in Scores._fields)
        print(table(scores, classes.names))
        content = {"what": what, "images": len(evaluation.images), "made": report.made_now()}
        for title, mean in means(scores).items():
            columns = {c: {"before": b, "after": a} for c, (b, a) in zip(COLUMNS, mean.tolist(), strict=True)}
            content[title] = columns
        with files.writing(folder, "--workdir"):
            target = report.new_folder(folder / "evaluation", f"{split}{protocol.suffix}_refined", what)
            files.write_json(target / "report.json", content)
        print(f"Written: {target}")


class Refinement:
    """An `Observer` of the scores of segfix/scores.py before and after refinement by a second network, whose workdir is
    config.eval.segfix and which runs with its own config. SegFix's offsets are scaled as published; OVeNet's seeds are
    used where its confidence is above one half."""

    def __init__(self, config: ConfigDict):
        folder = Path(config.eval.segfix)
        its = workdir.read_config(folder)
        if its is None or not task_of(its).gives_offsets:
            wanted = "the workdir of a SegFix or an OVeNet"
            raise errors.UserError(f"config.eval.segfix is {config.eval.segfix!r}; it must be {wanted}.")
        its.mesh, its.eval.images_per_device = config.mesh, config.eval.images_per_device
        if its.data.name == config.data.name and "root" in config.data:
            its.data.root = config.data.root  # the data may have moved since the refiner was trained
        self._predictor = predictor.restored(its, folder, its.eval.checkpoint)
        self.name, self._num_classes = f"step {self._predictor.step} of {folder}", config.model.num_classes

    def measure(self, batch: Batch) -> tuple[jax.Array, list[Shift]]:
        """The label maps of a batch, and per sample the function that refines its label map."""
        found: dict[int, Shift] = {}
        for sample, prediction in chain.from_iterable(self._predictor.over(batch.samples)):
            assert (offsets := prediction.offsets)  # a refiner has them
            found[sample["index"]] = shift_of(offsets)
        return batch.class_maps[batch.segmentation.answer], [found[sample["index"]] for sample in batch.samples]

    def found(self, samples: list[dict], measured: tuple[np.ndarray, list[Shift]]) -> results.Evaluation:
        def score(sample: dict, before: np.ndarray, shift: Shift) -> Scores:
            before = before[tuple(map(slice, sample["label"].shape))]
            return scores_of(sample["label"], before, refined_numbers(before, shift), self._num_classes)

        with ThreadPoolExecutor() as threads:
            total = summed(threads.map(score, samples, *measured))
        return results.Evaluation(sums=total._asdict())
