"""Choose windows of time and the weight of the items' trend, on what was held out by time.

The trend is counted up to the end of training, so that training must not see it: it would be told
of its own future. It is added to a finished model, as the first-order term that is best for the
validation part, which comes after.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.dataset import Dataset
from pipelines.data.recent import count_recent, window_lengths
from pipelines.data.store_blocks import StoredInteractions
from pipelines.evaluation.evaluate import Scorer, popularity_scorer, user_figures
from pipelines.evaluation.left_out import LeftOut
from pipelines.progress import Reporter
from pipelines.training.decided import ChosenTrend
from pipelines.training.fit import Fitted
from towers.features.schema import Schema, Side
from towers.features.vocabulary import Scalar, Vocabulary
from towers.layers import FeatureTable


def choose_window(
    stored: StoredInteractions,
    *,
    left_out: LeftOut,
    validation: sparse.csr_array,
    metric: str,
) -> float | None:
    """Choose the window whose most popular items are the best for the validation part.

    Args:
        stored: the training part, with times.
        left_out: what is not recommended to the validation users.
        validation: what comes after, [n_users, n_items].
        metric: which decides, such as `recall@20`.

    Returns:
        Its length; None where there are too few interactions for any.
    """
    lengths = window_lengths(stored)
    _, counts = count_recent(stored, lengths)
    found = [
        _measure(popularity_scorer(row), left_out=left_out, test=validation, metric=metric)
        for row in counts
    ]
    return lengths[int(np.argmax(found))] if lengths else None


def add_trend(
    fitted: Fitted, dataset: Dataset, *, trend: ChosenTrend | None, reporter: Reporter
) -> Fitted:
    """Give the trend of items its weight in the model, in place, and in a checkpoint.

    Without a chosen trend it counts for nothing. Nothing is done where items have none.
    """
    row = trend_row(dataset.schema, dataset.vocabulary)
    if row is None:
        return fitted
    if trend is None:
        reporter.say(
            "  the trend of items counts for nothing: without a validation part by time, nothing "
            "says what it is worth"
        )
    else:
        reporter.say(
            f"  trend of items over {trend.window:g} (the unit of times): weight {trend.weight:.3g}"
        )
    set_weight(fitted.model.features, row, weight=0.0 if trend is None else trend.weight)
    return fitted.kept(trend=trend)


def set_weight(features: FeatureTable, row: int, *, weight: float) -> None:
    """Give a row of the feature table a first-order weight, and no vector."""
    features.w.scatter_update(tf.IndexedSlices([weight], [row]))
    features.v.scatter_update(tf.IndexedSlices(tf.zeros([1, features.v.shape[1]]), [row]))


def trend_row(schema: Schema, vocabulary: Vocabulary) -> int | None:
    """The row of the trend in the feature table; None where items have none."""
    if schema.trend is None:
        return None
    space = vocabulary.spaces[f"item.{schema.trend.name}"]
    return space.row if isinstance(space, Scalar) else None


def with_trend(
    dataset: Dataset, tables: Mapping[Side, pd.DataFrame], values: NDArray[np.float32]
) -> tuple[Dataset, dict[Side, pd.DataFrame]]:
    """Add the trend [n_items] to the bags and to the table of items; NaN is none.

    Nothing is added where items have no trend.
    """
    schema, row = dataset.schema, trend_row(dataset.schema, dataset.vocabulary)
    found: dict[Side, pd.DataFrame] = dict(tables)
    if row is None or schema.trend is None:
        return dataset, found
    found["item"] = found["item"].assign(**{schema.trend.column: values})
    given = np.flatnonzero(np.isfinite(values))
    entries = (values[given], (given, np.full(len(given), row)))
    column = sparse.csr_array(entries, shape=dataset.item_bags.shape)
    bags = sparse.csr_array(dataset.item_bags + column)
    return dataclasses.replace(dataset, item_bags=bags), found


def _measure(scorer: Scorer, *, left_out: LeftOut, test: sparse.csr_array, metric: str) -> float:
    """The mean of a metric over users."""
    return float(user_figures(scorer, test=test, left_out=left_out, metric=metric).mean())
