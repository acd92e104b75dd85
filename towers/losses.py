"""The pairwise hinge loss over the hardest of a query's negatives."""

from __future__ import annotations

import tensorflow as tf


def select_hardest(scores: tf.Tensor, *, m: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the `m` highest scores of each query; no gradient flows.

    Args:
        scores: [batch, n] float, -inf where a negative does not count.
        m: how many; fewer where n is smaller.

    Returns:
        their columns [batch, min(m, n)] int32, and whether each counts, bool of that shape.
    """
    values, columns = tf.math.top_k(tf.stop_gradient(scores), tf.minimum(m, tf.shape(scores)[1]))
    return columns, tf.math.is_finite(values)


def margin_violations(
    positive: tf.Tensor, negative: tf.Tensor, *, counts: tf.Tensor, margin: float
) -> tf.Tensor:
    """Compute max(0, margin - s+ + s-) of each pair; [n_positives, m], 0 where it does not count.

    Args:
        positive: scores [n_positives].
        negative: scores [n_positives, m].
        counts: bool [n_positives, m], which of the negatives count.
        margin: how far a positive must lie above a negative.
    """
    violation = tf.nn.relu(margin - positive[:, tf.newaxis] + negative)
    return tf.where(counts, violation, tf.zeros_like(violation))


def mean_over(values: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Average each row's values that count; [n_positives], 0 for a row where none does."""
    n = tf.reduce_sum(tf.cast(counts, values.dtype), axis=1)
    return tf.math.divide_no_nan(tf.reduce_sum(values, axis=1), n)
