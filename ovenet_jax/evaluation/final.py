"""Evaluates a checkpoint and writes its report, after training or with --mode=evaluate."""

from collections.abc import Iterable
from pathlib import Path
from threading import Event
from typing import NamedTuple

import jax

from ovenet_jax import files, tables
from ovenet_jax.devices import parallel
from ovenet_jax.evaluation import report, results, run_page
from ovenet_jax.evaluation.curves import Curves
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.evaluation.inspection import Inspected, inspect, picture
from ovenet_jax.evaluation.suspects import Suspects
from ovenet_jax.weights.network import Network


class Evaluated(NamedTuple):
    """A checkpoint of `folder`, evaluated. what: split, data, step and settings; target: the folder of the report."""

    folder: Path
    evaluator: Evaluator
    network: Network
    what: dict
    target: Path
    evaluation: results.Evaluation


def evaluate_checkpoint(
    evaluator: Evaluator, network: Network, folder: Path, interrupted: Event | None = None, anew: bool = True
) -> bool:
    """Evaluates a checkpoint as `evaluated` does and writes the report. Returns False if interrupted."""
    if (result := evaluated(evaluator, network, folder, interrupted, anew)) is None:
        return False
    if jax.process_index() == 0:
        *_, what, target, evaluation = result
        config, classes = evaluator.config, evaluator.task.classes
        worst = [image.number for image in evaluation.worst(config.eval.worst)]
        groups = {"panels": evaluator.shown, "worst": worst}
        inspected = inspected_of(result, sum(groups.values(), []))
        pictures = {i: picture(one, classes) for i, one in inspected.items()}
        panels = {kind: {inspected[i].name: pictures[i] for i in group} for kind, group in groups.items()}
        with files.writing(target, "--workdir"):
            report.write(evaluation, evaluator.task, what, panels, target)
            page = run_page.page(evaluation, list(inspected.values()), evaluator.task, what, config, folder)
            files.write(target / "report.html", page)
    return True


def inspected_of(result: Evaluated, numbers: Iterable[int]) -> dict[int, Inspected]:
    """Runs the network on the images of the split with these numbers, on this process only."""
    found = inspect(result.evaluator, result.network.params, result.network.statistics, numbers)
    return {number: one._replace(score=result.evaluation.images[number].miou) for number, one in found.items()}


def evaluated(
    evaluator: Evaluator, network: Network, folder: Path, interrupted: Event | None = None, anew: bool = True
) -> Evaluated | None:
    """Evaluates a checkpoint of `folder`; None if interrupted. anew: False reuses a report with the same `what`."""
    config = evaluator.config
    split, protocol = config.data.eval_split, evaluator.inference.protocol
    what = {"split": split, "step": network.step, "eval": config.eval.to_dict(), "data": evaluator.source.identity}
    with files.writing(folder, "--workdir"):
        target = report.new_folder(folder / "evaluation", split + protocol.suffix, what)
    evaluation = None if anew else report.read(target)
    if not all(parallel.gather(evaluation is not None)):
        images = tables.number_of(len(evaluator.source), "image")
        parallel.say(f"Evaluating step {network.step} of {folder} on {split}: {images}, {protocol}.")
        observers = Curves(evaluator), Suspects(evaluator)
        evaluation = evaluator.run(network.params, network.statistics, interrupted, observers)
    if evaluation is None:
        return None
    evaluation = evaluation._replace(made=evaluation.made or report.made_now())  # one date for all files
    return Evaluated(folder, evaluator, network, what, target, evaluation)
