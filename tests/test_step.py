import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from numpy.testing import assert_allclose

from ovenet_jax.errors import UserError
from ovenet_jax.inference import Normalisation
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.optimizer import create_optimizer
from ovenet_jax.step import BASE, TrainState, create_loss, init_state, train_step


def config(model, batch_size=8):
    ohem = {"on": False, "threshold": 0.9, "keep": 100, "group": 2, "softmax_again": True}
    loss = {
        "aux_weight": 0.4,
        "class_weights": (),
        "ohem": ohem,
        "confidence_weight": 2.0,
        "include_ignored": True,
    }
    return ConfigDict({"model": model, "loss": loss, "batch_size": batch_size})


def batch(size=8, height=64, width=64):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, height, width, 3), np.uint8)
    label = rng.integers(0, 5, (size, height, width)).astype(np.uint8)
    label[:, :3] = 255
    return {"image": image, "label": label}


def two_steps(model_config, optimizer, frozen=()):
    """Two training steps: the states, the measures and the step function."""
    model = create_model(model_config)
    run = jax.jit(
        lambda state, image, label: train_step(
            state,
            image,
            label,
            graphdef=parameters.split(model)[0],
            optimizer=optimizer,
            loss=create_loss(config(model_config)),
            normalisation=Normalisation(),
            align_corners=True,
            seed=0,
            frozen=frozen,
        )
    )
    states, measures = [init_state(model, optimizer, frozen)], []
    for _ in range(2):
        state, measured = run(states[-1], **batch(2))
        states.append(state)
        measures.append(measured)
    return states, measures, run


@pytest.fixture(scope="module")
def stepped():
    from tests.conftest import tiny_model

    return two_steps(tiny_model.__wrapped__(), optax.sgd(0.01))


def parts(names):
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def frozen():
    """Two steps with a frozen base, weight decay and much dropout; the network before them, and its config."""
    from tests.conftest import tiny_model

    model_config = tiny_model.__wrapped__()
    model_config.head.dropout, model_config.backbone.he_init = 0.5, True
    states, measures, _ = two_steps(model_config, create_optimizer(lambda _: 0.1, weight_decay=0.1), BASE)
    return states, measures, model_config


def test_a_frozen_base_stays_bit_identical_and_the_offset_parts_train(frozen):
    (before, _, after), *_ = frozen
    for old, new in ((before.params, after.params), (before.statistics, after.statistics)):
        changed = {name for name in old if not np.array_equal(old[name], new[name])}
        assert parts(changed) == {"offset_trunk", "offset_head"}
        assert parts(old.keys() - changed) == {"backbone", "head"}


def test_the_optimizer_holds_nothing_of_a_frozen_base(frozen):
    (before, *_), *_ = frozen
    momentum = [
        jax.tree_util.keystr(path) for path, x in jax.tree.leaves_with_path(before.opt_state) if x.ndim
    ]
    assert len(momentum) == sum(name.startswith("offset_") for name in before.params)
    assert all("['offset_" in name for name in momentum)


def test_a_frozen_base_computes_as_in_evaluation(frozen):
    _, measures, model_config = frozen
    image, label = batch(2).values()
    evaluate = jax.jit(create_model(model_config))
    terms = create_loss(config(model_config))(evaluate(Normalisation()(jnp.asarray(image))), label)
    assert_allclose(measures[0]["loss_initial"], terms["initial"], rtol=1e-6)
    assert measures[1]["loss_initial"] == measures[0]["loss_initial"]
    assert measures[1]["loss_fused"] != measures[0]["loss_fused"]


def test_a_step_changes_every_parameter_and_statistic(stepped):
    (before, after, _), *_ = stepped
    assert after.step == 1
    for old, new in ((before.params, after.params), (before.statistics, after.statistics)):
        still = {name for name in old if (np.asarray(old[name]) == np.asarray(new[name])).all()}
        assert still <= {
            name for name in old if name.endswith(".conv.bias")
        }  # BatchNorm takes a bias away again


def test_a_step_measures_every_term(stepped):
    _, measures, _ = stepped
    terms = {k: float(v) for k, v in measures[0].items()}
    total = (
        0.5 * terms["loss_initial"]
        + 0.5 * terms["loss_seed"]
        + terms["loss_fused"]
        + terms["loss_confidence"]
    )
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
    loss = create_loss(settings)
    output = create_model(tiny_model)(jnp.zeros((2, 32, 32, 3)))
    assert loss(output, jnp.zeros((2, 32, 32), int)).keys() == {"total"}


def test_ohem_needs_a_batch_of_whole_groups(tiny_model):
    settings = config(tiny_model, batch_size=3)
    settings.loss.ohem.on = True
    with pytest.raises(UserError, match="config.batch_size=3 must be a multiple of"):
        create_loss(settings)


def test_normalisation_maps_the_mean_colour_to_zero():
    image = jnp.asarray(np.round(255 * np.array([0.485, 0.456, 0.406])), jnp.uint8).reshape(1, 1, 1, 3)
    assert_allclose(Normalisation()(image), 0, atol=0.01)


def test_class_weights_of_another_number_of_classes_are_refused(tiny_model):
    settings = config(tiny_model)
    settings.loss.class_weights = (1.0, 2.0)
    with pytest.raises(UserError, match="class_weights has 2 entries for config.model.num_classes=5"):
        create_loss(settings)
