from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.data.dataset import Dataset
from pipelines.training import embed as embed_module
from pipelines.training.embed import embed, embed_items, embed_users, match_scorer
from towers.layers import FeatureTable
from towers.two_tower import TwoTower


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> TwoTower:
    """A model with weights of its own in every row."""
    features = FeatureTable(dataset.vocabulary.n_rows, embedding_dim=5, init_scale=0.3, seed=1)
    features.w.assign(np.random.default_rng(2).normal(size=features.w.shape).astype(np.float32))
    return TwoTower(features, margin=0.5, hardest=5, l2=0.0)


def naive_fm(x: NDArray[np.float64], w: NDArray[np.float64], v: NDArray[np.float64]) -> float:
    """First-order terms and the sum over all pairs of features, w0 left out."""
    active = np.flatnonzero(x)
    score = float(x @ w)
    for place, i in enumerate(active):
        for j in active[place + 1 :]:
            score += float(v[i] @ v[j]) * x[i] * x[j]
    return score


def test_a_match_score_is_the_fm_score_less_what_is_the_users_own(
    model: TwoTower, dataset: Dataset
) -> None:
    users = dataset.query_bags(dataset.interactions.block(0)).toarray().astype(np.float64)
    items = dataset.item_bags.toarray().astype(np.float64)
    w, v = (part.numpy().astype(np.float64) for part in (model.features.w, model.features.v))
    rows = np.array([0, 7, 59])
    scores = match_scorer(embed(model, dataset))(rows)
    assert scores.shape == (3, len(items))
    for place, user in enumerate(rows):
        own = naive_fm(users[user], w, v)
        for item in range(0, len(items), 7):
            # the two bags share the rows of item ids, as two features of one vector each
            together = np.concatenate([users[user], items[item]])
            expected = naive_fm(together, np.tile(w, 2), np.tile(v, (2, 1))) - own
            assert scores[place, item] == pytest.approx(expected, abs=1e-4)


def test_batches_make_no_difference(
    model: TwoTower, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, items = embed_users(model, dataset.user_bags), embed_items(model, dataset.item_bags)
    assert users.shape == (60, 6)
    assert items.shape == (40, 6)
    assert (users[:, 0] == 1).all()
    monkeypatch.setattr(embed_module, "BATCH", 7)
    np.testing.assert_allclose(embed_users(model, dataset.user_bags), users, rtol=1e-6)
    np.testing.assert_allclose(embed_items(model, dataset.item_bags), items, rtol=1e-6)
