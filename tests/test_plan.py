"""What --mode=plan says of a small network, from tracing it."""

import re

import pytest

from configs import demo
from ovenet_jax import described, plan
from ovenet_jax.errors import UserError


def config_of(**changes):
    config = demo.get_config("ovenet_fcn_r_tiny")
    config.update(changes)
    return described.resolved(config)


@pytest.fixture(scope="module")
def table():
    return plan.plan(config_of(), "2xrtx3090")


def test_the_table_says_what_a_training_takes(table):
    first, *_ = table.splitlines()
    assert "4 x 96x160 on each of 2 NVIDIA GeForce RTX 3090" in first
    slowest, fastest = map(int, re.search(r"images/s +(\d+) to (\d+)", table).groups())
    assert 0 < slowest < fastest
    compressed, decoded = map(int, re.search(r"(\d+) \(compressed\) or (\d+) \(decoded\)", table).groups())
    assert compressed >= fastest * 0.03 > decoded > 0
    assert "500 steps" in table and "nothing was compiled or run" in table


def test_the_largest_batch_fits_and_a_larger_one_does_not(table):
    largest = [int(x) for x in re.findall(r"at most config.batch_size=(\d+)", table)]
    assert largest[0] < largest[1]  # with rematerialise
    usable = plan.USABLE * plan.GPUS["rtx3090"]["memory"]
    fixed, of_image = plan.memory(config_of(), rematerialise=False)
    assert fixed + of_image * largest[0] / 2 <= usable < fixed + of_image * (largest[0] / 2 + 1)


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        (None, "JAX finds no GPU here; write --devices=COUNTxNAME with one of h200, "),
        ("8xh300", "--devices=8xh300 is unknown; write --devices=COUNTxNAME"),
        ("3xh200", "config.batch_size=8 cannot be split over 3 GPUs with config.mesh=(0, 1)"),
    ],
)
def test_what_cannot_be_planned_gets_one_sentence(devices, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        plan.plan(config_of(), devices)
