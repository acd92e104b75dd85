from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.results import Results
from pipelines.training import mine
from pipelines.training.embed import embed, match_scorer
from pipelines.training.mine import mine_fitted, mine_published
from serving.retrieval.retriever import Retriever
from serving.search.scann_index import ScannSettings
from towers.layers import FeatureTable
from towers.two_tower import TwoTower


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> TwoTower:
    features = FeatureTable(dataset.vocabulary.n_rows, embedding_dim=5, init_scale=0.3, seed=1)
    return TwoTower(features, margin=0.5, hardest=5, l2=0.0)


def ranked(
    scores: NDArray[np.float32], known: sparse.csr_array, *, ranks: tuple[int, int]
) -> list[list[int]]:
    """Each user's ranks by brute force: all items sorted, known ones removed, then cut."""
    first, last = ranks
    lists = []
    for user, row in enumerate(scores):
        own = set(known.indices[known.indptr[user] : known.indptr[user + 1]].tolist())
        order = [item for item in np.argsort(-row, kind="stable").tolist() if item not in own]
        lists.append(order[first - 1 : last])
    return lists


def ignore(steps: int) -> None:
    """Nobody watches."""


def unpadded(items: NDArray[np.int32]) -> list[list[int]]:
    """The lists without the -1 at their ends."""
    lists = [row[row >= 0].tolist() for row in items]
    assert [row.tolist() for row in items] == [
        some + [-1] * (items.shape[1] - len(some)) for some in lists
    ]
    return lists


@pytest.mark.parametrize("ranks", [(1, 1), (2, 9), (25, 60), (60, 70)])
def test_a_models_ranks_are_those_of_its_match_scores(
    model: TwoTower, dataset: Dataset, ranks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mine, "BATCH", 7)
    counted: list[int] = []
    mined = mine_fitted(model, dataset, ranks=ranks, version=3, seed=0, advance=counted.append)
    scores = match_scorer(embed(model, dataset))(np.arange(60))
    assert unpadded(mined.items) == ranked(
        scores, every_positive(dataset.interactions), ranks=ranks
    )
    assert (mined.version, mined.ranks) == (3, ranks)
    assert sum(counted) == 60


def test_ranks_beyond_the_corpus_give_no_negatives(model: TwoTower, dataset: Dataset) -> None:
    mined = mine_fitted(model, dataset, ranks=(60, 70), version=3, seed=0, advance=lambda _: None)
    drawn = mined.draw(np.arange(60), np.random.default_rng(0), count=4)
    assert (drawn == -1).all()


def test_of_many_mined_negatives_each_user_keeps_some(
    model: TwoTower, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = mine_fitted(model, dataset, ranks=(2, 9), version=3, seed=0, advance=ignore)
    monkeypatch.setattr(mine, "LARGEST_TABLE", 3 * 60 + 59)
    some, again, others = (
        mine_fitted(model, dataset, ranks=(2, 9), version=3, seed=seed, advance=ignore)
        for seed in (0, 0, 1)
    )
    assert some.items.shape == (60, 3)
    for kept, found in zip(some.items.tolist(), everything.items.tolist(), strict=True):
        assert len(set(kept)) == 3
        assert set(kept) <= set(found)
    np.testing.assert_array_equal(some.items, again.items)
    assert (some.items != others.items).any()


def test_many_users_and_items_are_mined_through_a_tree(
    model: TwoTower, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = mine_fitted(model, dataset, ranks=(1, 5), version=3, seed=0, advance=ignore)
    settings = ScannSettings(num_leaves=4, leaves_to_search=4, reorder=40, recall_k=5)
    monkeypatch.setattr(mine, "LARGEST_EXACT", 60 * 40 - 1)
    monkeypatch.setattr(mine, "choose_settings", lambda n: settings)
    found = mine_fitted(model, dataset, ranks=(1, 5), version=3, seed=0, advance=ignore)
    np.testing.assert_array_equal(found.items, exact.items)


@pytest.mark.parametrize("ranks", [(2, 9), (25, 60)])
def test_a_versions_ranks_are_those_of_its_own_u2i_answers(
    published: tuple[Path, Results], ranks: tuple[int, int]
) -> None:
    retriever = Retriever.open(published[0], version=1)
    mined = mine_published(retriever, ranks=ranks, seed=0, advance=lambda _: None)
    scores = retriever.catalogue("user").vectors @ retriever.catalogue("item").vectors.T
    known = sparse.csr_array(retriever.parts.seen.matrix)
    assert known.nnz > 0
    assert unpadded(mined.items) == ranked(scores, known, ranks=ranks)
    assert (mined.version, mined.ranks) == (1, ranks)
