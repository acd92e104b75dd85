"""Sample answers: what some users would be shown, and why, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.results import Reason, Recommended, SampleAnswer
from serving.retrieval.catalogue import Catalogue
from serving.retrieval.explanation.explain import Part
from serving.retrieval.explanation.feature_names import FeatureName
from serving.retrieval.retriever import Retriever

SHOWN_PAST = 5
"""The items of a user's past that are named."""

N_REASONS = 3
"""The parts of a score that are named."""

MANY = 0.5
"""A column of texts looks like a title where at least this share of them differ."""


def sample_answers(
    retriever: Retriever, *, n_users: int = 4, k: int = 3, seed: int = 0
) -> list[SampleAnswer]:
    """Draw users, one of them without a past if there is one, and explain their best items.

    Args:
        retriever: the version.
        n_users: how many users, at most.
        k: how many items of each.
        seed: decides the draw.

    Raises:
        BundleError: what the version keeps of a user or an item does not give its vector.
    """
    users, items = (retriever.catalogue(side) for side in ("user", "item"))
    counts = np.diff(retriever.parts.seen.matrix.indptr)
    rng = np.random.default_rng(seed)
    warm, cold = (rng.permutation(np.flatnonzero(has)) for has in (counts > 0, counts == 0))
    rows = [*warm[: n_users - min(len(cold), 1)], *cold[:1]]
    column = title_column(items)
    answers = []
    for row in rows:
        (id,) = users.ids(np.array([row])).tolist()
        past = retriever.parts.seen.of("user", int(row))
        answers.append(
            SampleAnswer(
                user=id,
                past=_names(items, past[-SHOWN_PAST:], column),
                n_past=len(past),
                items=_explained(retriever, id, k=k, column=column),
            )
        )
    return answers


def title_column(items: Catalogue) -> str | None:
    """The first column of texts that mostly differ, which is likely a title; None without one."""
    table = items.published.table
    for name in items.columns[1:]:
        kind = table.schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            continue
        if pc.count_distinct(table[name]).as_py() >= MANY * max(len(table), 1):
            return name
    return None


def _explained(
    retriever: Retriever, user: int | str, *, k: int, column: str | None
) -> list[Recommended]:
    """The best items of a user, with the largest parts of their scores."""
    items = retriever.catalogue("item")
    hits = retriever.retrieve("u2i", id=user, k=k, exclude_seen=True)
    found = []
    for id, score in zip(hits["id"].tolist(), hits["score"].tolist(), strict=True):
        parts = retriever.explain("u2i", source={"id": user}, target={"id": id}).parts(N_REASONS)
        named = [name for part in parts for name in (part.source, part.target, part.other) if name]
        labels = [name.label for name in named if name.label is not None]
        titles = _titles(items, labels, column)
        (title,) = _names(items, items.rows([id]), column)
        found.append(
            Recommended(
                id=id,
                title="" if column is None else title,
                score=score,
                reasons=[Reason(text=_in_words(part, titles), value=part.value) for part in parts],
            )
        )
    return found


def _titles(items: Catalogue, labels: list[Any], column: str | None) -> Mapping[Any, str]:
    """The titles of those labels that are ids of items."""
    fitting = [label for label in labels if isinstance(label, int) == (items.id_dtype == np.int64)]
    rows = items.rows(fitting)
    known = [(label, row) for label, row in zip(fitting, rows.tolist(), strict=True) if row >= 0]
    names = _names(items, np.array([row for _, row in known], dtype=np.int64), column)
    return dict(zip([label for label, _ in known], names, strict=True))


def _names(items: Catalogue, rows: Any, column: str | None) -> list[str]:
    """Items by their title, or by their id."""
    shown = items.show(rows, [column] if column else [])
    return [str(value) for value in shown[column or items.id_column]]


def _in_words(part: Part[FeatureName], titles: Mapping[Any, str]) -> str:
    """Name the features of a part."""

    def name(feature: FeatureName) -> str:
        if feature.label in titles:
            return f"{feature.field}: {titles[feature.label]}"
        return str(feature)

    features = [name(one) for one in (part.source, part.target, part.other) if one is not None]
    return " with ".join(features) if len(features) > 1 else f"{features[0]}, by itself"
