from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.retrieval.fresh.entry import list_drafts
from serving.retrieval.fresh.journal import Journal
from serving.retrieval.fresh.replay import Replayed
from serving.retrieval.retriever import Retriever

HOUR = timedelta(hours=1)
Open = Callable[[timedelta], Retriever]


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    with Journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def version(models: Path) -> Open:
    """A version that was created so long after now."""

    def version(later: timedelta) -> Retriever:
        bundle = Retriever.open(models, version=1).bundle
        created = (datetime.now(UTC) + later).isoformat(timespec="seconds")
        manifest = dataclasses.replace(bundle.manifest, created=created)
        return Retriever(dataclasses.replace(bundle, manifest=manifest))

    return version


def put(journal: Journal, *records: dict[str, Any]) -> None:
    journal.append([list_drafts("item", id_column="item_id", upsert=records)])


def drop(journal: Journal, *ids: Any) -> None:
    journal.append([list_drafts("item", id_column="item_id", delete=ids)])


def has(retriever: Retriever, *ids: Any) -> list[bool]:
    return [row >= 0 for row in retriever.catalogue("item").rows(ids)]


def price(retriever: Retriever, id: str) -> float:
    catalogue = retriever.catalogue("item")
    return float(catalogue.show(catalogue.rows([id]), ["price"])["price"].iloc[0])


def test_what_the_version_lacks_is_put_in_whenever_it_came(journal: Journal, version: Open) -> None:
    put(journal, {"item_id": "new", "genres": ["x"], "price": 2.0})
    journal.append([list_drafts("user", id_column="user_id", upsert=[{"user_id": 5, "city": "a"}])])
    for later in (-HOUR, HOUR):
        retriever = version(later)
        assert journal.replay(retriever) == Replayed(seq=2, upserted=2)
        assert price(retriever, "new") == 2.0
        frame = retriever.retrieve("i2u", id="new", k=100)
        assert 5 in frame["id"].tolist()


def test_what_training_has_seen_is_superseded(journal: Journal, version: Open) -> None:
    put(journal, {"item_id": "item 3", "price": 99.0})
    newer, older = version(HOUR), version(-HOUR)
    assert journal.replay(newer) == Replayed(seq=1, superseded=1)
    assert price(newer, "item 3") != 99.0
    assert journal.replay(older) == Replayed(seq=1, upserted=1)
    assert price(older, "item 3") == 99.0


def test_deletes_count_in_every_version_that_has_the_id(journal: Journal, version: Open) -> None:
    drop(journal, "item 3", "never")
    for later in (-HOUR, HOUR):
        retriever = version(later)
        assert journal.replay(retriever) == Replayed(seq=2, deleted=1, superseded=1)
        assert has(retriever, "item 3", "item 4") == [False, True]


def test_an_upsert_ends_a_delete(journal: Journal, version: Open) -> None:
    drop(journal, "item 3")
    put(journal, {"item_id": "item 3"})
    for later in (-HOUR, HOUR):
        retriever = version(later)
        journal.replay(retriever)
        assert has(retriever, "item 3") == [True]


def test_what_was_put_in_before_is_no_part_of_the_version(journal: Journal, version: Open) -> None:
    """A version by a clock that is ahead gets all changes, though it has the id by the first."""
    retriever = version(HOUR)
    for number in range(3):
        put(journal, {"item_id": "new", "price": float(number)})
        replayed = journal.replay(retriever, after=number)
        assert replayed == Replayed(seq=number + 1, upserted=1)
        assert price(retriever, "new") == number
    assert journal.replay(retriever, after=3) == Replayed(seq=3)


def test_what_does_not_fit_is_left_out_and_kept(
    journal: Journal, version: Open, caplog: pytest.LogCaptureFixture
) -> None:
    fitting = [{"item_id": f"new {n}", "price": float(n)} for n in range(20)]
    put(journal, *fitting[:7], {"item_id": "a", "year": 1999}, *fitting[7:])
    put(journal, {"item_id": "b", "price": "cheap"}, {"item_id": "c", "price": 3.4e38})
    put(journal, {"item_id": 7}, {"other_id": "d", "item_id": "d"})
    drop(journal, 8)
    retriever = version(-HOUR)
    assert journal.replay(retriever) == Replayed(seq=26, upserted=20, skipped=6)
    assert has(retriever, "new 0", "new 19", "a", "b", "c") == [True, True, False, False, False]
    (record,) = caplog.records
    assert "version 1: 6 items of the journal do not fit it and are left out" in record.message
    assert len(journal.entries()) == 26


def test_order_of_what_is_put_in_does_not_matter_to_search(journal: Journal, version: Open) -> None:
    put(journal, {"item_id": "new", "genres": ["x"], "price": 2.0})
    drop(journal, "item 3")
    live, replayed = version(-HOUR), version(-HOUR)
    live.apply(live.change("item", delete=["item 3"]))
    live.apply(live.change("item", upsert=[{"item_id": "new", "genres": ["x"], "price": 2.0}]))
    journal.replay(replayed)
    for direction in ("u2i", "i2i"):
        expected = live.retrieve(direction, features={}, k=200)
        found = replayed.retrieve(direction, features={}, k=200)
        assert expected["id"].tolist() == found["id"].tolist()
