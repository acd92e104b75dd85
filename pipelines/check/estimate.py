"""Estimate the memory and the time of a run from its sizes, and from constants that were measured.

`docs/first-hour.md` says how they were measured. Time is that of one core, and proportional to
queries and to the length of vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS
from pipelines.data.prepare import Prepared
from towers.features.kinds import Categorical, MultiValued, Numeric, Vector
from towers.features.lists import cut_lists
from towers.features.reading import read_tokens, token_kind
from towers.features.schema import SIDES, Schema, Side

BASE_MB = 1_100.0
"""Python, TensorFlow and what it holds, without any table."""
TABLE_COPIES = 4
"""The feature table, the two moments of its optimizer, and the gradient of what a step touches."""
VECTOR_COPIES = 3
"""The vectors of users and items, while they are evaluated, indexed and written."""
BYTES_PER_INTERACTION = 60.0
US_PER_QUERY = 160.0
"""An epoch, for each query (a user without one of its folds) and 128 dimensions."""
US_PER_VECTOR = 60.0
"""Evaluation, export and indexes, for each user and item."""
ROUND_S = 30.0
"""A round, whatever its size: graphs, checks, and six SavedModels that are published."""
EPOCH_S = 0.7
"""An epoch has at least a hundred steps, and takes at least this."""
DIMENSIONS = 128
FITS = 2
"""A round is fitted twice: to choose the epochs, and then on all."""


def estimate(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """Estimate the size of the model, the memory and the time of a run.

    The time is that of all epochs on one core; a run that stops early takes less, and so does one
    on several cores.
    """
    dim, folds = config.model.embedding_dim, config.training.folds
    n_rows = sum(table_rows(config.schema, prepared, side) for side in SIDES)
    n_vectors = len(prepared.users) + len(prepared.items)
    n_queries = int(np.minimum(prepared.stored("train", "validation").user_counts, folds).sum())
    n_all = sum(prepared.counts[part] for part in PARTS)
    training = config.training
    fits = FITS if training.refit_on_all else 1
    epochs = training.epochs * fits * (training.rounds + 1)
    table_mb = n_rows * (dim + 1) * 4 / 2**20
    vectors_mb = n_vectors * (dim + 1) * 4 / 2**20
    epoch_s = max(n_queries * US_PER_QUERY * 1e-6 * dim / DIMENSIONS, EPOCH_S)
    rest_s = (ROUND_S + n_vectors * US_PER_VECTOR * 1e-6) * (training.rounds + 1)
    return {
        "rows of the feature table": int(n_rows),
        "parameters": int(n_rows * (dim + 1)),
        "memory_mb": round(
            BASE_MB
            + TABLE_COPIES * table_mb
            + VECTOR_COPIES * vectors_mb
            + n_all * BYTES_PER_INTERACTION / 2**20
        ),
        "epoch_s": round(epoch_s, 1),
        "epochs": int(epochs),
        "seconds": round(epochs * epoch_s + rest_s),
    }


def table_rows(schema: Schema, prepared: Prepared, side: Side) -> int:
    """About how many rows of the feature table a side's features have."""
    table = prepared.tables[side]
    total = 0
    for feature in schema.tower_features(side):
        if isinstance(feature, (Categorical, MultiValued)) and feature.hash_buckets is not None:
            total += feature.hash_buckets
        elif isinstance(feature, (Categorical, MultiValued)):
            given = table if feature.column in table else prepared.contexts
            total += 1 + (0 if given is None else _n_tokens(feature, given[feature.column]))
        elif isinstance(feature, Numeric):
            total += feature.buckets or 1
        elif isinstance(feature, Vector):
            total += feature.length or 0
    return total


def _n_tokens(feature: Categorical | MultiValued, column: Any) -> int:
    """How many tokens of a column come often enough."""
    values = column
    if isinstance(feature, MultiValued):
        values = cut_lists(column, feature.separator).values
    read = read_tokens(values, token_kind(values))
    _, counts = np.unique(read.values[~read.missing].astype(str), return_counts=True)
    return int((counts >= feature.min_count).sum())
