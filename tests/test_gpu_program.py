"""What GPUs would do in the training step of a small OVeNet, compiled where there are none: make gpu-program-test."""

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("jax_cuda13_plugin", reason="JAX's plugin for GPUs is not installed: make gpu-program-test")

from benchmarks import gpu_program, hlo
from benchmarks.gpu_program import LARGE, place
from benchmarks.gpus import GPUS
from configs import camvid
from ovenet_jax import plan
from ovenet_jax.models.layers import BatchNorm
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run.state import init_state
from ovenet_jax.training import optimizer as optimizers
from ovenet_jax.training.packing import Packing

pytestmark = pytest.mark.gpu_program

CONFIG = camvid.get_config("ovenet_tiny")
CONFIG.update({"precision": "bfloat16", "batch_size": 4})
CONFIG.augment.crop = (64, 128)
CONFIG.model.backbone.update({"blocks": 1, "layer1_blocks": 1})
CONFIG.model.offset.modules = (1,)
CONFIG.eval.update({"precision": "bfloat16", "base_size": 128, "window": (64, 128), "flip": True})


@pytest.fixture(scope="module")
def model():
    return create_model(CONFIG.model)


@pytest.fixture(scope="module")
def alone():
    return compiled_step(gpus=1)


@pytest.fixture(scope="module")
def kernels(alone):
    return hlo.kernels(alone.as_text())


@pytest.fixture(scope="module")
def norms(model):
    """How many BatchNorms there are."""
    return sum(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(model))


def compiled_step(gpus):
    mesh = gpu_program.described_mesh(GPUS["h200"], gpus, CONFIG.mesh)
    return plan.lower_step(CONFIG, mesh).compile(gpu_program.UNTUNED)


def launches(kernels, *places, kind=""):
    return sum(k.times for k in kernels if place(k) in places and kind in k.kind)


def test_all_is_convolved_and_multiplied_in_bfloat16(kernels):
    computed = [k for k in kernels if k.kind in ("convolution", "product")]
    assert len(computed) > 100
    assert {k.types for k in computed} == {"bf16,bf16->bf16"}


def test_the_state_is_overwritten_in_place(model, alone):
    state = init_state(model, optimizers.from_config(CONFIG)[1])
    assert gpu_program.memory(alone)["kept"] == sum(x.nbytes for x in jax.tree.leaves(state))


def test_a_batch_norm_takes_few_kernels(kernels, norms):
    """Two of sums and one that normalises, each forward and backward, and what is beside it."""
    assert launches(kernels, "network, large", "network, small", kind="reduction") < 4.5 * norms
    assert launches(kernels, "network, large", "network, small") < 8 * norms


def test_a_resize_takes_two_kernels_for_each_axis(model, kernels):
    """One forward and one backward."""
    image = np.zeros((1, *CONFIG.augment.crop, 3), np.float32)
    axes = str(jax.make_jaxpr(lambda image: model(image).predictions)(image)).count("linear_call[")
    assert 0 < launches(kernels, "resize_bilinear") <= 2 * axes


def test_the_optimizer_takes_few_kernels(model, kernels):
    state = init_state(model, optimizers.from_config(CONFIG)[1])
    vectors = Packing(state, "cuda").pack(state.params)
    assert 0 < launches(kernels, "optimizer") < 3 * len(vectors)
    assert launches(kernels, "unnamed, copies") < 20


def test_a_test_takes_kernels_as_they_are():
    """No pass copies them to another type or order; the image's window and its mirror image are one program."""
    programs = gpu_program.lower_test(CONFIG, gpu_program.described_mesh(GPUS["h200"], 1, CONFIG.mesh), (64, 128))
    assert {name: times for name, (times, _) in programs.items()} == {
        "read 64x128": 1,
        "forward 64x128": 2,
        "add 64x128": 3,  # predictions
    }
    kernels = hlo.kernels(programs["forward 64x128"][1].compile(gpu_program.UNTUNED).as_text())
    assert {k.types for k in kernels if k.kind in ("convolution", "product")} == {"bf16,bf16->bf16"}
    assert sum(k.kind == "copy" for k in kernels) < 10


def test_gpus_tell_one_another_little(norms):
    """Sums of statistics forward and backward, those of parallel branches together, and gradients together."""
    messages = [k for k in hlo.kernels(compiled_step(gpus=2).as_text()) if k.kind in hlo.COLLECTIVES]
    assert {k.kind for k in messages} == {"all-reduce"}
    assert sum(k.bytes < LARGE for k in messages) < norms
