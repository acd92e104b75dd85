from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tests.examples import examples
from towers.losses import margin_violations, mean_over, select_hardest

Array = NDArray[np.float32]

SCORES = st.floats(-8.0, 8.0, width=32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Array]:
    n_queries, n = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    positive = draw(hnp.arrays(np.float32, n_queries, elements=SCORES))
    elements = SCORES | st.just(-math.inf)
    return positive, draw(hnp.arrays(np.float32, (n_queries, n), elements=elements))


def naive_hinge(positive: float, negatives: Array, *, m: int, margin: float) -> float:
    """The mean violation of a positive's m hardest negatives; those of -inf do not count."""
    hardest = sorted((float(s) for s in negatives if s > -math.inf), reverse=True)[:m]
    total = 0.0
    for score in hardest:
        total += max(0.0, margin - positive + score)
    return total / len(hardest) if hardest else 0.0


def hinge(positive: tf.Tensor, scores: tf.Tensor, *, m: int, margin: float) -> tf.Tensor:
    columns, counts = select_hardest(scores, m=m)
    negative = tf.gather(scores, columns, axis=1, batch_dims=1)
    violations = margin_violations(positive, negative, counts=counts, margin=margin)
    return mean_over(violations, counts)


@given(case=cases(), m=st.integers(1, 8), margin=st.floats(0.0, 2.0))
@settings(max_examples=examples(80))
def test_the_loss_is_the_mean_hinge_over_the_hardest(
    case: tuple[Array, Array], m: int, margin: float
) -> None:
    positive, scores = case
    got = hinge(tf.constant(positive), tf.constant(scores), m=m, margin=margin)
    expected = [
        naive_hinge(float(p), row, m=m, margin=margin)
        for p, row in zip(positive, scores, strict=True)
    ]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_hardest_are_the_highest_and_minus_infinity_does_not_count() -> None:
    scores = tf.constant([[1.0, 5.0, -math.inf, 3.0], [-math.inf, -math.inf, -9.0, -math.inf]])
    columns, counts = select_hardest(scores, m=3)
    assert columns.numpy()[0].tolist() == [1, 3, 0]
    assert columns.numpy()[1, 0] == 2
    assert counts.numpy().tolist() == [[True] * 3, [True, False, False]]


def test_fewer_negatives_than_asked_for_are_all_taken() -> None:
    columns, counts = select_hardest(tf.constant([[2.0, 7.0]]), m=20)
    assert columns.numpy().tolist() == [[1, 0]]
    assert counts.numpy().tolist() == [[True, True]]


def test_without_negatives_there_is_no_loss_and_no_gradient() -> None:
    positive, scores = tf.Variable([1.0]), tf.Variable([[-math.inf, -math.inf]])
    with tf.GradientTape() as tape:
        loss = hinge(positive, scores, m=2, margin=1.0)
    assert loss.numpy().tolist() == [0.0]
    for gradient in tape.gradient(loss, [positive, scores]):
        assert not np.any(tf.convert_to_tensor(gradient).numpy())


def test_the_gradient_reaches_the_positive_and_its_violators_only() -> None:
    positive = tf.Variable([2.0])
    # violates by 1.5; violates by 0.5; beyond the margin; not among the hardest; does not count
    scores = tf.Variable([[2.5, 1.5, 0.5, 0.0, -math.inf]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(hinge(positive, scores, m=3, margin=1.0))
    to_positive, to_scores = tape.gradient(loss, [positive, scores])
    assert loss.numpy() == np.float32(2.0 / 3.0)
    np.testing.assert_allclose(to_positive.numpy(), [-2 / 3], rtol=1e-6)
    np.testing.assert_allclose(to_scores.numpy(), [[1 / 3, 1 / 3, 0.0, 0.0, 0.0]], rtol=1e-6)


def test_choosing_the_hardest_has_no_gradient() -> None:
    scores = tf.Variable([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        columns, counts = select_hardest(scores, m=1)
        value = tf.reduce_sum(tf.cast(columns, tf.float32)) + tf.reduce_sum(
            tf.cast(counts, tf.float32)
        )
    assert tape.gradient(value, scores) is None


def test_a_negative_that_does_not_count_has_no_violation_whatever_its_score() -> None:
    violations = margin_violations(
        tf.constant([0.0]),
        tf.constant([[5.0, math.inf]]),
        counts=tf.constant([[False, False]]),
        margin=1.0,
    )
    assert violations.numpy().tolist() == [[0.0, 0.0]]
