"""Evaluates a trained network on a split."""

from pathlib import Path

from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.evaluation import final, refinement
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.run import identity, workdir
from ovenet_jax.supervision.task import task_of
from ovenet_jax.weights.network import restore_network


def evaluate(config: ConfigDict, folder: Path, anew: bool = True) -> None:
    """Restores a checkpoint of the run or import in `folder`, evaluates it, prints the table, saves the report.

    anew: False reuses an existing evaluation and only writes the report again. With config.eval.segfix the network is
    evaluated before and after refinement, see refinement.py. Raises UserError: the folder holds no run or no
    checkpoint, or one of another model; invalid config.eval.
    """
    with parallel.all_or_none():
        classes = identity.classes_of(folder)
        task = task_of(config, classes)
        workdir.note_differences(folder, config)
        task.prepare()
    network = restore_network(config.model, folder, config.eval.checkpoint)
    refined = bool(config.eval.get("segfix"))
    evaluator = Evaluator(config, network.graphdef, classes, answer_only=refined)
    if refined:
        refinement.evaluate_refined(evaluator, network, folder)
    else:
        final.evaluate_checkpoint(evaluator, network, folder, anew=anew)
