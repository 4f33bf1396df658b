import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from ovenet_jax.data.labels import IGNORE
from ovenet_jax.segfix.boundary import WIDTHS, boundary_scores
from ovenet_jax.segfix.scores import means, scores_of, summed, table


def square(shift: int = 0) -> np.ndarray:
    """Class 1 on class 0, `shift` columns to the right of its place."""
    label = np.zeros((24, 40), np.uint8)
    label[8:16, 10 + shift : 22 + shift] = 1
    return label


@pytest.mark.parametrize(("shift", "wrong_widths"), [(0, ()), (1, ()), (2, (1,)), (4, (1, 3)), (6, (1, 3, 5))])
def test_an_outline_is_right_to_within_the_width(shift, wrong_widths):
    found = boundary_scores(square(), square(shift), 2)
    assert found.shape == (len(WIDTHS), 2)
    assert_allclose(found[:, 0], found[:, 1])  # two classes have one outline
    for width, (score, _) in zip(WIDTHS, found, strict=True):
        assert (score < 1) == (width in wrong_widths)


def test_scores_by_hand():
    """Half of the predicted outline lies far from the true one, which is found as a whole."""
    true, predicted = np.zeros((2, 20, 8), np.uint8)
    true[:5], predicted[:5], predicted[12:] = 1, 1, 1
    precision, recall = 0.5, 1
    assert_allclose(boundary_scores(true, predicted, 2), 2 * precision * recall / 1.5)


def test_ignored_pixels_are_in_neither_mask():
    predicted = square()
    predicted[:, :4] = 1
    true = square()
    true[:, :6] = IGNORE
    assert_allclose(boundary_scores(true, predicted, 2), 1)


def test_images_add_up_and_absent_classes_count_1_as_published_only():
    empty = square() * 0
    total = summed(scores_of(square(), before, square(), 3) for before in (square(), empty))
    assert total.images == 2
    np.testing.assert_array_equal(total.outlined, [[2, 2, 0]] * 2)
    np.testing.assert_array_equal(total.boundary, [[[1, 1, 0]] * 3, [[2, 2, 0]] * 3])
    occurring, published = (mean[1:] for mean in means(total).values())
    assert_allclose(occurring, [[0.5, 1]] * 3)
    assert_allclose(published, [[(0.5 + 0.5 + 1) / 3, 1]] * 3)
    _, _, first, _, absent, *_ = (line.split() for line in table(total, "abc").splitlines())
    assert first[3:] == ["50.00", "100.00"] * 3
    assert absent == ["c", *"--------"]


def test_equals_the_formula_on_whole_images():
    rng = np.random.default_rng(0)
    for _ in range(6):
        true = np.kron(rng.integers(0, 4, (4, 5)), np.ones((6, 7))).astype(np.uint8)
        predicted = np.where(rng.random(true.shape) < 0.03, 2, np.roll(true, 2, axis=1)).astype(np.uint8)
        true[rng.random(true.shape) < 0.02] = IGNORE
        expected = [[whole_image_score(true, predicted, k, width) for k in range(5)] for width in WIDTHS]
        assert_allclose(np.nan_to_num(boundary_scores(true, predicted, 5), nan=1), expected)


def whole_image_score(true: np.ndarray, predicted: np.ndarray, class_id: int, width: int) -> float:
    """Without a box around the class, by SciPy's dilation."""
    y, x = np.ogrid[-width : width + 1, -width : width + 1]
    outlines = []
    for label in (true, predicted):
        mask = (label == class_id) & (true != IGNORE)
        outline = np.zeros_like(mask)
        outline[:, :-1] |= mask[:, :-1] != mask[:, 1:]
        outline[:-1] |= mask[:-1] != mask[1:]
        outline[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
        outlines.append(outline)
    if not any(outline.any() for outline in outlines):
        return 1.0
    near = [ndimage.binary_dilation(outline, y**2 + x**2 <= width**2) for outline in outlines]
    recall, precision = (
        (outline & other).sum() / outline.sum() if outline.any() else 1.0
        for outline, other in zip(outlines, near[::-1], strict=True)
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
