from __future__ import annotations

import numpy as np

from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.publishing.sample_requests import retrieval_queries, sample_features
from towers.features.values import MISSING_STRING


def test_users_come_with_their_own_features_and_histories(
    dataset: Dataset, prepared: Prepared
) -> None:
    features = sample_features(dataset, prepared.users, side="user", seed=3)
    assert features.keys() == {"history", "city", "age"}
    histories = prepared.frame("train").groupby("user_id")["item_id"].agg(set)
    expected = {
        (user["city"], user["age"], frozenset(histories.get(user["user_id"], ())))
        for user in prepared.users.to_dict("records")
    }
    columns = (features["city"], features["age"], features["history"])
    drawn = {
        (city, age, frozenset(history) - {MISSING_STRING})
        for city, age, history in zip(*columns, strict=True)
    }
    assert len(drawn) == len(prepared.users)
    assert drawn <= expected


def test_items_come_with_their_own_features(dataset: Dataset, prepared: Prepared) -> None:
    features = sample_features(dataset, prepared.items, side="item", seed=3)
    tags = {item["item_id"]: item["tags"] for item in prepared.items.to_dict("records")}
    assert set(features["item_id"]) == set(tags)
    for item, listed in zip(features["item_id"], features["tags"], strict=True):
        assert listed.tolist() == list(tags[item])


def test_draw_is_repeatable(dataset: Dataset, prepared: Prepared) -> None:
    once, again = (sample_features(dataset, prepared.users, side="user", seed=5) for _ in range(2))
    for name in once:
        np.testing.assert_array_equal(once[name], again[name])


def test_both_signatures_are_asked(dataset: Dataset) -> None:
    features = {"age": np.array([1.0, 2.0], np.float32)}
    queries = retrieval_queries(features, ids=dataset.item_ids, k=4)
    assert queries["serving_default"] == features
    assert queries["top_k"].keys() == {"age", "k", "exclude"}
    assert queries["top_k"]["k"].dtype == np.int32
    assert queries["top_k"]["k"].tolist() == [4, 4]
    assert queries["top_k"]["exclude"].tolist() == [dataset.item_ids[:2].tolist()] * 2
