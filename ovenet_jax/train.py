"""Training: the loop around the step, with its data, evaluations and checkpoints."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax.data import inventory, pipeline
from ovenet_jax.devices import memory, parallel
from ovenet_jax.errors import UserError, cause_of
from ovenet_jax.evaluation import final, inspection
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.models import parameters, zoo
from ovenet_jax.run import identity, workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.run.interruption import Agreement, interruption
from ovenet_jax.supervision.task import Task, task_of
from ovenet_jax.training import compilation, health
from ovenet_jax.training.reporter import Reporter, empty_averages
from ovenet_jax.training.step import frozen_parts
from ovenet_jax.weights import hub, starting_point
from ovenet_jax.weights.network import restore_network


def train(config: ConfigDict, folder: Path) -> bool:
    """Trains in `folder`, from its latest checkpoint if it has one; at the end reports on the best checkpoint.

    A new run starts from the networks that `config.init` names, if any.

    Returns whether all is done: False after one of errors.INTERRUPTIONS, with the state saved. Raises UserError:
    invalid config, data or folder; a loss that is not finite; too little memory.
    """
    with parallel.all_or_none():
        task, classes = task_of(config), pipeline.classes(config.data)
        if not classes.channels:  # of named ones the input is measured first
            workdir.check(folder, config)
        identity.check(folder, identity.Identity(classes))
        mesh = _checked_mesh(config, task)
        inventory.check_training(found := task.prepare(), config.data.train_split)
        source = task.open_training()
        config.model.input.update(inventory.measured_input(found, config))

    model = zoo.create_model(config.model, config.seed)
    new = not workdir.has_checkpoint(folder)
    if new and config.init.base:
        names = classes.names if task.of_regions else ()
        model = starting_point.start_from(model, hub.located(config, folder), frozen_parts(config), names)
    elif new and ((name := hub.name_of(config.model.backbone)) or not config.model.backbone.he_init):
        spread = "2 / fan_in" if config.model.backbone.he_init else "0.001^2"
        helps = f"take them by --config.init.base={name or 'DIR, the folder of an import'}"
        parallel.say(f"Note: training starts from random values, N(0, {spread}), not from ImageNet weights; {helps}.")
    prepared = compilation.prepare_step(config, task, model, mesh, mesh.devices.flat[0].platform)
    evaluator = Evaluator(config, parameters.split(model)[0])
    trained_on = identity.Identity(classes, source.identity, evaluator.source.identity)
    with (
        _claimed(folder, config, trained_on),
        interruption() as interrupted,
        compilation.counting() as compilations,
        closing(Checkpoints(folder / "checkpoints", keep=config.keep_checkpoints)) as checkpoints,
    ):
        if not (finished := _is_over(config, checkpoints)):
            with memory.enough_memory(memory.TRAINING_MEMORY):
                compiled = compilation.compile_step(prepared.function, *prepared.arguments)
                _, measures = compiled.out_info
                empty = empty_averages(mesh, [name for name in measures if name != "finite"])
                with closing(Reporter(config, folder, compilations, empty, len(source))) as reporter:
                    parts = source, evaluator, reporter, checkpoints, interrupted
                    run = _Run(config, folder, mesh, prepared, compiled, *parts)
                    finished = run.to_the_end()
            checkpoints.check_saved(run.step)
        latest = checkpoints.latest_step()
        if finished:
            network = restore_network(config.model, folder, config.eval.checkpoint, held=True)
            finished = final.evaluate_checkpoint(evaluator, network, folder, interrupted)
    parallel.say(f"Compiled: {compilations}.")
    if not finished:
        parallel.say(f"Interrupted at step {latest}, which is saved; run the same command again to continue.")
    return finished


@contextmanager
def _claimed(folder: Path, config: ConfigDict, trained_on: identity.Identity) -> Iterator[None]:
    """Locks `folder` for this training in the body of the `with`. Raises UserError where another process holds it."""
    with ExitStack() as stack:
        with parallel.all_or_none():
            if jax.process_index() == 0:
                stack.enter_context(workdir.held(folder))
            workdir.check(folder, config)
            identity.check(folder, trained_on)
            if jax.process_index() == 0:
                identity.write(folder, trained_on)
                workdir.claim(folder, config)
        yield


def _checked_mesh(config: ConfigDict, task: Task) -> Mesh:
    """The mesh to train on. Raises UserError: values that are invalid in training, or on these devices."""
    if config.eval.get("segfix"):
        raise UserError("config.eval.segfix refines in --mode=evaluate; leave it out of the training.")
    if (config.init.get("trunk") or frozen_parts(config)) and not config.init.base:
        raise UserError("config.init.trunk and freeze_base need a trained base network: name its folder in init.base.")
    mesh = parallel.create_mesh(sizes=config.mesh)
    parallel.check_divisible(mesh, config.batch_size, config.augment.crop[0], task.accumulate, task.group)
    return mesh


def _is_over(config: ConfigDict, checkpoints: Checkpoints) -> bool:
    """Whether the latest checkpoint is evaluated, and that of the last step or config.patience steps after the best."""
    scored = checkpoints.is_scored(latest := checkpoints.latest_step() or 0)
    over = scored and (0 < config.patience <= latest - checkpoints.step_of("best") or latest == config.steps)
    return parallel.gather(over)[0]  # process 0 decides: others may see its files later


@dataclass
class _Run:
    """A running training, from the latest checkpoint on; `state` (packed) is the state after `step` steps.

    A checkpoint is saved before its evaluation, so that an interruption loses no step and the next start evaluates it.
    """

    config: ConfigDict
    folder: Path
    mesh: Mesh
    prepared: compilation.PreparedStep
    step_function: health.Step
    source: pipeline.Source
    evaluator: Evaluator
    reporter: Reporter
    checkpoints: Checkpoints
    interrupted: Event

    def __post_init__(self):
        config, source, initial = self.config, self.source, self.prepared.state
        restored = self.checkpoints.restore_latest(initial, self.reporter.collected)
        state, collected = restored or (initial, self.reporter.collected)
        self.state, self.step = parallel.replicate(self.mesh, self.prepared.packing.pack(state)), int(state.step)
        if restored:
            parallel.say(f"Resuming {self.folder} from step {self.step} of {config.steps}.")
        scored = restored and self.checkpoints.is_scored(self.step)
        self._open_evaluation = self._is_due(config.evaluate_every) and not scored
        self.reporter.begin(self.step, collected, evaluated=not self._open_evaluation)
        order = {"batch_size": config.batch_size, "seed": config.seed}
        share = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        acts, workers = pipeline.augmentations(config.augment, source.classes), config.data.workers
        self._batches = pipeline.train_batches(source, acts, **order, **share, first_step=self.step, workers=workers)
        images_of = partial(pipeline.images_of_step, source, **order)
        self._finite_watch = health.FiniteWatch(config.non_finite, self.folder, self.step, images_of)
        self._pace, self._over = health.Pace(), False
        self._agreement = Agreement(self.mesh, self.interrupted)

    def to_the_end(self) -> bool:
        """Trains until the last step or an interruption, and saves. Returns whether all steps are done and evaluated.

        After a fault of the machine (memory, open files ...) a process that trains alone saves, too.
        """
        try:
            # A new run is evaluated before its first step: there is something to improve on, and faults show early.
            go_on = not self._open_evaluation or self._evaluate()
            with self._batches as batches, closing(self._finite_watch.file), health.watchdog() as self._waits_for:
                while go_on and not self._over and self.step < self.config.steps:
                    self._take_step(batches)
                    self._report_and_save()
                    go_on = not self._agreement.reached()
                    if go_on and self._is_due(self.config.evaluate_every):
                        go_on = self._evaluate()
            if self.checkpoints.latest_step() != self.step:
                self._save()
            return go_on
        except Exception as error:
            if cause_of(error) and jax.process_count() == 1:
                self.checkpoints.wait()
                if self.checkpoints.latest_step() != int(self.state.step):
                    self._save()
                    self.checkpoints.wait()
            raise

    def _is_due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.config.steps

    def _take_step(self, batches: Iterator[pipeline.Batch]) -> None:
        self.step += 1
        began = time.monotonic()
        self._waits_for(f"the data of step {self.step}")
        batch = next(batches)
        waiting = time.monotonic() - began
        self._waits_for(f"the devices at step {self.step}")
        sharded = parallel.to_global(self.mesh, batch)
        self.state, measures = self.step_function(self.state, sharded["image"], sharded["label"])
        finite = measures.pop("finite")
        self._finite_watch.add(self.step, finite)
        self._pace.add(self.step - 1, time.monotonic() - began, waiting)
        self.reporter.collect(self.step, measures, finite, waiting)

    def _report_and_save(self) -> None:
        """Reports and saves where that is due after this step."""
        if self._is_due(self.config.report_every):
            self._finite_watch.check()
            self.reporter.report(self.step)
        if self._is_due(self.config.checkpoint_every) or self._is_due(self.config.evaluate_every):
            self._waits_for(f"the checkpoint of step {self.step}")
            self._save()
        self._waits_for("")

    def _save(self) -> None:
        self._finite_watch.check()
        self.checkpoints.save(self.prepared.packing.by_name(self.mesh, self.state), self.reporter.collected)

    def _evaluate(self) -> bool:
        """Evaluates, and returns whether that was not interrupted."""
        params, statistics = self.prepared.packing.by_name(self.mesh, self.state.evaluated)
        if (evaluation := self.evaluator.run(params, statistics, self.interrupted)) is None:
            return False
        shown = partial(inspection.panels, self.evaluator, params, statistics)
        self.reporter.report_evaluation(self.step, evaluation, shown)
        if self.step > 0:  # the network before training is no candidate for the best
            self.checkpoints.score(self.step, evaluation.miou or 0.0)
        self._over = _is_over(self.config, self.checkpoints)
        if self._over and self.step < self.config.steps:
            parallel.say(f"No better mIoU for config.patience={self.config.patience} steps: training ends here.")
        return True
