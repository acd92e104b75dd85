from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.retrieval.fresh.entry import list_drafts
from serving.retrieval.fresh.journal import FILE, Journal
from serving.retrieval.fresh.note_changes import note_changes
from serving.retrieval.fresh.replay import Replayed
from serving.retrieval.retriever import Retriever
from serving.version.tables_read import TablesRead

Open = Callable[[TablesRead | None], Retriever]


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    with Journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def version(models: Path) -> Open:
    """A version whose tables were read when the journals held this; None: nobody knows when."""

    def version(read: TablesRead | None) -> Retriever:
        retriever = Retriever.open(models, version=1)
        retriever.parts.tables_read = read
        return retriever

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


def note(journal: Journal) -> TablesRead:
    return note_changes([journal.path.parent])


@pytest.mark.slow
def test_what_the_version_lacks_is_put_in_whenever_it_came(journal: Journal, version: Open) -> None:
    put(journal, {"item_id": "new", "genres": ["x"], "price": 2.0})
    journal.append([list_drafts("user", id_column="user_id", upsert=[{"user_id": 5, "city": "a"}])])
    for read in (None, note(journal)):
        retriever = version(read)
        assert journal.replay(retriever) == Replayed(seq=2, upserted=2)
        assert price(retriever, "new") == 2.0
        frame = retriever.retrieve("i2u", id="new", k=100)
        assert 5 in frame["id"].tolist()


@pytest.mark.slow
def test_what_came_before_the_tables_were_read_is_superseded_and_nothing_else(
    journal: Journal, version: Open
) -> None:
    nothing = note(journal)
    put(journal, {"item_id": "item 3", "price": 99.0}, {"item_id": "item 4", "price": 98.0})
    read = note(journal)
    put(journal, {"item_id": "item 4", "price": 97.0})  # while the version is trained
    newer = version(read)
    assert journal.replay(newer) == Replayed(seq=3, upserted=1, superseded=1)
    assert price(newer, "item 3") != 99.0
    assert price(newer, "item 4") == 97.0
    for older in (version(nothing), version(None)):
        assert journal.replay(older) == Replayed(seq=3, upserted=2)
        assert price(older, "item 3") == 99.0


def test_no_clock_decides_what_is_superseded(
    journal: Journal, version: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(hours=5)

    read = note(journal)
    monkeypatch.setattr("serving.retrieval.fresh.journal.datetime", Behind)
    put(journal, {"item_id": "item 3", "price": 99.0})
    assert journal.entries()[0].time < datetime.fromisoformat(read.time) - timedelta(hours=4)
    retriever = version(read)
    assert journal.replay(retriever) == Replayed(seq=1, upserted=1)


@pytest.mark.slow
def test_a_journal_that_begins_anew_or_was_restored_supersedes_nothing_later(
    journal: Journal, version: Open, tmp_path: Path
) -> None:
    """The numbers of its entries come again; what they say does not."""
    put(journal, {"item_id": "item 3", "price": 1.0})
    (tmp_path / "restored").mkdir()
    shutil.copy(journal.path, tmp_path / "restored" / FILE)
    put(journal, {"item_id": "item 4", "price": 2.0})
    read = note(journal)
    for name, seq in (("restored", 2), ("new", 1)):
        with Journal(tmp_path / name) as other:
            put(other, {"item_id": "item 4", "price": 2.0})
            retriever = version(read)
            replayed = other.replay(retriever)
            assert replayed == Replayed(seq=seq, upserted=1, superseded=seq - 1)
            assert price(retriever, "item 4") == 2.0


def test_what_is_noted_is_kept_as_json(journal: Journal, tmp_path: Path) -> None:
    put(journal, {"item_id": "é", "price": 0.1, "genres": ["x"], "title": None})
    read = note_changes([journal.path.parent, tmp_path / "none"])
    assert len(read.changes) == 1
    read.write(tmp_path / "read.json")
    assert TablesRead.read(tmp_path / "read.json") == read


def test_deletes_count_in_every_version_that_has_the_id(journal: Journal, version: Open) -> None:
    drop(journal, "item 3", "never")
    for read in (None, note(journal)):
        retriever = version(read)
        assert journal.replay(retriever) == Replayed(seq=2, deleted=1, superseded=1)
        assert has(retriever, "item 3", "item 4") == [False, True]


def test_an_upsert_ends_a_delete(journal: Journal, version: Open) -> None:
    drop(journal, "item 3")
    put(journal, {"item_id": "item 3"})
    for read in (None, note(journal)):
        retriever = version(read)
        journal.replay(retriever)
        assert has(retriever, "item 3") == [True]


def test_what_was_put_in_before_is_no_part_of_the_version(journal: Journal, version: Open) -> None:
    """It gets all changes, though it has the id by the first and the tables were read later."""
    retriever = version(None)
    for number in range(3):
        put(journal, {"item_id": "new", "price": float(number)})
        retriever.parts.tables_read = note(journal)
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
    retriever = version(None)
    assert journal.replay(retriever) == Replayed(seq=26, upserted=20, skipped=6)
    assert has(retriever, "new 0", "new 19", "a", "b", "c") == [True, True, False, False, False]
    (record,) = caplog.records
    assert "version 1: 6 items of the journal do not fit it and are left out" in record.message
    assert len(journal.entries()) == 26


@pytest.mark.slow
def test_order_of_what_is_put_in_does_not_matter_to_search(journal: Journal, version: Open) -> None:
    put(journal, {"item_id": "new", "genres": ["x"], "price": 2.0})
    drop(journal, "item 3")
    live, replayed = version(None), version(None)
    live.apply(live.change("item", delete=["item 3"]))
    live.apply(live.change("item", upsert=[{"item_id": "new", "genres": ["x"], "price": 2.0}]))
    journal.replay(replayed)
    for direction in ("u2i", "i2i"):
        expected = live.retrieve(direction, features={}, k=200)
        found = replayed.retrieve(direction, features={}, k=200)
        assert expected["id"].tolist() == found["id"].tolist()
