import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.models.layers import BatchNorm
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run.state import TrainState, init_state
from ovenet_jax.supervision.task import task_of
from ovenet_jax.training.optimizer import create_optimizer
from ovenet_jax.training.step import moving_average
from tests.collectives import collectives
from tests.float64 import float64
from tests.imagenet import NORMALISATION
from tests.steps import step_of
from tests.tiny_step import batch, config, small_model


def two_steps(model_config, optimizer, frozen=()):
    """Two training steps: the states, the measures and the step function."""
    model = create_model(model_config)
    run = jax.jit(step_of(config(model_config), model, optimizer, frozen=frozen))
    states, measures = [init_state(model, optimizer, frozen)], []
    for _ in range(2):
        state, measured = run(states[-1], **batch(2))
        states.append(state)
        measures.append(measured)
    return states, measures, run


@pytest.fixture(scope="module")
def stepped():
    return two_steps(small_model(), optax.sgd(0.01))


def parts(names):
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def frozen():
    """Two steps with a frozen base, weight decay and much dropout; the network before them, and its config."""
    model_config = small_model()
    model_config.head.classifier.dropout = model_config.head.aux.dropout = 0.5
    states, measures, _ = two_steps(
        model_config, create_optimizer(lambda _: 0.1, momentum=0.9, weight_decay=0.1), ("backbone", "head")
    )
    return states, measures, model_config


def test_a_frozen_base_stays_bit_identical_and_the_offset_parts_train(frozen):
    (before, _, after), *_ = frozen
    for old, new in ((before.params, after.params), (before.statistics, after.statistics)):
        changed = {name for name in old if not np.array_equal(old[name], new[name])}
        assert parts(changed) == {"offset_trunk", "offset_head"}
        assert parts(old.keys() - changed) == {"backbone", "head"}


def test_the_optimizer_holds_nothing_of_a_frozen_base(frozen):
    (before, *_), *_ = frozen
    momentum = [jax.tree_util.keystr(path) for path, x in jax.tree.leaves_with_path(before.opt_state) if x.ndim]
    assert len(momentum) == sum(name.startswith("offset_") for name in before.params)
    assert all("['offset_" in name for name in momentum)


def test_a_frozen_base_computes_as_in_evaluation(frozen):
    _, measures, model_config = frozen
    image, label = batch(2).values()
    model, loss = create_model(model_config), task_of(config(model_config)).create_loss()
    terms = jax.jit(lambda image: loss(model(NORMALISATION(image)), label))(image)
    assert_allclose(measures[0]["loss_initial"], terms["initial"], rtol=1e-6)
    assert measures[1]["loss_initial"] == measures[0]["loss_initial"]
    assert measures[1]["loss_fused"] != measures[0]["loss_fused"]


def test_a_step_changes_every_parameter_and_statistic(stepped):
    (before, after, _), *_ = stepped
    assert after.step == 1
    for old, new in ((before.params, after.params), (before.statistics, after.statistics)):
        still = {name for name in old if (np.asarray(old[name]) == np.asarray(new[name])).all()}
        assert still <= {name for name in old if name.endswith(".conv.bias")}  # BatchNorm takes a bias away again


def test_a_step_measures_every_term(stepped):
    _, measures, _ = stepped
    terms = {k: float(v) for k, v in measures[0].items()}
    total = 0.5 * terms["loss_initial"] + 0.5 * terms["loss_seed"] + terms["loss_fused"] + terms["loss_confidence"]
    assert_allclose(terms["loss_total"], total, rtol=1e-6)
    assert all(0 <= terms[f"accuracy_{name}"] <= 1 for name in ("initial", "seed", "fused"))
    assert 0 < terms["confidence"] < 1
    assert 0 < terms["offset_length"] < np.hypot(0.2 * 31.5, 0.2 * 31.5)


def test_steps_are_reproducible(stepped):
    states, _, run = stepped
    again, _ = run(TrainState(*states[1]), **batch(2))
    for name, value in states[2].params.items():
        np.testing.assert_array_equal(value, again.params[name])


def test_the_baselines_have_one_loss_term(tiny_model):
    del tiny_model.offset
    settings = config(tiny_model)
    del settings.loss.confidence_weight, settings.loss.include_ignored
    loss = task_of(settings).create_loss()
    model, image, label = create_model(tiny_model), jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 32, 32), int)
    assert jax.eval_shape(lambda: loss(model(image), label)).keys() == {"total"}


def test_normalisation_maps_the_mean_colour_to_zero():
    image = jnp.asarray(np.round(255 * np.array([0.485, 0.456, 0.406])), jnp.uint8).reshape(1, 1, 1, 3)
    assert_allclose(NORMALISATION(image), 0, atol=0.01)


def test_class_weights_of_another_number_of_classes_are_refused(tiny_model):
    settings = config(tiny_model)
    settings.loss.class_weights = (1.0, 2.0)
    with pytest.raises(UserError, match="class_weights has 2 entries for config.model.num_classes=5"):
        task_of(settings).create_loss()


@pytest.fixture
def stored_statistics(monkeypatch):
    """BatchNorm uses its stored statistics in training, too: it makes each micro-batch depend on its other images."""
    always = property(lambda _: True, lambda *_: None)
    monkeypatch.setattr(BatchNorm, "use_running_average", always, raising=False)


@pytest.mark.parametrize(("accumulate", "group", "ohem"), [(4, 1, False), (2, 2, True)])
@pytest.mark.usefixtures("stored_statistics")
def test_micro_batches_give_the_update_of_the_whole_batch(accumulate, group, ohem):
    """With class weights, and images that have unequal numbers of ignored pixels."""
    settings = config(small_model())
    settings.loss.class_weights = (1.0, 2.0, 0.5, 3.0, 0.1)
    settings.loss.ohem.on = ohem
    arrays = batch(8, 16, 16)
    for row, label in enumerate(arrays["label"]):
        label[: 2 * row] = 255
    model = create_model(settings.model)
    optimizer = create_optimizer(lambda _: 0.1, momentum=0.9, weight_decay=0.01)
    with float64():
        before = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float64 if x.dtype == np.float32 else x.dtype), init_state(model, optimizer)
        )
        (whole, measures), (parts, measures_of_parts) = (
            jax.jit(step_of(settings, model, optimizer, precision="float64", accumulate=count, group=group))(
                before, **arrays
            )
            for count in (1, accumulate)
        )
    changed = [name for name, value in whole.params.items() if np.abs(value - before.params[name]).max() > 1e-3]
    assert len(changed) > 0.9 * len(whole.params)
    for name, value in whole.params.items():
        assert_allclose(parts.params[name], value, rtol=1e-12, atol=1e-14, err_msg=name)
    for name, value in measures.items():
        assert_allclose(measures_of_parts[name], value, rtol=1e-12, err_msg=name)


def step_on(devices):
    """A step of two micro-batches with averages on them: its program, its batch, the states, the measures."""
    model = create_model(small_model())
    optimizer = optax.sgd(0.1, momentum=0.9)
    mesh = parallel.create_mesh(devices)
    before = init_state(model, optimizer, ema=0.75)
    state = jax.device_put(before, parallel.replicated(mesh))
    arrays = batch(16, 32, 32)
    step = step_of(config(small_model()), model, optimizer, accumulate=2, ema=0.75)
    step = jax.jit(step, out_shardings=parallel.replicated(mesh), donate_argnums=0)
    placed = parallel.to_global(mesh, arrays)
    program = step.lower(state, placed["image"], placed["label"]).compile()
    after, measures = program(state, placed["image"], placed["label"])
    return {
        "model": model,
        "arrays": arrays,
        "before": before,
        "donated": state,
        "after": after,
        "measures": measures,
        "program": program,
    }


@pytest.fixture(scope="module")
def on_eight_devices():
    return step_on(jax.devices())


def test_eight_devices_have_the_losses_of_one(on_eight_devices):
    """In float32; tests/devices/test_parallel.py compares gradients, in float64. Confidence is told to be right or
    wrong, which may turn by a rounding where two classes score alike."""
    alone = step_on(jax.devices()[:1])["measures"]
    for name in ("loss_initial", "loss_seed", "loss_fused"):
        assert_allclose(on_eight_devices["measures"][name], alone[name], rtol=1e-5, err_msg=name)


def test_images_stay_on_the_devices_where_they_are(on_eight_devices):
    """Nothing but sums crosses devices: every micro-batch has its share of the images on each of them."""
    text = on_eight_devices["program"].as_text()
    assert {collective.kind for collective in collectives(text)} == {"all-reduce"}
    shares = set(re.findall(r"u8\[([\d,]+),32,32,3\]", text))
    assert shares
    assert all(np.prod([int(n) for n in share.split(",")]) <= 2 for share in shares)


def test_the_state_is_overwritten_in_place(on_eight_devices):
    donated = jax.tree.leaves(on_eight_devices["donated"])
    aliased = on_eight_devices["program"].memory_analysis().alias_size_in_bytes
    assert aliased == sum(x.nbytes for x in donated)
    assert all(x.is_deleted() for x in donated)


def test_micro_batches_update_the_running_statistics_in_turn(on_eight_devices):
    convolution = on_eight_devices["model"].backbone.conv1.conv
    means = [
        convolution(NORMALISATION(jnp.asarray(on_eight_devices["arrays"]["image"][first::2]))).mean((0, 1, 2))
        for first in (0, 1)
    ]
    after = on_eight_devices["after"].statistics["backbone.conv1.norm.mean"]
    assert_allclose(after, 0.9 * (0.1 * means[0]) + 0.1 * means[1], rtol=1e-4, atol=1e-6)


def test_averages_follow_parameters_and_statistics(on_eight_devices):
    before, after = jax.device_get((on_eight_devices["before"], on_eight_devices["after"]))
    assert on_eight_devices["after"].evaluated is on_eight_devices["after"].ema
    started = before.params, before.statistics
    for old, new, average in zip(started, (after.params, after.statistics), after.ema, strict=True):
        for name in old:  # at the first step a tenth of the old is kept
            assert_allclose(average[name], 0.1 * old[name] + 0.9 * new[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("step", "kept"), [(0, 1 / 10), (8, 1 / 2), (62, 7 / 8), (80, 0.9), (100_000, 0.9)])
def test_an_average_keeps_its_decay_of_the_old_and_less_at_first(step, kept):
    old, latest = {"a": jnp.float32(1.0)}, {"a": jnp.float32(2.0)}
    average = moving_average(old, latest, 0.9, jnp.int32(step))
    assert_allclose(average["a"], kept * 1 + (1 - kept) * 2, rtol=1e-6)


def test_the_average_of_what_never_changes_is_that():
    values = {"a": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    np.testing.assert_array_equal(moving_average(values, values, 0.9999, 12345)["a"], values["a"])


def test_without_averages_the_network_itself_is_evaluated(stepped):
    (*_, state), *_ = stepped
    assert state.ema is None
    assert state.evaluated == (state.params, state.statistics)
