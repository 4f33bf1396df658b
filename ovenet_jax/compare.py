"""Compares several runs on one split: `comparison.html` and `comparison.json`."""

import json
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ovenet_jax import described, files
from ovenet_jax.configs.keys import FREE
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation import comparison, final
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.run import identity, workdir
from ovenet_jax.supervision.task import task_of
from ovenet_jax.weights.network import restore_network

SHOWN_GROUPS = 4  # side by side
ALIKE = "only runs of the same classes can be compared"
ONLY_SEED = ("seed", "name", *FREE)  # runs that differ only in these are repetitions of one config


def compare(config: ConfigDict, source: str | None, folder: Path) -> None:
    """Compares the runs in the folders that `source` names, separated by commas, on config.data.eval_split.

    Each is evaluated with its own model and the test protocol of config.eval, or an existing report of the same
    evaluation is read. Writes `folder`/comparison. Raises UserError: fewer than two runs; a folder without a run, or
    runs with other data, classes or images than the first.
    """
    if config.eval.get("segfix"):
        raise UserError("config.eval.segfix refines in --mode=evaluate; leave it out of a comparison.")
    folders = [Path(name.strip()) for name in (source or "").split(",") if name.strip()]
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("--mode=compare needs two runs or more, each once: --source=DIR,DIR,... with their workdirs.")
    with parallel.all_or_none():
        task = task_of(config)
        configs = [_config_of(run, config) for run in folders]
        task.prepare()
    results: list[final.Evaluated] = []
    for run, own in zip(folders, configs, strict=True):
        network = restore_network(own.model, run, own.eval.checkpoint)
        evaluator = Evaluator(own, network.graphdef, identity.classes_of(run))
        if results and evaluator.task.classes.names != results[0].evaluator.task.classes.names:
            others = f"{run} was trained on other classes than {folders[0]}, or in another order"
            raise UserError(f"{others}, and {ALIKE}.")
        result = final.evaluated(evaluator, network, run, anew=False)
        assert result is not None  # nothing interrupts it
        results.append(result)
    if jax.process_index() > 0:
        return
    classes = results[0].evaluator.task.classes
    repetitions: dict[str, list[final.Evaluated]] = {}
    for result in results:
        values = described.leaves(result.evaluator.config.to_dict())
        kept = {key: value for key, value in values.items() if not key.startswith(ONLY_SEED)}
        repetitions.setdefault(json.dumps(kept, sort_keys=True), []).append(result)
    alike = len({run.name for run in folders}) < len(folders)  # equal folder names: titles are whole paths
    groups = {}
    for first, *more in repetitions.values():
        title = str(first.folder) if alike else first.folder.name
        groups[f"{title}{f' (+{len(more)})' if more else ''}"] = [first, *more]
    evaluations = {title: [one.evaluation for one in group] for title, group in groups.items()}
    numbers = comparison.numbers(evaluations, classes)
    indices = comparison.most_different(evaluations, config.eval.panels + config.eval.worst)
    shown = {title: final.inspected_of(group[0], indices) for title, group in list(groups.items())[:SHOWN_GROUPS]}
    views = {title: [found[index] for index in indices] for title, found in shown.items()}
    logs = {title: [one.folder / "metrics.jsonl" for one in group] for title, group in groups.items()}
    target = folder / "comparison"
    with files.writing(target, "--workdir"):
        files.write_json(target / "comparison.json", {"split": config.data.eval_split, **numbers})
        page = comparison.page(numbers, views, logs, classes, config.data.eval_split)
        files.write(target / "comparison.html", page)
    print(f"Written: {target / 'comparison.html'}")


def _config_of(run: Path, config: ConfigDict) -> ConfigDict:
    """The run's config, with the data and test protocol of `config`."""
    own = workdir.config_of(run)
    if own.data.name != config.data.name or own.model.num_classes != config.model.num_classes:
        there, here = (f"{c.data.name!r} with {c.model.num_classes}" for c in (own, config))
        raise UserError(f"{run} was trained on {there} classes; this config is of {here}, and {ALIKE}.")
    own.data, own.eval, own.mesh = config.data, config.eval, config.mesh
    return own
