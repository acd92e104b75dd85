"""Fresh users and items, in an exact and in an approximate version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.retrieval.retriever import Retriever
from serving.version.saved_models.tower import Tower
from towers.errors import QueryError
from towers.features.kinds import History
from towers.features.vocabulary import history_weights

USER, ITEM = 2**40 + 3, "item 3"
FRESH = {"item_id": "fresh", "genres": ["x"], "price": 2.0, "title": "Fresh"}


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["exact", "scann"])
def retriever(models: Path, request: pytest.FixtureRequest) -> Retriever:
    return Retriever.open(models, version=request.param)


def upsert(retriever: Retriever, side: Any, *records: dict[str, Any]) -> None:
    retriever.apply(retriever.change(side, upsert=records))


def delete(retriever: Retriever, side: Any, *ids: Any) -> None:
    retriever.apply(retriever.change(side, delete=ids))


def found(retriever: Retriever, direction: str, **query: Any) -> dict[Any, float]:
    frame = retriever.retrieve(direction, **{"k": 1000} | query)
    return dict(zip(frame.iloc[:, 0], frame["score"], strict=True))


def test_a_fresh_item_is_found_at_once_by_its_own_score(retriever: Retriever) -> None:
    upsert(retriever, "item", FRESH)
    vector = retriever.encode("item", retriever.tower("item").pack(
        {name: [FRESH[name]] for name in ("item_id", "genres", "price")}, size=1
    ))  # fmt: skip
    expected = retriever.catalogue("user").vectors[3] @ vector[0]
    assert found(retriever, "u2i", id=USER)["fresh"] == pytest.approx(expected, abs=1e-5)
    assert found(retriever, "i2i", id=ITEM)["fresh"] == pytest.approx(
        found(retriever, "i2i", id="fresh")[ITEM], abs=1e-5
    )
    assert found(retriever, "i2u", id="fresh")[USER] == pytest.approx(expected, abs=1e-5)
    assert retriever.index_sizes() == {"u2i": 121, "i2i": 121, "u2u": 60, "i2u": 60}
    shown = retriever.retrieve("u2i", id=USER, k=1, where={"column": "title", "equals": "Fresh"})
    assert shown.drop(columns=["score", "item.genres"]).iloc[0].to_dict() == {
        "id": "fresh", "item.price": 2.0, "item.title": "Fresh",
    }  # fmt: skip


def test_an_item_that_is_there_is_replaced(retriever: Retriever) -> None:
    before = found(retriever, "u2i", id=USER)
    upsert(retriever, "item", FRESH | {"item_id": ITEM, "price": -50.0})
    after = found(retriever, "u2i", id=USER)
    assert len(after) == len(before) == 120
    assert after[ITEM] != pytest.approx(before[ITEM])
    assert {i for i in before if before[i] != pytest.approx(after[i], abs=1e-5)} == {ITEM}


def test_deleted_items_are_gone_from_both_directions_until_they_come_back(
    retriever: Retriever,
) -> None:
    upsert(retriever, "item", FRESH)
    delete(retriever, "item", "fresh", "item 7", "item 119", "never was")
    for direction, source in (("u2i", USER), ("i2i", ITEM)):
        rest = found(retriever, direction, id=source)
        assert len(rest) == 118 - (direction == "i2i")
        assert not {"fresh", "item 7", "item 119"} & set(rest)
    with pytest.raises(QueryError, match="no item 'item 7'"):
        retriever.retrieve("i2i", id="item 7")
    upsert(retriever, "item", FRESH | {"item_id": "item 7"}, FRESH)
    assert {"fresh", "item 7"} <= set(found(retriever, "u2i", id=USER))


def test_of_several_records_with_one_id_the_last_counts(retriever: Retriever) -> None:
    upsert(retriever, "item", FRESH, FRESH | {"title": "Last"})
    assert retriever.catalogue("item").record(120)["title"] == "Last"
    assert retriever.index_sizes()["u2i"] == 121


def test_a_fresh_user_is_found_and_asks_by_id(retriever: Retriever) -> None:
    upsert(retriever, "user", {"user_id": 7, "city": "a", "history": ["item 5", "item 9", "?"]})
    assert 7 in found(retriever, "i2u", id=ITEM)
    assert 7 in found(retriever, "u2u", id=USER)
    assert 7 not in found(retriever, "u2u", id=7)
    by_features = found(retriever, "u2i", features={"city": "a", "history": ["item 5", "item 9"]})
    assert found(retriever, "u2i", id=7) == pytest.approx(by_features, abs=1e-5)
    unseen = found(retriever, "u2i", id=7, exclude_seen=True)
    assert set(by_features) - set(unseen) == {"item 5", "item 9"}


def test_a_change_that_does_not_fit_changes_nothing(retriever: Retriever) -> None:
    odd: list[dict[str, Any]] = [{"item_id": "x", "genres": {"a": 3}}, {"price": 1.0}]
    for record in odd:
        with pytest.raises(QueryError):
            upsert(retriever, "item", FRESH, record)
    with pytest.raises(QueryError, match="expected text"):
        delete(retriever, "item", "item 1", 5)
    assert len(found(retriever, "u2i", id=USER)) == 120


def test_many_fresh_items(retriever: Retriever) -> None:
    records = [FRESH | {"item_id": f"new {n}", "price": n / 100} for n in range(500)]
    upsert(retriever, "item", *records)
    delete(retriever, "item", *[f"new {n}" for n in range(0, 500, 2)])
    rest = found(retriever, "u2i", id=USER)
    assert len(rest) == 120 + 250
    prices = {n: rest[f"new {n}"] for n in range(1, 500, 2)}
    steps = np.diff(list(prices.values()))
    np.testing.assert_allclose(steps, steps.mean(), atol=0.05)


def test_a_fresh_item_counts_in_histories_by_its_features(retriever: Retriever) -> None:
    """Beside others too, and with what it was put in with last."""

    def user(*history: str) -> Any:
        packed = retriever.tower("user").pack({"history": [list(history)]}, size=1)
        return retriever.encode("user", packed)[0].astype(np.float64)

    def brought() -> Any:
        """The features of the fresh item, weighed as those of an item that was chosen once."""
        vocabulary = retriever.parts.vocabulary
        space = vocabulary.tokens("item.item_id")
        weight = history_weights(np.append(space.counts, 0), power=History().power)[-1]
        given = {name: [fresh[name]] for name in ("item_id", "genres", "price")}
        found = retriever.tower("item").active_features(retriever.tower("item").pack(given, size=1))
        known = found["row"][0] != space.oov_row
        return weight * (found["v"][0] * found["x"][0][:, np.newaxis])[known].sum(axis=0)

    np.testing.assert_array_equal(user("fresh"), user())
    nothing = np.append(1.0, np.zeros(len(user()) - 1))
    for fresh in (FRESH, FRESH | {"genres": ["y"], "price": -3.0}):
        upsert(retriever, "item", fresh)
        np.testing.assert_allclose((user("fresh") - nothing)[1:], brought(), atol=1e-5)
        both = user(ITEM) + user("fresh") - 2 * nothing
        np.testing.assert_allclose(
            user(ITEM, "fresh") - nothing, both / np.sqrt(2), rtol=1e-4, atol=1e-5
        )
    upsert(retriever, "item", FRESH | {"item_id": "another"})
    np.testing.assert_allclose((user("fresh") - nothing)[1:], brought(), atol=1e-5)


@pytest.mark.slow
def test_histories_know_items_put_in_one_by_one_as_if_they_came_at_once(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoded(adds: bool) -> Any:
        monkeypatch.setattr(Tower, "adds_past_items", adds)
        retriever = Retriever.open(models, version=1)
        for number in [*range(6), 2, 2]:  # so often that there is no room but what is made
            genres = ["x", "y"][: number % 3] + ["x"] * (number == 2)
            upsert(retriever, "item", FRESH | {"item_id": f"new {number}", "genres": genres})
        histories = [[f"new {n}" for n in some] for some in ([0, 1], [2], [5, 3], [9])]
        packed = retriever.tower("user").pack({"history": histories}, size=4)
        return retriever.encode("user", packed)

    np.testing.assert_allclose(encoded(adds=True), encoded(adds=False), atol=1e-6)
    assert len(np.unique(encoded(adds=True).round(5), axis=0)) == 4
