"""A trained network over a split, under the config's test protocol."""

from pathlib import Path

from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.evaluation import refinement
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.evaluation.final import evaluate_checkpoint
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run import identity, workdir
from ovenet_jax.supervision.task import task_of


def evaluate(config: ConfigDict, folder: Path, anew: bool = True) -> None:
    """Restores a checkpoint of the run or import in `folder`, evaluates it, prints the table, saves the report.

    anew: False takes numbers that are there already, and writes table, pictures and page again.
    With config.eval.segfix it is evaluated before and after refinement, see refinement.py.

    Raises:
      UserError: the folder holds no run or no checkpoint, or one of another model; what no test can have.
    """
    with parallel.all_or_none():
        classes = identity.classes_of(folder)
        task = task_of(config, classes)
        workdir.note_differences(folder, config)
        task.prepare()
    if config.eval.segfix:
        refinement.evaluate_refined(config, folder)
        return
    graphdef, *_ = parameters.split(create_model(config.model))
    evaluate_checkpoint(Evaluator(config, graphdef, classes), folder, anew=anew)
