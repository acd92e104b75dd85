from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.publishing import build_shell as building
from pipelines.publishing.build_index import build_index
from pipelines.publishing.draw_queries import Queries
from pipelines.publishing.measure_recall import exact_scores, measure_recall
from serving.search.index import ExactIndex, Found
from serving.search.live_shells import open_shells
from serving.search.scann_index import ScannIndex, ScannSettings, Storage, choose_settings
from serving.search.shells import Shells
from towers.errors import RecallGateError

RANDOM = np.random.default_rng(9)
STORAGES = get_args(Storage)
CENTRES = RANDOM.normal(size=(100, 8))
GROUPS = {"users by activity": slice(0, 150), "newcomers": slice(150, 200)}


def near_centres(n: int) -> NDArray[np.float32]:
    noise = 0.7 * RANDOM.normal(size=(n, 8))
    return (CENTRES[RANDOM.integers(0, 100, n)] + noise).astype(np.float32)


VECTORS = near_centres(20_000)
LONG = VECTORS * RANDOM.lognormal(sigma=0.7, size=(20_000, 1)).astype(np.float32)
QUERIES = Queries(near_centres(200), GROUPS)


def recall_of(index: Shells, vectors: NDArray[np.float32], exact: Found) -> NDArray[np.float64]:
    rows, _ = open_shells(index).search(QUERIES.vectors, exact[0].shape[1])
    return measure_recall(exact, (rows, exact_scores(vectors, QUERIES.vectors, rows)))


def test_few_vectors_need_no_tree() -> None:
    assert choose_settings(19_999).num_leaves is None
    assert choose_settings(20_000, recall_k=5000).num_leaves is None
    few = VECTORS[:500]
    exact = ExactIndex(few).search(QUERIES.vectors, 10)
    index, tried = build_index(few, QUERIES, exact=exact, recall=1.0, storage="int8")
    assert [settings.num_leaves for settings in index.settings] == [None]
    assert tried == []
    assert recall_of(index, few, exact).min() == 1.0


def test_tree_grows_with_the_root_of_the_number_of_vectors() -> None:
    assert [choose_settings(n).num_leaves for n in (20_000, 1_000_000)] == [282, 2000]


@pytest.mark.parametrize("vectors", [VECTORS, LONG], ids=["alike", "of many lengths"])
@pytest.mark.parametrize("storage", STORAGES)
def test_each_kind_of_query_finds_enough_with_a_part_of_the_leaves(
    storage: Storage, vectors: NDArray[np.float32]
) -> None:
    exact = ExactIndex(vectors).search(QUERIES.vectors, 20)
    index, tried = build_index(vectors, QUERIES, exact=exact, recall=0.9, storage=storage)
    chosen = [setting for setting in tried if setting["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["recall"] >= 0.9
    assert chosen[0]["leaves_to_search"] < chosen[0]["leaves"]
    trees = [settings for settings in index.settings if settings.num_leaves]
    assert chosen[0]["leaves_to_search"] == sum(tree.leaves_to_search for tree in trees)
    assert {tree.storage for tree in trees} == {storage}
    assert {settings.recall_k for settings in index.settings} == {20}
    shares = recall_of(index, vectors, exact)
    for part in GROUPS.values():
        assert shares[part].mean() >= 0.9
    assert shares[GROUPS["newcomers"]].mean() == pytest.approx(chosen[0]["recall"], abs=0.05)


def test_another_build_is_tried_where_the_first_is_not_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[int] = []
    build = ScannIndex.build

    def noted(vectors: NDArray[np.float32], settings: ScannSettings) -> ScannIndex:
        if settings.num_leaves:
            built.append(settings.dimensions_per_block)
        return build(vectors, settings)

    monkeypatch.setattr(ScannIndex, "build", noted)
    exact = ExactIndex(VECTORS).search(QUERIES.vectors, 20)
    monkeypatch.setattr(building, "GOOD_SHARE", 100.0)
    build_index(VECTORS, QUERIES, exact=exact, recall=0.9)
    assert set(built) == {2}
    monkeypatch.setattr(building, "GOOD_SHARE", 0.0)
    build_index(VECTORS, QUERIES, exact=exact, recall=0.9)
    assert set(built) == {1, 2}


def test_one_tree_is_kept_where_the_shell_of_the_longest_costs_more_than_it_saves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = ExactIndex(VECTORS).search(QUERIES.vectors, 20)
    for dear, is_one in ((0.0, True), (1.0, False)):
        monkeypatch.setattr("pipelines.publishing.build_index.DEAR", dear)
        index, _ = build_index(VECTORS, QUERIES, exact=exact, recall=0.9, storage="int8")
        assert (len(index.shells) == 1) == is_one
        assert recall_of(index, VECTORS, exact).mean() >= 0.9


def test_gate_says_what_was_reached_by_whom_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "REORDER_FACTORS", (1,))
    exact = ExactIndex(VECTORS).search(QUERIES.vectors, 50)
    with pytest.raises(
        RecallGateError,
        match=r"recall@50 of 1.0 .* reached 0\.\d+ \(users by activity 0\.\d+, newcomers 0\.\d+\)",
    ):
        build_index(VECTORS, QUERIES, exact=exact, recall=1.0, storage="int8")


@pytest.mark.parametrize("storage", STORAGES)
def test_equal_vectors_are_as_good_as_each_other_however_they_are_stored(storage: Storage) -> None:
    vectors = np.repeat(VECTORS[:1000], 20, axis=0)
    exact = ExactIndex(vectors).search(QUERIES.vectors, 70)
    index, _ = build_index(vectors, QUERIES, exact=exact, recall=0.9, storage=storage)
    assert index.places is not None
    assert sum(len(shell.rows) for shell in index.shells) == 1000
    assert recall_of(index, vectors, exact).mean() >= 0.9
