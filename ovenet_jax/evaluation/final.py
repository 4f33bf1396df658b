"""A checkpoint evaluated, and reported on: at the end of a training, and whenever it is asked for."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Event
from typing import NamedTuple

import jax

from ovenet_jax import files
from ovenet_jax.devices import parallel
from ovenet_jax.evaluation import report, run_page
from ovenet_jax.evaluation.curves import Curves
from ovenet_jax.evaluation.evaluator import Evaluator, Observer
from ovenet_jax.evaluation.inspection import Inspected, Shown, inspect, picture
from ovenet_jax.evaluation.results import Evaluation
from ovenet_jax.evaluation.suspects import Suspects
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.run.network import restore_network


class Evaluated(NamedTuple):
    """A checkpoint evaluated: by whom, its arrays, what of it (split, step and settings), the report's folder, and the
    result."""

    evaluator: Evaluator
    arrays: tuple[Arrays, Arrays]
    what: dict
    target: Path
    evaluation: Evaluation


def evaluate_checkpoint(
    evaluator: Evaluator, folder: Path, interrupted: Event | None = None, anew: bool = True
) -> bool:
    """Evaluates as `evaluated`, and reports on it, unless interrupted. Returns whether it came to its end."""
    shown = Shown(evaluator)
    result = evaluated(evaluator, folder, interrupted, anew, (shown,))
    if result is None:
        return False
    if jax.process_index() == 0:
        _, _, what, target, evaluation = result
        config, classes = evaluator.config, evaluator.task.classes
        worst = evaluation.worst(config.eval.worst)
        groups = {"panels": evaluator.shown, "worst": [image.number for image in worst]}
        missing = set(sum(groups.values(), [])) - shown.kept.keys()
        inspected = shown.kept | inspected_of(result, missing)
        pictures = {i: picture(one, classes) for i, one in inspected.items()}
        panels = {kind: {inspected[i].name: pictures[i] for i in group} for kind, group in groups.items()}
        with files.writing(target, "--workdir"):
            report.write(evaluation, worst, evaluator.task, what, panels, target)
            run_page.write(evaluation, list(inspected.values()), evaluator.task, what, config, folder, target)
    return True


def inspected_of(result: Evaluated, indices: Iterable[int]) -> dict[int, Inspected]:
    """Images of its split, with their scores; on this process alone."""
    scores = {image.number: image.miou for image in result.evaluation.images}
    return inspect(result.evaluator, *result.arrays, {index: scores[index] for index in indices})


def evaluated(
    evaluator: Evaluator,
    folder: Path,
    interrupted: Event | None = None,
    anew: bool = True,
    observers: Sequence[Observer] = (),
) -> Evaluated | None:
    """Evaluates the checkpoint of `folder` that config.eval.checkpoint names; None if interrupted meanwhile.

    anew: also where there is a report on just that; else its numbers are taken from there, and observers see nothing.
    """
    config = evaluator.config
    split, protocol = config.data.eval_split, evaluator.inference.protocol
    network = restore_network(config.model, folder, config.eval.checkpoint)
    arrays = network.params, network.statistics
    what = {"split": split, "step": network.step, "eval": config.eval.to_dict(), "data": evaluator.source.identity}
    with files.writing(folder, "--workdir"):
        target = report.new_folder(folder / "evaluation", split + protocol.suffix, what)
    evaluation = None if anew else report.read(target)
    if not all(parallel.gather(evaluation is not None)):
        images = f"{len(evaluator.source)} images, {protocol}"
        parallel.say(f"Evaluating step {network.step} of {folder} on {split}: {images}.")
        evaluation = evaluator.run(*arrays, interrupted, (Curves(evaluator), Suspects(evaluator), *observers))
    return None if evaluation is None else Evaluated(evaluator, arrays, what, target, evaluation)
