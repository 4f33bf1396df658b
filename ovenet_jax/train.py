"""Training: the loop around the step, with its data, reports, checkpoints and interruptions."""

import operator
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event

import clu.metrics
import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax import parallel, starting_point, workdir
from ovenet_jax.checkpoint import Checkpoints
from ovenet_jax.data import pipeline
from ovenet_jax.errors import UserError
from ovenet_jax.evaluate import Evaluator, evaluate_checkpoint
from ovenet_jax.inference import TITLES, Normalisation
from ovenet_jax.metrics import NO_STEP, Evaluation, scores, training_metrics
from ovenet_jax.models import parameters
from ovenet_jax.models.layers import PRECISIONS
from ovenet_jax.models.zoo import create_model
from ovenet_jax.optimizer import create_optimizer, poly_schedule
from ovenet_jax.protocol import check_settings
from ovenet_jax.report import write_panels
from ovenet_jax.step import BASE, TrainState, create_loss, init_state, ranked_together, train_step
from ovenet_jax.summaries import Summaries


def train(config: ConfigDict, folder: Path) -> bool:
    """Trains in `folder`, from its latest checkpoint if it has one; at the end reports on the best checkpoint.

    A new run starts from the networks that `config.init` names, if any.

    Returns whether training finished: False after SIGTERM or SIGINT, with the state saved.

    Raises:
      UserError: what the user can mend in config, data or folder, and a loss that is not finite.
    """
    check_config(config)
    check_settings(config.eval)
    mesh = parallel.create_mesh()
    parallel.check_divisible(mesh, config.batch_size, "config.batch_size")
    check_micro_batches(config, mesh.shape["data"])
    workdir.check(folder, config)
    pipeline.prepare(config.data)

    model = create_model(config.model, config.seed)
    frozen = BASE if config.freeze_base else ()
    if config.init.base and not workdir.has_checkpoint(folder):
        model = starting_point.start_from(model, config.init, frozen)
    model.set_attributes(rematerialise=config.rematerialise)
    graphdef, *_ = parameters.split(model)
    schedule = poly_schedule(config.optimizer.rate, config.steps, config.optimizer.power)
    optimizer = create_optimizer(
        schedule,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        head_rate_multiplier=config.optimizer.head_rate_multiplier,
        warmup_steps=config.optimizer.warmup_steps,
    )
    step_function = jax.jit(
        partial(
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
        ),
        out_shardings=parallel.replicated(mesh),
        donate_argnums=0,
    )
    state = jax.device_put(init_state(model, optimizer, frozen, config.ema), parallel.replicated(mesh))
    evaluator = Evaluator(config, graphdef)
    workdir.claim(folder, config)
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore_state(checkpoints.latest_step(), state)
            print(f"Resuming {folder} from step {state.step} of {config.steps}.")
        with closing(Reporter(config, folder, schedule, int(state.step))) as reporter:
            state, interrupted = _loop(config, mesh, state, step_function, evaluator, reporter, checkpoints)
    if interrupted:
        print(f"Interrupted at step {state.step}, which is saved; the same command goes on from there.")
        return False
    evaluate_checkpoint(evaluator, config, folder)
    return True


def _loop(
    config: ConfigDict,
    mesh: Mesh,
    state: TrainState,
    step_function: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    evaluator: Evaluator,
    reporter: "Reporter",
    checkpoints: Checkpoints,
) -> tuple[TrainState, bool]:
    """Steps until the last one or an interruption; either way the state returned is saved. Says which it was."""
    first_step = int(state.step)
    with interruption() as interrupted, _batches(config, first_step) as batches:

        def evaluate(step: int) -> float | None:
            """The mIoU; None if interrupted meanwhile."""
            evaluation = evaluator.run(*state.evaluated, interrupted)
            if evaluation is None:
                return None
            shown = partial(evaluator.panels, *state.evaluated, evaluator.shown)
            reporter.report_evaluation(step, evaluation, shown)
            return evaluation.miou

        # What there is to improve on; and a fault of the evaluation shows before training.
        if first_step == 0:
            evaluate(0)
        for step in range(first_step + 1, config.steps + 1):
            batch = parallel.to_global(mesh, next(batches))
            state, measures = step_function(state, batch["image"], batch["label"])
            reporter.collect(step, measures)
            last, leave = step == config.steps, interrupted.is_set()
            if step % config.report_every == 0 or last:
                reporter.report(step, checkpoints.latest_step())
            if step % config.evaluate_every == 0 or last:
                reporter.stop_if_not_finite(checkpoints.latest_step())
                checkpoints.save(state, evaluate(step))
            elif step % config.checkpoint_every == 0 or leave:
                reporter.stop_if_not_finite(checkpoints.latest_step())
                checkpoints.save(state)
            if leave:
                break
        return state, interrupted.is_set()


def check_config(config: ConfigDict) -> None:
    """Raises UserError for values that no run can have."""
    intervals = ("report_every", "evaluate_every", "checkpoint_every")
    for key in ("steps", "batch_size", "accumulate", *intervals):
        value = operator.attrgetter(key)(config)
        if value < 1:
            raise UserError(f"config.{key} is {value}; it must be at least 1.")
    if config.precision not in PRECISIONS:
        raise UserError(f"config.precision is {config.precision!r}; known: {', '.join(PRECISIONS)}.")
    if not 0 <= config.ema < 1:
        raise UserError(
            f"config.ema is {config.ema}; it is a decay from 0 (no averages) to below 1, for example 0.9999."
        )
    for key, value in (("crop", config.augment.crop), ("resize", config.augment.resize or (1, 1))):
        if len(value) != 2 or min(value) < 1:
            raise UserError(
                f"config.augment.{key} is {value}; it must be (height, width), for example (360, 480)."
            )
    for key in ("scale_range", "aspect_range"):
        value = tuple(getattr(config.augment, key))
        if value and not (len(value) == 2 and 0 < value[0] <= value[1]):
            raise UserError(
                f"config.augment.{key} is {value}; it must be (least, most), both above 0, or () for none."
            )
    for key, least in (("base_size", 0), ("scale_factor", 0), ("brightness", 0), ("short_side", 0)):
        value = getattr(config.augment, key)
        if value < least:
            raise UserError(f"config.augment.{key} is {value}; it must be at least {least}.")
    if config.augment.short_side and config.augment.resize:
        raise UserError("config.augment has both short_side and resize; only one of them can come first.")
    for key in ("rare_class_crops", "brightness_share"):
        value = getattr(config.augment, key)
        if not 0 <= value <= 1:
            raise UserError(f"config.augment.{key} is {value}; it is a share, from 0 to 1.")
    for key, on in (("init.trunk", config.init.trunk), ("freeze_base", config.freeze_base)):
        if on and "offset" not in config.model:
            raise UserError(
                f"config.{key} is for networks with offsets, and config.model has none; leave it out."
            )
        if on and not config.init.base:
            raise UserError(
                f"config.{key} needs a trained base network; name its folder in config.init.base."
            )


def check_micro_batches(config: ConfigDict, devices: int) -> None:
    """Raises UserError where the batch cannot be split into micro-batches, and these evenly over the devices."""
    together = ranked_together(config)
    least = config.accumulate * devices * together
    if config.accumulate > 1 and config.batch_size % least:
        groups = "" if together == 1 else f" in the groups of {together} images that OHEM ranks together"
        raise UserError(
            f"config.batch_size={config.batch_size} cannot be split into config.accumulate={config.accumulate} "
            f"micro-batches over {devices} devices{groups}; choose a multiple of {least}, or another number of "
            f"micro-batches."
        )


def _batches(config: ConfigDict, first_step: int) -> AbstractContextManager[Iterator[pipeline.Batch]]:
    source = pipeline.open_split(config.data, config.data.train_split)
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


@contextmanager
def interruption() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set, instead of ending the process, so that the loop can save and leave."""
    event = Event()
    previous = {
        number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Reporter:
    """Collects the measures of each step on the device; from time to time says and writes what they show."""

    def __init__(self, config: ConfigDict, folder: Path, schedule: optax.Schedule, first_step: int):
        self._config = config
        self._folder = folder
        self._summaries = Summaries(folder, first_step) if jax.process_index() == 0 else None
        self._empty: clu.metrics.Collection | None = None
        self._collected: clu.metrics.Collection | None = None
        self._last_report = (first_step, time.monotonic())

        @jax.jit
        def add(collected, measures, step):
            update = collected.single_from_model_output(
                **measures, step=step, learning_rate=schedule(step - 1)
            )
            return collected.merge(update)

        self._add = add

    def collect(self, step: int, measures: dict[str, jax.Array]) -> None:
        """Adds one step's scalar measures; nothing is fetched from the device.

        Waits until the step before is done: the host works one step ahead, no more, so that few batches wait in
        memory and an interruption is heard at once.
        """
        if self._empty is None:
            self._empty = self._collected = training_metrics([*measures, "learning_rate"]).empty()
        jax.block_until_ready(self._collected)
        self._collected = self._add(self._collected, measures, step)

    def report(self, step: int, checkpoint: int | None) -> None:
        """Averages since the last report: a progress line, a line of JSON, TensorBoard.

        Raises:
          UserError: a loss since then was not finite; `checkpoint` is the last good one.
        """
        self.stop_if_not_finite(checkpoint)
        values = {k: float(v) for k, v in self._collected.compute().items() if k != "first_non_finite"}
        self._collected = self._empty
        last_step, last_time = self._last_report
        now = time.monotonic()
        seconds = (now - last_time) / (step - last_step)
        self._last_report = (step, now)
        values["images_per_second"] = self._config.batch_size / seconds
        left = timedelta(seconds=round(seconds * (self._config.steps - step)))
        print(
            f"step {step}/{self._config.steps}  loss {values['loss_total']:.4f}  "
            f"{values['images_per_second']:.2f} images/s  {left} left",
            flush=True,
        )
        if self._summaries:
            self._summaries.scalars(step, values)

    def report_evaluation(
        self, step: int, evaluation: Evaluation, panels: Callable[[], dict[str, np.ndarray]]
    ) -> None:
        """mIoU and pixel accuracy of each prediction, and the panels, which are made on process 0 alone."""
        values = {}
        for name, matrix in evaluation.matrices.items():
            result = scores(matrix)
            values |= {f"eval_{key}_{name}": result[key] for key in ("miou", "pixel_accuracy")}
        mious = "  ".join(f"{TITLES[n]} {100 * values[f'eval_miou_{n}']:.2f}" for n in evaluation.matrices)
        print(f"step {step}/{self._config.steps}  mIoU [%]: {mious}", flush=True)
        if self._summaries:
            self._summaries.scalars(step, values)
            pictures = panels()
            self._summaries.pictures(step, pictures)
            write_panels(pictures, self._folder / "panels" / f"step_{step:06d}")
        self._last_report = (step, time.monotonic())  # evaluating is not training time

    def stop_if_not_finite(self, checkpoint: int | None) -> None:
        """Raises UserError if any loss collected so far was not finite; to be asked before anything is saved."""
        step = self._collected.first_non_finite.compute()
        if step == NO_STEP:
            return
        kept = "there is no checkpoint yet" if checkpoint is None else f"checkpoint {checkpoint} is kept"
        raise UserError(
            f"Loss or parameters were not finite at step {step}, so training stopped; {kept} in {self._folder}. "
            f"Lower config.optimizer.rate (now {self._config.optimizer.rate}) and start with another --workdir, or "
            f"look for odd images among that step's."
        )

    def close(self) -> None:
        if self._summaries:
            self._summaries.close()
