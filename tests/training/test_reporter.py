"""What is collected between reports."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.training.compilation import Compilations
from ovenet_jax.training.reporter import Reporter, empty_averages
from tests.tiny_step import config


def test_measures_average_over_finite_steps_and_the_rate_over_all(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "clu.metric_writers", None)
    empty = empty_averages(parallel.create_mesh(), ["loss_total"])
    settings = {"rate": 10.0, "power": 1.0, "momentum": 0.9, "weight_decay": 0.0}
    trained = ConfigDict({**config(tiny_model), "steps": 10, "optimizer": settings})
    reporter = Reporter(trained, tmp_path, Compilations(), empty, 100)
    reporter.begin(0, empty, evaluated=True)
    steps = enumerate(((1.0, True), (np.nan, False), (4.0, True), (np.inf, False)), 1)
    for step, (loss, finite) in steps:
        reporter.collect(step, {"loss_total": jnp.float32(loss)}, jnp.asarray(finite), seconds_waiting=0.5)
    reporter.close()
    average = reporter.collected.compute()
    assert average == {"loss_total": 2.5, "learning_rate": pytest.approx((10 + 10 + 9 + 8) / 4)}
