"""Encode tables of users, items and moments through the encoder's graph, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from towers.features.encoder import Encoder
from towers.features.kinds import Vector
from towers.features.packer import Packed, input_dtypes, pack
from towers.features.schema import Schema, Side
from towers.features.vocabulary import Vocabulary

ENCODE_BATCH = 8192
"""Rows that are encoded at once."""


def encode_table(
    schema: Schema, vocabulary: Vocabulary, *, side: Side, table: pd.DataFrame
) -> sparse.csr_array:
    """Encode a table through the encoder's graph; bags [n, n_rows] float32, histories empty.

    A trend is no column of it.
    """
    vectors = _vector_columns(schema, side)
    columns = {name: column for name, column in schema.columns(side).items() if name not in vectors}
    return _encode(schema, vocabulary, side=side, table=table, columns=columns)


def encode_vectors(
    schema: Schema, vocabulary: Vocabulary, *, side: Side, table: pd.DataFrame
) -> NDArray[np.float32]:
    """Encode the vectors of a table through the encoder's graph; [n, m], histories empty."""
    rows, columns = vocabulary.dense_rows(side), _vector_columns(schema, side)
    found = np.zeros((len(table), len(rows)), dtype=np.float32)
    if not rows:
        return found
    encoder, start = Encoder(schema, vocabulary, side=side), 0
    for packed in _packed(schema, vocabulary, side=side, table=table, columns=columns):
        dense = encoder.dense(packed)
        if dense is not None:  # of users, past items' come behind their own
            found[start : start + ENCODE_BATCH] = dense.x.numpy()[:, : len(rows)]
        start += ENCODE_BATCH
    return found


def encode_contexts(
    schema: Schema, vocabulary: Vocabulary, contexts: pd.DataFrame
) -> sparse.csr_array:
    """Encode the contexts of moments as a user of whom nothing else is known."""
    columns = {feature.name: feature.column for feature in schema.context_features}
    return _encode(schema, vocabulary, side="user", table=contexts, columns=columns)


def _vector_columns(schema: Schema, side: Side) -> dict[str, str]:
    """The columns of vectors by their names."""
    return {f.name: f.column for f in schema.features(side) if isinstance(f, Vector)}


def _encode(
    schema: Schema,
    vocabulary: Vocabulary,
    *,
    side: Side,
    table: pd.DataFrame,
    columns: Mapping[str, str],
) -> sparse.csr_array:
    """Encode some columns of a table; whether nothing is known of a user, histories decide."""
    encoder = Encoder(schema, vocabulary, side=side)
    parts = []
    for packed in _packed(schema, vocabulary, side=side, table=table, columns=columns):
        x, *_ = encoder.without_histories(packed)
        query, row = x.indices.numpy().T
        parts.append(sparse.csr_array((x.values.numpy(), (query, row)), shape=x.shape))
    return sparse.vstack(parts, format="csr")


def _packed(
    schema: Schema,
    vocabulary: Vocabulary,
    *,
    side: Side,
    table: pd.DataFrame,
    columns: Mapping[str, str],
) -> Iterator[Packed]:
    """Pack some columns of a table, by their names, a batch at a time."""
    inputs = input_dtypes(schema, vocabulary, side=side)
    for start in range(0, len(table), ENCODE_BATCH):
        chunk = table.iloc[start : start + ENCODE_BATCH]
        raw = {name: chunk[column] for name, column in columns.items() if column in chunk}
        yield pack(raw, inputs=inputs, size=len(chunk))
