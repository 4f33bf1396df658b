"""Training: the loop around the step, with its data, evaluations and checkpoints."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from threading import Event

import jax
import numpy as np
from clu.metrics import Collection
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax import supervision
from ovenet_jax.data import pipeline
from ovenet_jax.devices import parallel
from ovenet_jax.devices.memory import TRAINING_MEMORY, enough_memory
from ovenet_jax.errors import UserError
from ovenet_jax.evaluation.evaluator import Evaluator, evaluate_checkpoint
from ovenet_jax.evaluation.protocol import check_settings
from ovenet_jax.models import parameters
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run import workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.run.interruption import Agreement, interruption
from ovenet_jax.run.state import TrainState, init_state
from ovenet_jax.segfix.samples import BoundarySource
from ovenet_jax.training.checks import check_config, check_micro_batches
from ovenet_jax.training.compilation import compile_step, counting
from ovenet_jax.training.health import FiniteWatch, Pace, Step, Watchdog, watched
from ovenet_jax.training.optimizer import create_optimizer, poly_schedule
from ovenet_jax.training.reporter import Reporter, nothing_collected
from ovenet_jax.training.step import BASE, create_loss, ranked_together, train_step
from ovenet_jax.weights import starting_point


def train(config: ConfigDict, folder: Path) -> bool:
    """Trains in `folder`, from its latest checkpoint if it has one; at the end reports on the best checkpoint.

    A new run starts from the networks that `config.init` names, if any.

    Returns whether all is done: False after SIGTERM, SIGINT or SIGUSR1, with the state saved.

    Raises:
      UserError: what the user can mend in config, data or folder; a loss that is not finite; too little memory.
    """
    check_config(config)
    check_settings(config.eval)
    if config.eval.segfix:
        raise UserError("config.eval.segfix refines in --mode=evaluate; leave it out of the training.")
    mesh = parallel.create_mesh(sizes=config.mesh)
    parallel.check_divisible(mesh, config.batch_size, config.augment.crop[0])
    check_micro_batches(config, mesh.shape["data"])
    with parallel.all_or_none():
        workdir.check(folder, config)
        supervision.prepare(config)

    model = create_model(config.model, config.seed)
    frozen = BASE if config.freeze_base else ()
    if config.init.base and not workdir.has_checkpoint(folder):
        model = starting_point.start_from(model, config.init, frozen)
    model.set_attributes(lay_out=parallel.row_layout(mesh), rematerialise=config.rematerialise)
    graphdef, *_ = parameters.split(model)
    schedule = poly_schedule(config.optimizer.rate, config.steps, config.optimizer.power)
    optimizer = create_optimizer(
        schedule,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        head_rate_multiplier=config.optimizer.head_rate_multiplier,
        warmup_steps=config.optimizer.warmup_steps,
    )
    step_function = partial(
        train_step,
        graphdef=graphdef,
        optimizer=optimizer,
        loss=create_loss(config),
        normalisation=Normalisation.from_config(config.model.input),
        align_corners=config.model.align_corners,
        seed=config.seed,
        frozen=frozen,
        precision=config.precision,
        accumulate=config.accumulate,
        group=ranked_together(config),
        ema=config.ema,
    )
    state = parallel.replicate(mesh, init_state(model, optimizer, frozen, config.ema))
    evaluator = Evaluator(config, graphdef)
    with parallel.all_or_none():
        if jax.process_index() == 0:
            workdir.claim(folder, config)
    with (
        interruption() as interrupted,
        counting() as compilations,
        closing(Checkpoints(folder / "checkpoints")) as checkpoints,
    ):
        with enough_memory(TRAINING_MEMORY):
            step_function, empty = _compile(config, mesh, state, step_function)
            with closing(Reporter(config, folder, schedule, compilations, empty)) as reporter:
                state, finished = _loop(
                    config, folder, mesh, state, step_function, evaluator, reporter, checkpoints, interrupted
                )
        checkpoints.check_saved(int(state.step))
        if finished:
            finished = evaluate_checkpoint(evaluator, config, folder, interrupted)
    if jax.process_index() == 0:
        print(f"Compiled: {compilations}.")
        if not finished:
            print(f"Interrupted at step {state.step}, which is saved; the same command goes on from there.")
    return finished


def _compile(
    config: ConfigDict, mesh: Mesh, state: TrainState, step_function: Step
) -> tuple[Step, Collection]:
    """The step, watched and compiled for the mesh, and the collection of its measures while empty."""
    jitted = jax.jit(
        watched(step_function, config.non_finite.policy),
        out_shardings=parallel.replicated(mesh),
        donate_argnums=0,
    )
    shape = (config.batch_size, *config.augment.crop)
    sharding = parallel.rows_sharded(mesh)
    image = jax.ShapeDtypeStruct((*shape, 3), np.uint8, sharding=sharding)
    label = jax.ShapeDtypeStruct(shape, np.uint8, sharding=sharding)
    compiled = compile_step(jitted, state, image, label)
    _, measures = compiled.out_info
    return compiled, nothing_collected(mesh, [name for name in measures if name != "finite"])


def _loop(
    config: ConfigDict,
    folder: Path,
    mesh: Mesh,
    state: TrainState,
    step_function: Step,
    evaluator: Evaluator,
    reporter: Reporter,
    checkpoints: Checkpoints,
    interrupted: Event,
) -> tuple[TrainState, bool]:
    """Goes on from the latest checkpoint to the last step or an interruption; either way saves the state it returns.

    A step that is to be evaluated is saved first and scored afterwards: what ends the process meanwhile costs no
    step, and the next start evaluates. Says whether all steps are done and evaluated.
    """

    def to_be_evaluated() -> bool:
        return step % config.evaluate_every == 0 or step == config.steps

    def evaluate() -> bool:
        """Whether it came to its end."""
        evaluation = evaluator.run(*state.evaluated, interrupted)
        if evaluation is None:
            return False
        shown = partial(evaluator.panels, *state.evaluated, evaluator.shown)
        reporter.report_evaluation(step, evaluation, shown)
        if step > 0:  # the network before training is no candidate for the best
            checkpoints.score(step, evaluation.miou)
        return True

    restored = checkpoints.restore_latest(state, reporter.collected)
    state, collected = restored or (state, reporter.collected)
    step = int(state.step)
    open_evaluation = to_be_evaluated() and not (restored and checkpoints.is_scored(step))
    reporter.begin(step, collected, evaluated=not open_evaluation)
    if restored and jax.process_index() == 0:
        print(f"Resuming {folder} from step {step} of {config.steps}.")

    source = supervision.open_training(config)
    order = {"batch_size": config.batch_size, "seed": config.seed}
    finite_watch = FiniteWatch(
        config.non_finite, folder, step, lambda step: pipeline.images_of_step(source, step=step, **order)
    )
    pace, agreement = Pace(), Agreement(mesh, interrupted)
    # A new run is evaluated before its first step, too: there is something to improve on, and faults show early.
    go_on = not open_evaluation or evaluate()
    with _batches(config, source, step) as batches, Watchdog() as watchdog:
        while go_on and step < config.steps:
            step += 1
            watchdog.sign(f"the data of step {step}")
            began = time.monotonic()
            batch = next(batches)
            waiting = time.monotonic() - began
            watchdog.sign(f"the devices at step {step}")
            batch = parallel.to_global(mesh, batch)
            state, measures = step_function(state, batch["image"], batch["label"])
            finite = measures.pop("finite")
            finite_watch.add(step, finite)
            pace.add(step - 1, time.monotonic() - began, waiting)
            reporter.collect(step, measures, finite, waiting)
            to_report = step % config.report_every == 0 or step == config.steps
            to_save = step % config.checkpoint_every == 0 or to_be_evaluated()
            if to_report or to_save:
                finite_watch.check()
            if to_report:
                reporter.report(step)
            if to_save:
                watchdog.sign(f"the checkpoint of step {step}")
                checkpoints.save(state, reporter.collected)
            watchdog.sign("")
            go_on = not agreement.reached() and (not to_be_evaluated() or evaluate())
    if checkpoints.latest_step() != step:
        finite_watch.check()
        checkpoints.save(state, reporter.collected)
    return state, go_on


def _batches(
    config: ConfigDict, source: pipeline.Source | BoundarySource, first_step: int
) -> AbstractContextManager[Iterator[pipeline.Batch]]:
    return pipeline.train_batches(
        source,
        pipeline.augmentations(config.augment, source.classes),
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=first_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=config.data.workers,
    )
