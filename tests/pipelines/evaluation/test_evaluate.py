from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipelines.config import EvaluationConfig
from pipelines.evaluation.evaluate import Evaluation, evaluate, popularity_scorer
from pipelines.evaluation.segments import popularity_deciles
from tests.examples import examples
from towers.errors import ConfigError, DataError, TrainingError

Scores = NDArray[np.float32]
Table = NDArray[np.bool_]

CONFIG = EvaluationConfig(k=(1, 3, 50), metric="recall@3", cold_item_interactions=2)


def table_scorer(scores: Scores) -> Callable[[NDArray[np.int64]], Scores]:
    return lambda user_rows: scores[user_rows]


def run(scores: Scores, train: Table, test: Table, **options: Any) -> Evaluation:
    return evaluate(
        table_scorer(scores),
        train=scipy.sparse.csr_array(train),
        test=scipy.sparse.csr_array(test),
        **{"config": CONFIG, **options},
    )


def recommended(scores: Scores, seen: Table) -> list[int]:
    items = [item for item in range(len(scores)) if not seen[item]]
    return sorted(items, key=lambda item: (-scores[item], item))


def naive_figures(
    scores: Scores,
    train: Table,
    test: Table,
    users: list[int],
    items: list[int],
    k: int,
    *,
    hidden: Table,
) -> dict[str, float]:
    """The definitions, one user at a time; what is `hidden` is in no list."""
    totals = dict.fromkeys(("recall", "ndcg", "hit_rate", "mrr", "popularity"), 0.0)
    covered: set[int] = set()
    for user in users:
        wanted = {item for item in items if test[user, item]}
        listed = recommended(scores[user], hidden[user])[:k]
        ranks = [rank for rank, item in enumerate(listed, start=1) if item in wanted]
        ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, len(wanted)) + 1))
        totals["recall"] += len(ranks) / len(wanted)
        totals["ndcg"] += sum(1 / math.log2(1 + rank) for rank in ranks) / ideal
        totals["hit_rate"] += bool(ranks)
        totals["mrr"] += 1 / ranks[0] if ranks else 0.0
        totals["popularity"] += sum(train[:, listed].sum(axis=0)) / max(len(listed), 1)
        covered |= set(listed) & set(items)
    figures = {f"{name}@{k}": total / len(users) for name, total in totals.items()}
    return figures | {f"coverage@{k}": len(covered) / len(items)}


@st.composite
def problems(draw: st.DrawFn) -> tuple[Scores, Table, Table]:
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 9)))
    scores = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([-1.0, 0.0, 0.5, 3.0])))
    train, test = draw(hnp.arrays(np.bool_, shape)), draw(hnp.arrays(np.bool_, shape))
    return scores, train, test & ~train


@given(problem=problems())
def test_only_the_rows_of_users_with_test_items_are_looked_at(
    problem: tuple[Scores, Table, Table],
) -> None:
    scores, train, test = problem
    whole = run(scores, train, test)
    rows = train & test.any(axis=1, keepdims=True)
    assert run(scores, rows, test, item_counts=train.sum(axis=0)) == whole


@given(problem=problems(), batch_size=st.integers(1, 8))
def test_agrees_with_the_definitions_one_user_at_a_time(
    problem: tuple[Scores, Table, Table], batch_size: int
) -> None:
    scores, train, test = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.evaluation.evaluate.BATCH", batch_size)
        segments = run(scores, train, test).segments
    n_users, n_items = test.shape
    warm_user, warm_item = train.any(axis=1), train.sum(axis=0) >= 2
    everybody, everything = np.ones(n_users, bool), np.ones(n_items, bool)
    members = {
        "all": (everybody, everything),
        "warm_users": (warm_user, everything),
        "cold_users": (~warm_user, everything),
        "warm_items": (everybody, warm_item),
        "cold_items": (everybody, ~warm_item),
        "new_items": (everybody, ~train.any(axis=0)),
        "users_with_1_to_4": (warm_user & (train.sum(axis=1) <= 4), everything),
        "users_with_5_to_19": (train.sum(axis=1) >= 5, everything),
        "users_with_20_or_more": (~everybody, everything),
    }
    members |= {f"{name}_alone": members[name] for name in ("cold_items", "new_items")}
    assert set(segments) == set(members)
    for name, (of_users, of_items) in members.items():
        unlisted = ~of_items if name.endswith("_alone") else ~everything
        found = segments[name]
        users = np.flatnonzero(of_users & (test & of_items).any(axis=1)).tolist()
        items = np.flatnonzero(of_items).tolist()
        assert (found.n_users, found.n_items) == (len(users), len(items))
        assert found.n_positives == test[np.ix_(users, items)].sum()
        expected: dict[str, float] = {}
        for k in CONFIG.k if users else ():
            hidden = train | unlisted
            expected |= naive_figures(scores, train, test, users, items, k, hidden=hidden)
        assert found.figures == pytest.approx(expected)


@given(problem=problems())
def test_decile_recall_is_that_of_its_own_test_items(
    problem: tuple[Scores, Table, Table],
) -> None:
    scores, train, test = problem
    evaluation = run(scores, train, test)
    assert evaluation.decile_k == 3
    of_item = popularity_deciles(train.sum(axis=0))
    for number, decile in enumerate(evaluation.deciles):
        items = np.flatnonzero(of_item == number).tolist()
        users = np.flatnonzero(test[:, items].any(axis=1)).tolist()
        assert (decile.n_items, decile.n_users) == (len(items), len(users))
        if users:
            expected = naive_figures(scores, train, test, users, items, 3, hidden=train)["recall@3"]
            assert decile.recall == pytest.approx(expected)
        else:
            assert decile.recall is None


def test_train_items_are_masked_even_where_too_few_remain() -> None:
    scores = np.array([[9, 8, 7]], dtype=np.float32)
    train, test = np.array([[True, True, False]]), np.array([[False, False, True]])
    evaluation = run(scores, train, test)
    assert evaluation.metric("mrr@1") == 1.0
    assert evaluation.metric("coverage@50") == pytest.approx(1 / 3)
    assert evaluation.metric("popularity@50") == 0.0


def test_a_test_item_that_is_also_a_train_item_counts_as_missed() -> None:
    both = np.array([[True, False]])
    evaluation = run(np.ones((1, 2), np.float32), both, np.array([[True, True]]))
    assert evaluation.metric("recall@50") == 0.5


def test_nonzero_means_positive_once_and_the_callers_matrices_stay_as_they_are() -> None:
    entries = np.array([2.0, 0.0, 5.0, 3.0, 1.0])
    items, starts = np.array([2, 1, 0, 2, 0]), np.array([0, 4, 5])
    test = scipy.sparse.csr_array((entries, items, starts), shape=(2, 3))
    train = scipy.sparse.csr_array((2, 3))
    evaluation = evaluate(
        table_scorer(np.zeros((2, 3), np.float32)), train=train, test=test, config=CONFIG
    )
    assert evaluation.segments["all"].n_positives == 3
    assert test.data.tolist() == [2.0, 0.0, 5.0, 3.0, 1.0]
    assert test.indices.tolist() == [2, 1, 0, 2, 0]


def test_popularity_scorer_keeps_counts_apart_that_float32_would_not() -> None:
    popularity = np.array([2**24, 2**24 + 1, 3, 2**24])
    scores = popularity_scorer(popularity)(np.array([5, 6]))
    assert scores.tolist() == [[1.0, 2.0, 0.0, 1.0]] * 2
    assert scores.dtype == np.float32


def test_popularity_baseline_recommends_the_most_popular_items() -> None:
    train = np.array([[0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    test = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], bool)
    evaluation = evaluate(
        popularity_scorer(train.sum(axis=0)),
        train=scipy.sparse.csr_array(train),
        test=scipy.sparse.csr_array(test),
        config=CONFIG,
    )
    assert evaluation.metric("recall@1", "warm_users") == 1.0
    assert evaluation.metric("mrr@3", "cold_users") == pytest.approx(1 / 3)  # tie with item row 2


def test_metric_names_the_known_ones() -> None:
    evaluation = run(np.ones((1, 2), np.float32), np.zeros((1, 2), bool), np.eye(1, 2) > 0)
    assert evaluation.metric("recall@1") == 1.0
    with pytest.raises(ConfigError, match=r"recall@50.*received 'recall@7'"):
        evaluation.metric("recall@7")
    with pytest.raises(ConfigError, match=r"cold_items.*received 'new'"):
        evaluation.metric("recall@1", "new")
    with pytest.raises(ConfigError, match="'warm_users': expected users with test items"):
        evaluation.metric("recall@1", "warm_users")


def test_without_test_items_there_are_no_figures_and_the_scorer_is_not_asked() -> None:
    def refuse(user_rows: NDArray[np.int64]) -> Scores:
        raise NotImplementedError

    empty = scipy.sparse.csr_array((3, 4))
    evaluation = evaluate(refuse, train=empty, test=empty, config=CONFIG)
    assert all(segment.figures == {} for segment in evaluation.segments.values())
    assert all(decile.recall is None for decile in evaluation.deciles)


@given(problem=problems())
@settings(max_examples=examples(20))
def test_to_dict_survives_json(problem: tuple[Scores, Table, Table]) -> None:
    plain = run(*problem).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert set(plain) == {"segments", "deciles", "decile_k"}


def test_advance_counts_the_users_with_test_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.evaluation.evaluate.BATCH", 2)
    test = np.array([[1, 0], [0, 0], [0, 1], [1, 1]], bool)
    steps: list[int] = []
    run(np.zeros((4, 2), np.float32), ~test & False, test, advance=steps.append)
    assert steps == [2, 1]


def test_a_large_corpus_is_scored_for_fewer_users_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.evaluation.evaluate.LARGEST_BLOCK", 4)
    steps: list[int] = []
    run(np.zeros((3, 2), np.float32), np.eye(3, 2) > 1, np.ones((3, 2), bool), advance=steps.append)
    assert steps == [2, 1]


def test_refuses_what_it_cannot_measure() -> None:
    train, test = np.zeros((2, 3), bool), np.ones((2, 3), bool)
    scores = np.zeros((2, 3), np.float32)
    with pytest.raises(ConfigError, match=r"recall@50.*received 'recall@20'.*evaluation.k"):
        run(scores, train, test, config=EvaluationConfig(k=(50,)))
    with pytest.raises(DataError, match=r"\(2, 2\) and \(2, 3\)"):
        run(scores, train[:, :2], test)
    with pytest.raises(TrainingError, match=r"shape \(2, 3\).*received \(2, 2\)"):
        run(scores[:, :2], train, test)
    with pytest.raises(TrainingError, match="received nan"):
        run(scores * np.float32(np.nan), train, test)
