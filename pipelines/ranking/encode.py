"""Encode users, moments and items by field, with the encoder of the towers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from pipelines.data.encode_table import ENCODE_BATCH
from pipelines.rank_config import RankCross
from pipelines.ranking.examples import Tables
from towers.errors import ConfigError
from towers.features.encoder import Encoder
from towers.features.packer import input_dtypes, pack
from towers.features.reading import Column
from towers.features.schema import Schema, Side
from towers.features.vocabulary import Vocabulary
from towers.ranking.bags import Entries, FieldBags
from towers.ranking.pairs import Fields, PairCross


def encode_tables(
    schema: Schema,
    vocabulary: Vocabulary,
    *,
    users: pd.DataFrame,
    items: pd.DataFrame,
    contexts: pd.DataFrame | None = None,
    crosses: Sequence[RankCross] = (),
) -> Tables:
    """Encode tables whose columns are features; histories, if any, are empty."""
    tables: dict[Side, pd.DataFrame] = {"user": users, "item": items}
    given = {
        side: {n: table[c] for n, c in schema.columns(side).items() if c in table}
        for side, table in tables.items()
    }
    moments: dict[str, Column] = {}
    if contexts is not None:
        moments = {one.name: contexts[one.column] for one in schema.context_features}
    encoders = {side: Encoder(schema, vocabulary, side=side) for side in tables}
    return Tables(
        fields=fields_of(schema, vocabulary, crosses=crosses, with_recall=False),
        n_rows=vocabulary.n_rows + sum(cross.buckets for cross in crosses),
        users=encode_columns(encoders["user"], schema, vocabulary, given["user"], side="user"),
        items=encode_columns(encoders["item"], schema, vocabulary, given["item"], side="item"),
        moments=encode_columns(encoders["user"], schema, vocabulary, moments, side="user"),
    )


def encode_columns(
    encoder: Encoder,
    schema: Schema,
    vocabulary: Vocabulary,
    columns: Mapping[str, Column],
    *,
    side: Side,
) -> FieldBags:
    """Encode raw columns by the names of the inputs; without any, one of whom nothing is known."""
    inputs = input_dtypes(schema, vocabulary, side=side)
    size = len(next(iter(columns.values()))) if columns else 1
    n_fields, parts = len(schema.tower_features(side)), []
    for start in range(0, size, ENCODE_BATCH):
        chunk = {name: column[start : start + ENCODE_BATCH] for name, column in columns.items()}
        n = min(ENCODE_BATCH, size - start)
        entries = Entries.of_features(encoder.fields(pack(chunk, inputs=inputs, size=n)))
        parts.append(FieldBags.of(entries, n=n, n_fields=n_fields))
    return FieldBags.joined(parts)


def fields_of(
    schema: Schema, vocabulary: Vocabulary, *, crosses: Sequence[RankCross], with_recall: bool
) -> Fields:
    """Say which fields a ranker has; rows of crosses and of recall follow those of the vocabulary.

    Raises:
        ConfigError: a cross names a feature that there is not.
    """
    query = tuple(feature.name for feature in schema.tower_features("user"))
    item = tuple(feature.name for feature in schema.features("item"))
    first, pairs = vocabulary.n_rows, []
    for cross in crosses:
        for name, known, what in ((cross.user, query, "user"), (cross.item, item, "item")):
            if name not in known:
                raise ConfigError(
                    f"rank.crosses.{what}: expected one of {list(known)}, received {name!r}; "
                    "correct it, or add such a feature"
                )
        pairs.append(
            PairCross(
                name=f"{cross.user} x {cross.item}",
                query_field=query.index(cross.user),
                item_field=item.index(cross.item),
                first_row=first,
                buckets=cross.buckets,
            )
        )
        first += cross.buckets
    return Fields(
        query=query, item=item, crosses=tuple(pairs), recall_row=first if with_recall else None
    )
