from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.models.contracts import Logits
from ovenet_jax.supervision import losses
from ovenet_jax.supervision.losses import Ohem

HARD = Ohem(threshold=0.9, keep=1, group=1, softmax=True, aux_over_all=True)
OPTIONS = ("class_weights", "align_corners")
cross_entropy = jax.jit(losses.cross_entropy, static_argnames=OPTIONS)
ohem_cross_entropy = jax.jit(losses.ohem_cross_entropy, static_argnames=("ohem", *OPTIONS))
segmentation_loss = partial(
    jax.jit(losses.segmentation_loss, static_argnames=("ohem", "rmi", *OPTIONS)), aux_weight=0.4, align_corners=True
)
rmi_loss = partial(jax.jit(losses.rmi_loss, static_argnames="align_corners"), align_corners=True)
confidence_loss = partial(
    jax.jit(losses.confidence_loss, static_argnames=("grid_align_corners", "include_ignored")),
    grid_align_corners=True,
    include_ignored=True,
)


def logits_of(probabilities):
    """Two-class logits [1, 1, n, 2] whose class 0 has these probabilities."""
    p = np.asarray(probabilities, np.float32)
    return np.log(np.stack([p, 1 - p], -1))[None, None]


def test_cross_entropy_of_two_pixels_by_hand():
    loss = cross_entropy(logits_of([0.5, 0.25]), jnp.asarray([[[0, 0]]]), align_corners=True)
    assert_allclose(loss, (np.log(2) + np.log(4)) / 2, rtol=1e-6)


def rmi_as_published(logits, label):
    """With inverted covariances; the size of the logits is the label's."""
    labels = np.moveaxis(np.eye(logits.shape[-1])[np.where(label == IGNORE, 0, label)], -1, 1)
    known = (label != IGNORE)[:, None]
    labels, logits = labels * known, jnp.moveaxis(logits, -1, 1)
    cross = jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-abs(logits)))
    entropy = (cross * known).sum() / (known.sum() + 1)

    def vectors(maps):
        n, c, height, width = maps.shape
        padded = jnp.pad(maps, ((0, 0), (0, 0), (1, 3), (1, 3)), constant_values=-jnp.inf)
        h, w = (height - 1) // 3 + 1, (width - 1) // 3 + 1
        pooled = padded[:, :, : 3 * h, : 3 * w].reshape(n, c, h, 3, w, 3).max((3, 5))
        found = jnp.stack([pooled[:, :, y : y + h - 2, x : x + w - 2] for y in range(3) for x in range(3)], 2)
        found = found.reshape(n, c, 9, -1)
        return found - found.mean(-1, keepdims=True)

    true, found = vectors(jnp.asarray(labels)), vectors(jax.nn.sigmoid(logits) * known + 1e-6)
    both, small = true @ found.swapaxes(2, 3), 1e-3 * jnp.eye(9)
    inverse = jnp.linalg.inv(found @ found.swapaxes(2, 3) + small)
    rest = true @ true.swapaxes(2, 3) - both @ inverse @ both.swapaxes(2, 3) + small
    return 0.5 * entropy + 0.5 * (0.5 * jnp.linalg.slogdet(rest)[1]).mean(0).sum() / 9


@pytest.mark.parametrize("certainty", [1.0, 30.0])
def test_region_mutual_information_is_that_of_the_published_formula(certainty):
    """Which is precise in float64 only; ours is float32."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, (2, 5, 7)).repeat(7, 1).repeat(6, 2).astype(np.uint8)
    logits = rng.normal(size=(*label.shape, 3)) + certainty * np.eye(3)[label]
    label[:, 3:9, 10:20] = IGNORE
    value, gradient = jax.value_and_grad(partial(rmi_loss, label=jnp.asarray(label)))(jnp.asarray(logits, jnp.float32))
    with jax.enable_x64(True):
        published = jax.jit(jax.value_and_grad(partial(rmi_as_published, label=label)))
        expected, slopes = published(jnp.asarray(logits))
    assert_allclose(value, expected, rtol=1e-5)
    assert_allclose(gradient, slopes, atol=1e-5 * np.abs(slopes).max())


def test_region_mutual_information_where_nothing_varies():
    """Covariances are 0, so each determinant is that of 0.001 times the identity."""
    logits, label = jnp.zeros((2, 12, 15, 4)), jnp.ones((2, 12, 15), jnp.uint8)
    entropy, rmi = 4 * np.log(2) * 360 / 361, 4 * 0.5 * np.log(1e-3)
    loss = segmentation_loss(Logits(None, logits), label, rmi=True)
    assert_allclose(loss, (entropy + rmi) / 2, rtol=1e-5)
    halves = [rmi_loss(logits[i:][:1], label[i:][:1], batch_labels=label[:, None]) for i in (0, 1)]
    assert_allclose(np.mean(halves), loss, rtol=1e-5)  # micro-batches
    with_aux = segmentation_loss(Logits(logits, logits), label, rmi=True)
    assert_allclose(with_aux - loss, 0.4 * np.log(4), rtol=1e-5)


def test_weights_of_enet_fall_with_the_share_of_a_class():
    assert_allclose(losses.enet_weights([0, 10, 30]), [50.498, 4.1838, 1.7513], rtol=1e-4)  # shares 0, 1/4, 3/4
    assert_allclose(losses.enet_weights([5]), [1 / np.log(2.02)])


def test_class_weights_weigh_and_divide():
    label = jnp.asarray([[[0, 1]]])  # -log 0.5 with weight 3, -log 0.75 with weight 1
    loss = cross_entropy(logits_of([0.5, 0.25]), label, class_weights=(3.0, 1.0), align_corners=True)
    assert_allclose(loss, (3 * np.log(2) - np.log(0.75)) / 4, rtol=1e-6)


def test_the_mean_over_parts_of_a_batch_is_the_loss_of_the_batch():
    """Parts with unequal numbers of valid pixels and class weights; the second has none but ignored ones."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1, 2, 2, 2)), jnp.float32)
    labels = jnp.asarray([[[[0, 1], [1, 0]]], [[[255, 255], [255, 255]]], [[[1, 255], [255, 255]]]])
    options = {"class_weights": (3.0, 1.0), "align_corners": True}
    whole = cross_entropy(logits[:, 0], labels[:, 0], **options)
    parts = [cross_entropy(x, y, batch_labels=labels, **options) for x, y in zip(logits, labels, strict=True)]
    assert_allclose(np.mean(parts), whole, rtol=1e-6)


def test_ignored_pixels_change_neither_loss_nor_gradient():
    clean = jax.value_and_grad(lambda x: cross_entropy(x, jnp.asarray([[[0]]]), align_corners=True))
    dirty = jax.value_and_grad(lambda x: cross_entropy(x, jnp.asarray([[[0, 255]]]), align_corners=True))
    loss, gradient = clean(logits_of([0.5]))
    loss_with, gradient_with = dirty(logits_of([0.5, 0.9]))
    assert_allclose(loss_with, loss)
    assert_allclose(gradient_with[:, :, :1], gradient)
    assert_allclose(gradient_with[:, :, 1], 0)


def test_a_label_of_nothing_but_ignored_pixels_costs_nothing():
    label = jnp.full((2, 1, 3), 255)
    logits = Logits(None, jnp.zeros((2, 1, 3, 2)))
    for ohem in (None, HARD._replace(group=2)):
        loss, gradient = jax.value_and_grad(lambda x, ohem=ohem: segmentation_loss(Logits(None, x), label, ohem=ohem))(
            logits.main
        )
        assert loss == 0
        assert not gradient.any()


def test_ohem_on_six_pixels_keeps_those_below_the_threshold():
    probabilities = [0.1, 0.2, 0.4, 0.6, 0.8, 0.95]
    loss = ohem_cross_entropy(
        logits_of(probabilities), jnp.zeros((1, 1, 6), int), HARD._replace(threshold=0.5), align_corners=True
    )
    assert_allclose(loss, -np.log([0.1, 0.2, 0.4]).mean(), rtol=1e-5)


def test_ohem_raises_the_threshold_until_enough_pixels_are_kept():
    probabilities = [0.1, 0.2, 0.4, 0.6, 0.8, 0.95]
    loss = ohem_cross_entropy(
        logits_of(probabilities), jnp.zeros((1, 1, 6), int), HARD._replace(threshold=0.15, keep=4), align_corners=True
    )
    assert_allclose(loss, -np.log([0.1, 0.2, 0.4, 0.6]).mean(), rtol=1e-5)  # strictly below rank 4


def test_ohem_ranks_scores_that_are_probabilities_as_they_are():
    """A softmax of probabilities would find all three pixels hard."""
    p = jnp.asarray([0.1, 0.4, 0.9])
    scores = jnp.stack([p, 1 - p], -1)[None, None]
    ohem = HARD._replace(threshold=0.8, softmax=False)
    loss = ohem_cross_entropy(scores, jnp.zeros((1, 1, 3), int), ohem, align_corners=True)
    own, other = np.array([0.1, 0.4]), np.array([0.9, 0.6])  # and cross entropy takes them as logits
    assert_allclose(loss, (np.log(np.exp(own) + np.exp(other)) - own).mean(), rtol=1e-5)


def test_ohem_ranks_within_groups_of_images():
    logits = jnp.concatenate([logits_of([0.1, 0.9]), logits_of([0.8, 0.9])])
    label = jnp.zeros((2, 1, 2), int)
    together = ohem_cross_entropy(logits, label, HARD._replace(threshold=0.0, group=2), align_corners=True)
    apart = ohem_cross_entropy(logits, label, HARD._replace(threshold=0.0), align_corners=True)
    assert_allclose(together, -np.log(0.1), rtol=1e-5)
    assert_allclose(apart, (-np.log(0.1) - np.log(0.8)) / 2, rtol=1e-5)


def test_ohem_refuses_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match="groups of 2 images; 3 images do not divide"):
        ohem_cross_entropy(
            jnp.zeros((3, 1, 1, 2)), jnp.zeros((3, 1, 1), int), HARD._replace(group=2), align_corners=True
        )


def test_the_auxiliary_map_weighs_as_told():
    aux, main, label = logits_of([0.5]), logits_of([0.25]), jnp.asarray([[[0]]])
    loss = segmentation_loss(Logits(aux, main), label)
    assert_allclose(loss, 0.4 * np.log(2) + np.log(4), rtol=1e-6)


def half_and_half():
    """A 2x4 label, left half class 0, right half class 1, and an offset of two pixels to the right."""
    label = jnp.asarray([[[0, 0, 1, 1]] * 2])
    offset = jnp.broadcast_to(jnp.asarray([2 * 2 / 3, 0.0]), (1, 2, 4, 2))
    return label, offset


def test_confidence_is_asked_to_be_high_where_pixel_and_seed_agree():
    label, offset = half_and_half()
    # From the left half the seed is in the other class; from the right half it is clipped to the same class.
    agrees = jnp.asarray([0.0, 0.0, 1.0, 1.0])
    confidence = jnp.broadcast_to(jnp.where(agrees > 0, 0.8, 0.3), (1, 2, 4))[..., None]
    expected = -(np.log(0.7) + np.log(0.8)) / 2
    assert_allclose(confidence_loss(offset, confidence, label), expected, rtol=1e-5)


def test_ignored_pixels_supervise_confidence_only_if_included():
    label, offset = half_and_half()
    label = label.at[:, :, 2:].set(255)
    confidence = jnp.full((1, 2, 4, 1), 0.3)
    # Published: ignored pixels are class 0, so every pixel agrees with its seed.
    assert_allclose(confidence_loss(offset, confidence, label), -np.log(0.3), rtol=1e-5)
    assert confidence_loss(offset, confidence, label, include_ignored=False) == 0


def test_the_confidence_loss_does_not_move_offsets():
    label, offset = half_and_half()
    gradient = jax.grad(confidence_loss)(offset, jnp.full((1, 2, 4, 1), 0.3), label)
    assert not gradient.any()


def test_with_ohem_the_auxiliary_map_mines_nothing_and_has_two_means():
    """Three pixels, one ignored, weights 3 and 1: openseg divides by the weights, HRNet-OCR by all three."""
    logits = Logits(logits_of([0.5, 0.25, 0.9]), logits_of([0.5, 0.25, 0.9]))
    label, weights = jnp.asarray([[[0, 1, 255]]]), (3.0, 1.0)
    total = 3 * np.log(2) - np.log(0.75)
    for over_all, divisor in ((True, 3), (False, 4)):
        ohem = HARD._replace(aux_over_all=over_all)
        loss = segmentation_loss(logits, label, ohem=ohem, class_weights=weights)
        assert_allclose(loss, 0.4 * total / divisor + total / 2, rtol=1e-6)  # main: both are hard, by count


@pytest.mark.parametrize("spread", [1, 100])
def test_cross_entropy_as_on_gpus_with_the_right_gradient(spread, on_a_gpu):
    on_a_gpu()
    scores = spread * np.random.default_rng(0).normal(size=(2, 4, 6, 19))
    scores = jnp.asarray(scores, jnp.float32).at[..., 1].set(-jnp.inf)
    label = jnp.arange(2, 50).reshape(2, 4, 6) % 17 + 2
    ours = jax.value_and_grad(partial(losses.cross_entropy, align_corners=True))
    wanted = jax.value_and_grad(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, label).mean())
    for found, expected in zip(ours(scores, label), wanted(scores), strict=True):
        assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
