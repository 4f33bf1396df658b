"""SegFix's ground truth as classes: what they say, and what a mirror makes of them."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ovenet_jax.data.augment import RandomFlip
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.segfix import directions, ground_truth
from ovenet_jax.segfix.labels import (
    boundary_and_direction,
    evaluation_classes,
    offset_of_class,
    training_classes,
    training_label,
)


def truth_of(label):
    return ground_truth.of_classes(label)


def blocks() -> np.ndarray:
    """A label of three classes with slanted borders, and an ignored corner."""
    rows, columns = np.indices((40, 60))
    label = np.where(columns + rows // 2 > 35, 1, 0) + (rows > 25)
    label[:6, :6] = IGNORE
    return label.astype(np.uint8)


@pytest.mark.parametrize("count", directions.COUNTS)
def test_training_classes_say_what_distances_and_angles_do(count):
    label = blocks()
    truth = truth_of(label)
    found = training_label(truth, label == IGNORE, count)
    known, near = label != IGNORE, truth.distance <= 5
    boundary, direction = boundary_and_direction(jnp.asarray(found), count)
    assert_array_equal(np.where(known, near, IGNORE), boundary)
    assert {0, 1, IGNORE} == set(np.unique(boundary).tolist())
    expected = directions.direction_classes(directions.stored_angle(truth.direction), count)
    assert_array_equal(np.where(known, expected, IGNORE), direction)


def test_the_distance_that_is_near_a_boundary_is_chosen():
    label = blocks()
    found = training_label(truth_of(label), label == IGNORE, 8, near=2)
    boundary, _ = boundary_and_direction(found, 8)
    assert_array_equal(boundary == 1, (truth_of(label).distance <= 2) & (label != IGNORE))


def test_what_is_tested_are_the_published_offsets():
    label = blocks()
    truth = truth_of(label)
    tested = evaluation_classes(8).train_ids()[training_label(truth, label == IGNORE, 8)]
    classes = directions.direction_classes(directions.stored_angle(truth.direction))
    expected = np.where(truth.distance[..., None] <= 5, directions.offset_table(8)[classes], 0)
    known = label != IGNORE
    assert_array_equal(offset_of_class(8)[tested[known]], expected[known])
    assert (tested[~known] == IGNORE).all()


def test_left_becomes_right_in_the_mirror_and_up_stays_up():
    names = training_classes(8).names
    mirrored = dict(enumerate(range(16))) | {a: b for p in training_classes(8).flip_pairs for a, b in (p, p[::-1])}
    for one, other in (("(0, -1)", "(0, 1)"), ("(-1, -1)", "(-1, 1)"), ("(1, 1)", "(1, -1)"), ("(-1, 0)", "(-1, 0)")):
        for where in ("inside", "near"):
            assert names[mirrored[names.index(f"{where} {one}")]] == f"{where} {other}"


@pytest.mark.parametrize("count", [8, 16, 32])
def test_the_ground_truth_of_a_mirrored_label_is_the_mirrored_ground_truth(count):
    """But within the rounding of a file, 2 degrees, of a border between two directions, and where there is none."""
    label = blocks()
    ignored = label == IGNORE
    sample = {"label": training_label(truth_of(label), ignored, count)}
    mirrored = flipped(sample, training_classes(count))["label"][:, ::-1]
    expected = training_label(truth_of(label[:, ::-1].copy()), ignored[:, ::-1], count)[:, ::-1]

    _, gradient = ground_truth.distance_and_gradient(np.where(ignored, -1, label.astype(np.int32)))
    from_border = ((directions.angle_of(gradient) + 180) / (360 / count) + 0.5) % 1 * (360 / count)
    clear = (np.minimum(from_border, 360 / count - from_border) > 2.5) & (np.hypot(*gradient.T).T > 0.1)
    assert clear.mean() > 0.5
    assert_array_equal(mirrored[clear | ignored], expected[clear | ignored])


def flipped(sample, classes):
    """The sample in the mirror: RandomFlip leaves half of all samples as they are."""
    flip = RandomFlip(classes.flip_pairs)
    outcomes = (flip(sample, np.random.default_rng(seed)) for seed in range(99))
    return next(outcome for outcome in outcomes if outcome is not sample)
