"""Contexts: the moment of each interaction as a feature of the query."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.config import ModelConfig, RunConfig, TrainingConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.engines import Plan
from pipelines.data.prepare import prepare
from pipelines.training.embed import embed, embed_users
from pipelines.training.fit import Fit, validation_queries
from pipelines.training.folds import FoldBatches
from pipelines.training.initialize import initialize
from pipelines.training.measure_context import AskedAt
from towers.errors import ConfigError, DataError
from towers.features.vocabulary import rows_of
from towers.layers import FeatureTable
from towers.two_tower import TwoTower
from towers.typed import parse

N_USERS, N_ITEMS = 8, 12


def config(column: str = "hour", *, kind: str = "categorical") -> RunConfig:
    return parse(
        RunConfig,
        {
            "data": {
                "interactions": {"timestamp": "at"},
                "users": {"id": "user_id"},
                "items": {"id": "item_id"},
            },
            "user": {"features": [{"kind": "history"}, {"kind": "numeric", "column": "number"}]},
            "item": {
                "features": [
                    {"kind": "categorical", "column": "item_id"},
                    {"kind": "numeric", "column": "number"},
                ]
            },
            "context": {
                "features": [
                    {"kind": kind, "column": column},
                    {"kind": "numeric", "column": "warmth", "scale": "none"},
                ]
            },
            "split": {"test_fraction": 0.0, "validation_fraction": 0.0},
        },
        where="test",
    )


def tables() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    pairs = np.argwhere(rng.random((N_USERS, N_ITEMS)) < 0.6)
    clicks = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    return {
        "interactions": clicks.assign(
            at=rng.permutation(len(pairs)).astype(float),
            hour=np.array([7, 12, None], dtype=object)[rng.integers(0, 3, len(pairs))],
            warmth=np.array([1.0, 2.5, np.nan])[rng.integers(0, 3, len(pairs))],
        ),
        "users": pd.DataFrame(
            {"user_id": range(N_USERS), "number": np.arange(1.0, N_USERS + 1)}
        ).assign(age=30),
        "items": pd.DataFrame({"item_id": range(N_ITEMS), "number": np.arange(1.0, N_ITEMS + 1)}),
    }


TABLES = tables()


@pytest.fixture(params=[None, 9])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    """In one block, and in several on disk."""
    given = config()
    plan = Plan(engine="disk", rows=request.param) if request.param else Plan()
    prepared = prepare(given, tmp_path / "prepared", frames=TABLES, plan=plan)
    assert (prepared.interactions("train").n_blocks > 1) == bool(request.param)
    return assemble_dataset(
        given.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train"),
        contexts=prepared.contexts,
    )


def batches(made: Dataset, dropout: float) -> FoldBatches:
    raw = {
        "folds": 3,
        "context_dropout": dropout,
        "history_dropout": 0.0,
        "id_dropout": 0.0,
        "batch_size": 5,
        "negatives": {"uniform": 4, "mined": 0},
    }
    return FoldBatches.build(made, parse(TrainingConfig, raw, where="test"), mined=None, seed=2)


def contexts_of(batch: Any, made: Dataset) -> list[tuple[int | None, float | None]]:
    """What the queries of a batch say of their moment."""
    bags = np.zeros((int(batch["n_queries"]), made.vocabulary.n_rows), dtype=np.float32)
    at = batch["user_indices"]
    bags[at[:, 0], batch["rows"][at[:, 1]]] = batch["user_values"]
    hours, warmth = made.vocabulary.tokens("user.hour"), made.vocabulary.spaces["user.warmth"]
    found = []
    for bag in bags:
        (given,) = np.nonzero(bag[hours.rows])
        number = float(bag[warmth.row])  # type: ignore[union-attr]
        found.append((int(hours.tokens[given[0]]) if len(given) else None, number or None))
    return found


def test_a_query_is_asked_at_the_moment_of_its_positives(made: Dataset) -> None:
    rows = TABLES["interactions"].set_index(["user_id", "item_id"])
    bags = made.item_bags.toarray()
    items = {bag.tobytes(): row for row, bag in enumerate(bags)}
    trained: Counter[tuple[Any, ...]] = Counter()
    for batch in batches(made, 0.0).epoch(0):
        dense = np.zeros((len(batch["item_popularity"]), made.vocabulary.n_rows), dtype=np.float32)
        at = batch["item_indices"]
        dense[at[:, 0], batch["rows"][at[:, 1]]] = batch["item_values"]
        moments = contexts_of(batch, made)
        for query, item in zip(batch["positive_query"], batch["positive_item"], strict=True):
            trained[items[dense[item].tobytes()], *moments[query]] += 1
    expected: Counter[tuple[Any, ...]] = Counter()
    for (_, item), row in rows.iterrows():
        hour = None if row["hour"] is None else int(row["hour"])
        expected[item, hour, None if np.isnan(row["warmth"]) else row["warmth"]] += 1
    assert trained == expected


def test_some_queries_are_asked_without_a_context(made: Dataset) -> None:
    for dropout, least, most in ((0.999, 0.0, 0.05), (0.5, 0.2, 0.9)):
        given = [
            moment != (None, None)
            for number in range(8)
            for batch in batches(made, dropout).epoch(number)
            for moment in contexts_of(batch, made)
        ]
        assert least <= np.mean(given) <= most
    n_positives = sum(len(batch["positive_query"]) for batch in batches(made, 0.5).epoch(0))
    assert n_positives == len(TABLES["interactions"])


def test_users_are_stored_without_a_context(made: Dataset) -> None:
    rows = [*made.vocabulary.tokens("user.hour").rows, made.vocabulary.tokens("user.hour").oov_row]
    for number in range(made.interactions.n_blocks):
        bags = made.query_bags(made.interactions.block(number))
        assert not bags[:, rows].nnz
    assert made.context_bags is not None
    assert made.context_bags.shape[0] <= 9


def test_the_same_at_another_moment_repeats_nothing(tmp_path: Path) -> None:
    given = config()
    interactions = dataclasses.replace(given.data.interactions, timestamp=None)
    given = dataclasses.replace(
        given, data=dataclasses.replace(given.data, interactions=interactions)
    )
    rows = TABLES["interactions"].drop(columns="at").assign(hour=7, warmth=1.0)
    twice = pd.concat([rows, rows.assign(hour=12)], ignore_index=True)
    prepared = prepare(given, tmp_path / "again", frames=TABLES | {"interactions": twice})
    assert prepared.counts["train"] == len(rows)
    assert f"  {len(rows)} repeats of a user and an item, merged into the earliest" in (
        prepared.lines
    )
    with pytest.raises(DataError, match="duplicate interaction"):
        again = pd.concat([twice, rows.head(1)], ignore_index=True)
        prepare(given, tmp_path / "more", frames=TABLES | {"interactions": again})


def test_a_context_says_nothing_before_it_is_learned(made: Dataset) -> None:
    for init in ("spectral", "normal"):
        given = dataclasses.replace(config(), model=ModelConfig(embedding_dim=4, init=init))
        features = FeatureTable(made.vocabulary.n_rows, embedding_dim=4, init_scale=1.0, seed=0)
        initialize(features, made, config=given)
        v = features.v.numpy()
        rows = [
            row
            for name in ("hour", "warmth")
            for row in rows_of(made.vocabulary.spaces[f"user.{name}"])
        ]
        assert not v[rows].any()
        assert v.any(axis=1).sum() > N_ITEMS - 2


def test_a_context_that_is_a_column_of_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'age', which is one of the users; move the feature"):
        prepare(config("age"), tmp_path / "prepared", frames=TABLES)
    with pytest.raises(ConfigError, match=r"interactions.*\['minute'\]"):
        prepare(config("minute"), tmp_path / "prepared", frames=TABLES)
    with pytest.raises(
        ConfigError, match=r"categorical, numeric or cross, received \['multi_valued'"
    ):
        config(kind="multi_valued")


def test_validation_asks_at_the_moments_of_the_positives(made: Dataset, tmp_path: Path) -> None:
    """Here of those of the training part, of which each query finds what it wants."""
    positives = every_positive(made.interactions)
    users = np.array([1, 4, 6])
    moments = AskedAt.of(made.interactions, users=users, limit=1000, seed=0)
    assert set(moments.users) == set(users)
    assert moments.wanted.nnz == np.diff(positives.indptr)[users].sum()
    assert len({*zip(moments.users, moments.moments, strict=True)}) == len(moments.users)
    few = AskedAt.of(made.interactions, users=users, limit=4, seed=0)
    assert len(few.users) == len(few.moments) == few.wanted.shape[0] == 4

    features = FeatureTable(made.vocabulary.n_rows, embedding_dim=4, init_scale=0.5, seed=1)
    model = TwoTower(features, margin=0.5, hardest=5, l2=0.0)
    validation = made.interactions.of(users)
    job = Fit(
        dataset=made,
        config=config(),
        epochs=0,
        mined=None,
        validation=validation,
        moments=moments,
        directory=tmp_path,
        logs=tmp_path,
    )
    asked = validation_queries(model, job, validation=validation)
    scores = asked.scorer(np.arange(len(moments.users)))
    vectors = embed(model, made)
    assert made.context_bags is not None
    contexts = embed_users(model, made.context_bags)
    for query, (user, moment) in enumerate(zip(moments.users, moments.moments, strict=True)):
        own = vectors["user"][user, 1:] + contexts[moment, 1:]
        expected = vectors["item"][:, 0] + vectors["item"][:, 1:] @ own
        np.testing.assert_allclose(scores[query], expected, rtol=1e-4, atol=1e-5)
    assert (asked.known.toarray() == positives.toarray()[moments.users]).all()
