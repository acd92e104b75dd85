from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.data.dataset import Dataset
from pipelines.data.events import Block
from pipelines.publishing.draw_queries import NEWCOMER, draw_queries
from pipelines.training.embed import embed, embed_users
from towers.directions import DIRECTIONS
from towers.layers import FeatureTable
from towers.two_tower import TwoTower


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> TwoTower:
    features = FeatureTable(dataset.vocabulary.n_rows, embedding_dim=8, init_scale=0.3, seed=1)
    return TwoTower(features, margin=0.5, hardest=4, l2=0.0)


def sample(model: TwoTower, dataset: Dataset, size: int, seed: int = 0) -> Any:
    return draw_queries(model, dataset, embed(model, dataset), size=size, seed=seed)


def test_half_are_drawn_as_they_come_and_half_are_rare(model: TwoTower, dataset: Dataset) -> None:
    queries = sample(model, dataset, 21)
    for side, names in (
        ("user", ["users by activity", "newcomers"]),
        ("item", ["items by traffic", "items of any kind"]),
    ):
        assert queries[side].groups == {names[0]: slice(0, 11), names[1]: slice(11, 22)}
        assert queries[side].vectors.shape == (22, 9)
        assert np.isfinite(queries[side].vectors).all()
    vectors = embed(model, dataset)
    known = {row.tobytes() for row in vectors["user"]}
    assert {row.tobytes() for row in queries["user"].vectors[:11]} <= known
    assert len({row.tobytes() for row in queries["user"].vectors[:11]}) == 11


def test_a_newcomer_is_a_user_with_its_first_items(model: TwoTower, dataset: Dataset) -> None:
    everyone = 10_000
    newcomers = sample(model, dataset, everyone)["user"]
    received = newcomers.vectors[newcomers.groups["newcomers"]]
    matrix = dataset.interactions.of(np.arange(len(dataset.user_ids))).copy()
    for start, stop in zip(matrix.indptr, matrix.indptr[1:], strict=False):
        matrix.data[start + NEWCOMER : stop] = 0
    matrix.eliminate_zeros()
    users = np.arange(len(dataset.user_ids))
    expected = embed_users(model, dataset.query_bags(Block(users, matrix)))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


def test_the_same_seed_draws_the_same(model: TwoTower, dataset: Dataset) -> None:
    first, second, other = (sample(model, dataset, 10, seed)["item"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert (first.vectors != other.vectors).any()


def test_queries_are_brought_to_the_geometry_of_a_direction(
    model: TwoTower, dataset: Dataset
) -> None:
    queries = sample(model, dataset, 10)["item"]
    near = queries.of(DIRECTIONS["i2i"])
    np.testing.assert_allclose(np.linalg.norm(near.vectors, axis=1), 1, rtol=1e-5)
    assert near.groups == queries.groups
