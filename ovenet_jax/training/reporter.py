"""Periodic reports of a training run: averages over its steps, evaluations, panels."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import clu.metrics
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.evaluation.report import write_panels
from ovenet_jax.evaluation.results import Evaluation
from ovenet_jax.models.predictions import TITLES
from ovenet_jax.run.summaries import Summaries
from ovenet_jax.supervision.measures import MEANS
from ovenet_jax.supervision.task import task_of
from ovenet_jax.tables import percent
from ovenet_jax.training import optimizer
from ovenet_jax.training.compilation import Compilations

OFFSET_METRICS = ("boundary_f", "direction_accuracy")
VALIDATION_METRICS = ("miou", "pixel_accuracy", *OFFSET_METRICS)


def empty_averages(mesh: Mesh, measures: list[str]) -> clu.metrics.Collection:
    """An empty collection of averages of these measures and of the learning rate, on all devices."""
    averages = {name: clu.metrics.Average.from_output(name) for name in (*measures, "learning_rate")}
    collection = clu.metrics.Collection.create(**averages)
    return jax.jit(collection.empty, out_shardings=parallel.replicated(mesh))()


class Reporter:
    """Averages the measures of each step on the devices; process 0 prints and writes them.

    `collected` are the averages since the last report; a checkpoint holds them too.
    """

    def __init__(
        self,
        config: ConfigDict,
        folder: Path,
        compilations: Compilations,
        empty: clu.metrics.Collection,
        images_per_epoch: int,
    ):
        self.collected = self._empty = empty
        self._config, self._folder, self._compilations = config, folder, compilations
        self._task, self._images_per_epoch = task_of(config), images_per_epoch
        self._summaries: Summaries | None = None
        schedule, _ = optimizer.from_config(config)

        def add(collected, measures, finite, step):
            measures = measures | {"learning_rate": schedule(step - 1)}
            one_step = {name: value[None] for name, value in measures.items()}
            counted = collected.single_from_model_output(**one_step, mask=finite[None])
            always = collected.single_from_model_output(**one_step, mask=jnp.ones_like(finite)[None])
            return collected.merge(counted.replace(learning_rate=always.learning_rate))

        self._add = jax.jit(add, out_shardings=jax.tree.map(lambda x: x.sharding, empty))

    def begin(self, step: int, collected: clu.metrics.Collection, evaluated: bool) -> None:
        """Continues after `step` with the averages `collected`; `evaluated`: whether that step's evaluation is done."""
        self.collected = collected
        if jax.process_index() == 0:
            self._summaries = Summaries(self._folder, step, evaluated)
        self._restart_clock(step)  # importing TensorFlow for the summaries is not training time

    def collect(self, step: int, measures: dict[str, jax.Array], finite: jax.Array, seconds_waiting: float) -> None:
        """Adds one step's rate and, if it was finite, its scalar measures; nothing is fetched from the devices."""
        self.collected = self._add(self.collected, measures, finite, step)
        self._seconds_waiting += seconds_waiting

    def report(self, step: int) -> None:
        """Averages since the last report: a progress line, a line of JSON, TensorBoard."""
        values = {name: float(value) for name, value in self.collected.compute().items()}
        self.collected = self._empty
        steps = step - self._clock_step
        seconds = (time.monotonic() - self._clock) / steps
        values["images_per_second"] = self._config.batch_size / seconds
        values["seconds_waiting"] = self._seconds_waiting / steps
        values["compilations"] = self._compilations.programs
        values["compilation_seconds"] = self._compilations.seconds
        self._restart_clock(step)
        if self._summaries:
            left = timedelta(seconds=round(seconds * (self._config.steps - step)))
            pace = f"{values['images_per_second']:.2f} images/s  {left} left"
            waiting = f"(waiting for data: {values['seconds_waiting']:.3f} s per step)"
            print(f"step {step}/{self._config.steps}  loss {values['loss_total']:.4f}  {pace}  {waiting}", flush=True)
            self._summaries.scalars(step, self._moment(step) | values)

    def report_evaluation(self, step: int, evaluation: Evaluation, panels: Callable[[], dict[str, np.ndarray]]) -> None:
        """Scores and loss of each prediction, IoU of each class, and the panels, which only process 0 makes."""
        if self._summaries:
            results = {name: self._task.scores_of(matrix) for name, matrix in evaluation.matrices.items()}
            pairs = [(f"eval_{key}_{name}", x.get(key)) for name, x in results.items() for key in VALIDATION_METRICS]
            values = {name: value for name, value in pairs if value is not None}
            values |= {f"eval_loss_{name}": loss for name, loss in evaluation.losses.items()}
            answer = results[evaluation.answer]
            names = self._task.classes.names if answer["miou"] is not None else ()
            values |= {f"eval_iou_{name}": iou for name, iou in zip(names, answer["iou"], strict=False)}
            shown = [f"{TITLES[name]} {percent(result['miou'])}" for name, result in results.items()]
            shown += [f"{MEANS[key]} {percent(answer[key])}" for key in OFFSET_METRICS if key in answer]
            print(f"step {step}/{self._config.steps}  mIoU [%]: {'  '.join(shown)}", flush=True)
            pictures = panels()
            self._summaries.pictures(step, pictures)
            try:
                write_panels(pictures, self._folder / "panels" / f"step_{step:06d}")
            except OSError as error:
                print(f"Warning: the panels of step {step} cannot be written ({error.strerror}); free space.")
            self._summaries.scalars(step, self._moment(step) | values)
        self._restart_clock(step)  # evaluating is not training time

    def _moment(self, step: int) -> dict[str, float]:
        return {"epoch": step * self._config.batch_size / self._images_per_epoch, "time": time.time()}

    def close(self) -> None:
        if self._summaries:
            self._summaries.close()

    def _restart_clock(self, step: int) -> None:
        self._clock_step, self._clock, self._seconds_waiting = step, time.monotonic(), 0.0
