"""What is bfloat16 in a training step, what must not be, and how near it comes to float32."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params
from numpy.testing import assert_allclose

from ovenet_jax.models import parameters
from ovenet_jax.models.layers import Conv, InitialValues, resize_bilinear
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run.state import init_state
from tests.steps import step_of
from tests.tiny_step import batch, config, small_model, tiny_model

ROUNDOFF = 2.0**-8  # of bfloat16: 8 significant bits, the last one rounded

# What may be computed in bfloat16: products, summed in float32 by the hardware, what treats each number of a map by
# itself, and what only moves numbers. No exponential, no root, no reduction, no gather.
MAY_BE_BFLOAT16 = {
    *("conv_general_dilated", "dot_general"),
    *("add", "add_any", "mul", "div", "le", "select_n", "convert_element_type"),
    *("broadcast_in_dim", "reshape", "squeeze", "transpose", "concatenate", "split", "rev"),
}


def equations(jaxpr):
    """All of a program, those of the functions it calls included; a call itself computes nothing."""
    for equation in jaxpr.eqns:
        inner = list(jaxprs_in_params(equation.params))
        yield from itertools.chain(*map(equations, inner)) if inner else [equation]


def dtypes(equation) -> set[str]:
    return {str(x.aval.dtype) for x in (*equation.invars, *equation.outvars)}


def moves_only(equation) -> bool:
    """A sum over axes of length 1, which is how a new axis is taken away again."""
    return equation.primitive.name == "reduce_sum" and equation.invars[0].aval.size == equation.outvars[0].aval.size


def step_and_state(model_config, precision):
    model = create_model(model_config)
    optimizer = optax.sgd(0.05, momentum=0.9)
    step = step_of(config(model_config), model, optimizer, precision=precision, ema=0.9)
    return step, init_state(model, optimizer, ema=0.9)


@pytest.fixture(scope="module")
def program():
    """The bfloat16 step of a tiny HRNet with OCR and offsets, as a jaxpr."""
    step, state = step_and_state(tiny_model(), "bfloat16")
    return jax.make_jaxpr(step)(state, **batch(2))


def test_softmax_statistics_losses_and_seeds_are_not_bfloat16(program):
    narrow = {
        equation.primitive.name
        for equation in equations(program.jaxpr)
        if "bfloat16" in dtypes(equation) and not moves_only(equation)
    }
    assert narrow <= MAY_BE_BFLOAT16


def test_every_convolution_is_bfloat16(program):
    convolutions = [e for e in equations(program.jaxpr) if e.primitive.name == "conv_general_dilated"]
    assert len(convolutions) > 100
    assert all(dtypes(convolution) == {"bfloat16"} for convolution in convolutions)


def test_state_and_measures_stay_float32(program):
    assert {str(x.dtype) for x in program.out_avals} == {"float32", "int32"}  # int32: counts of steps


@pytest.fixture(scope="module")
def trained():
    """By precision, the losses of ten steps on one batch, whose label is told by the image's brightness."""
    image = batch(4, 32, 32)["image"]
    label = np.zeros(image.shape[:3], np.uint8)
    image[:, 16:] //= 4
    label[:, 16:] = 1
    losses = {}
    for precision in ("float32", "bfloat16"):
        step, state = step_and_state(small_model(), precision)
        step = jax.jit(step)
        losses[precision] = []
        for _ in range(10):
            state, measures = step(state, image, label)
            losses[precision].append({k: float(v) for k, v in measures.items() if k.startswith("loss_")})
    return losses


def test_losses_are_those_of_float32_up_to_rounding(trained):
    """Of independent roundings the squares add up: images, kernels, convolutions and BatchNorms of some 20 layers."""
    tolerance = np.sqrt(4 * 20) * ROUNDOFF
    for name, value in trained["float32"][0].items():
        assert_allclose(trained["bfloat16"][0][name], value, rtol=tolerance, err_msg=name)
    assert trained["bfloat16"][0] != trained["float32"][0]


def test_bfloat16_learns_as_float32_does(trained):
    first, last = (trained["bfloat16"][i]["loss_total"] for i in (0, -1))
    assert last < 0.8 * first
    learnt = trained["float32"][0]["loss_total"] - trained["float32"][-1]["loss_total"]
    assert first - last > 0.8 * learnt


@pytest.mark.parametrize("align_corners", [True, False])
def test_resizing_in_bfloat16_keeps_constants_and_places(align_corners):
    constant = jnp.full((1, 5, 11, 1), 1.5, jnp.bfloat16)
    resized = resize_bilinear(constant, (16, 43), align_corners=align_corners)
    assert resized.dtype == jnp.bfloat16
    assert (resized == 1.5).all()
    ramp = jnp.arange(11.0).reshape(1, 1, 11, 1)
    exact = resize_bilinear(ramp, (1, 43), align_corners=align_corners)
    resized = resize_bilinear(ramp.astype(jnp.bfloat16), (1, 43), align_corners=align_corners)
    # A place is off by half of 1 / 256 of a pixel; the result is rounded.
    assert_allclose(resized.astype(jnp.float32), exact, rtol=ROUNDOFF, atol=1 / 512)


def test_the_gradient_of_a_bias_adds_up_every_pixel_of_a_large_map():
    """256 + 1 is 256 in bfloat16: added up in it, the pixels beyond would count nothing."""
    conv = Conv(1, 1, 1, bias=True, init=InitialValues(0, he=False))
    graphdef, params, _ = parameters.split(conv)

    def total(params):
        return parameters.merge(graphdef, params, {})(jnp.ones((1, 64, 64, 1), jnp.bfloat16)).sum()

    assert jax.grad(total)(params)["bias"] == 64 * 64
