from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.retrieval.fresh import database
from serving.retrieval.fresh.entry import list_drafts
from serving.retrieval.fresh.journal import FILE, Journal
from tests.serving.retrieval.fresh.journal_support import limited_file_size
from towers.errors import BundleError, QueryError, ReadOnlyError, StorageError

Open = Callable[[], Journal]


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Open]:
    """Opens the journal of one folder, after closing the one that was open."""
    held: list[Journal] = []

    def open_journal() -> Journal:
        if held:
            held.pop().close()
        held.append(Journal(tmp_path / "journal"))
        return held[0]

    yield open_journal
    for journal in held:
        journal.close()


def item(id: int | str, **values: Any) -> dict[str, Any]:
    return {"item_id": id, **values}


def put(journal: Journal, *records: dict[str, Any]) -> int:
    return journal.append([list_drafts("item", id_column="item_id", upsert=records)])[-1]


def drop(journal: Journal, *ids: int | str) -> int:
    return journal.append([list_drafts("item", id_column="item_id", delete=ids)])[-1]


def content(journal: Journal) -> list[tuple[str, int | str, Any]]:
    return [(entry.side, entry.id, entry.record) for entry in journal.entries()]


def test_what_was_written_is_there_after_a_restart(open_journal: Open) -> None:
    journal = open_journal()
    assert put(journal, item("a", genres=["x", "y"], price=1.5, title=None), item("b")) == 2
    assert journal.append(
        [list_drafts("user", id_column="uid", upsert=[{"uid": 2**62, "city": "Zürich"}])]
    ) == [3]
    assert drop(journal, "b") == 4
    before = journal.entries()
    journal = open_journal()
    assert journal.entries() == before
    assert content(journal) == [
        ("item", "a", item("a", genres=["x", "y"], price=1.5, title=None)),
        ("user", 2**62, {"uid": 2**62, "city": "Zürich"}),
        ("item", "b", None),
    ]
    assert put(journal, item("c")) == 5
    assert [entry.seq for entry in journal.entries(after=3)] == [4, 5]


def test_the_last_entry_of_an_id_counts(open_journal: Open) -> None:
    journal = open_journal()
    put(journal, item(1, price=1), item(2))
    drop(journal, 1)
    put(journal, item(1, price=2))
    changes = list_drafts("item", id_column="item_id", upsert=[item(3)], delete=[3, 2])
    journal.append([changes])
    expected = [
        ("item", 1, item(1, price=2)),
        ("item", 2, None),
        ("item", 3, item(3)),
    ]
    assert content(journal) == expected
    assert content(open_journal()) == expected


def test_requests_that_are_written_together_keep_their_order(open_journal: Open) -> None:
    journal = open_journal()
    several = [
        list_drafts("item", id_column="item_id", upsert=[item(1), item(2)]),
        [],
        list_drafts("item", id_column="item_id", upsert=[item(3)], delete=[1]),
        list_drafts("user", id_column="user_id", upsert=[{"user_id": 1}]),
    ]
    assert journal.append(several) == [2, 2, 4, 5]
    expected = [
        ("item", 2, item(2)),
        ("item", 1, None),
        ("item", 3, item(3)),
        ("user", 1, {"user_id": 1}),
    ]
    assert content(journal) == expected
    assert content(open_journal()) == expected


def test_an_integer_is_not_the_text_of_it(open_journal: Open) -> None:
    put(open_journal(), item(1), item("1"))
    assert [entry.id for entry in open_journal().entries()] == [1, "1"]


def test_one_file_has_all_that_append_was_told(open_journal: Open, tmp_path: Path) -> None:
    """So whoever copies the file while the server runs has every change that was answered."""
    journal = open_journal()
    for number in range(3):
        put(journal, item(number))
        assert {path.name for path in journal.path.parent.iterdir()} == {FILE, ".lock"}
        copy = tmp_path / f"copy {number}"
        copy.mkdir()
        (copy / FILE).write_bytes(journal.path.read_bytes())
        with Journal(copy) as copied:
            assert copied.entries() == journal.entries()


def test_it_waits_for_the_disk(open_journal: Open) -> None:
    """SQLite then calls fsync for its rollback journal, the database and the folder."""
    extra = 3
    assert open_journal()._database.execute("PRAGMA synchronous").fetchone() == (extra,)


def test_one_server_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path):
        with pytest.raises(BundleError, match="no other server keeps its journal here"):
            Journal(tmp_path)
        code = (
            "import sys, pathlib; from serving.retrieval.fresh.journal import Journal; "
            "Journal(pathlib.Path(sys.argv[1]))"
        )
        environment = os.environ | {"PYTHONPATH": "."}
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[4],
            env=environment,
        )
        assert "BundleError" in other.stderr
    with Journal(tmp_path):
        pass


def test_it_grows_with_the_ids_and_not_with_the_changes(open_journal: Open) -> None:
    journal = open_journal()
    put(journal, item("kept"))
    put(journal, item("often", price=0))
    size = journal.path.stat().st_size
    for price in range(1, 60):
        put(journal, item("often", price=price))
    assert journal.path.stat().st_size == size
    expected = [("item", "kept", item("kept")), ("item", "often", item("often", price=59))]
    assert content(journal) == expected
    assert put(journal, item("after")) == 62
    assert content(open_journal())[:2] == expected


def test_a_full_disk_changes_nothing(open_journal: Open) -> None:
    journal = open_journal()
    put(journal, item("a"))
    size = journal.path.stat().st_size
    for limit in (0, 600, size, size + 5000):
        with (
            limited_file_size(limit),
            pytest.raises(StorageError, match=r"could not be written .*nothing has changed"),
        ):
            put(journal, item("b", text="x" * 50_000))
        assert [entry.id for entry in journal.entries()] == ["a"]
    put(journal, item("c"))
    assert [entry.id for entry in open_journal().entries()] == ["a", "c"]


def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path) -> None:
    with (
        limited_file_size(5000),
        pytest.raises(StorageError, match=r"fresh\.sqlite\.new: could not be written"),
    ):
        Journal(tmp_path)
    with Journal(tmp_path) as journal:
        assert put(journal, item("a")) == 1


def test_a_disk_that_is_full_when_the_server_starts_again_keeps_it_from_writing_only(
    open_journal: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(open_journal(), item("a"))
    connect = database.connect

    def full(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        (size,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {size}")
        return connection

    monkeypatch.setattr(database, "connect", full)
    monkeypatch.setattr(database, "PROBE", "CREATE TABLE more AS SELECT zeroblob(100000)")
    journal = open_journal()
    assert "the disk is full, so changes are refused" in caplog.text
    with pytest.raises(StorageError, match="database or disk is full"):
        put(journal, item("b", text="x" * 50_000))
    assert [entry.id for entry in journal.entries()] == ["a"]


def test_what_is_on_disk_though_the_disk_reports_an_error_counts_as_written(
    open_journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of a commit waits for the name of the rollback journal to be gone on disk."""
    journal = open_journal()

    class Failing:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self.execute = connection.execute
            self._connection = connection

        def __enter__(self) -> None:
            self._connection.__enter__()

        def __exit__(self, *error: Any) -> None:
            self._connection.__exit__(*error)
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(journal, "_database", Failing(journal._database))
    assert put(journal, item("a")) == 1
    monkeypatch.undo()
    assert [entry.id for entry in open_journal().entries()] == ["a"]


@pytest.mark.parametrize("what", ["folder", "parent"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, what: str) -> None:
    """Where a file is in the way; for root, permissions are not."""
    path = tmp_path / "journal"
    path.touch()
    with pytest.raises(BundleError, match=r"can be written to, but: .* serve to read only"):
        Journal(path if what == "folder" else path / "journal")


def test_a_database_that_cannot_be_written_is_refused(
    open_journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(open_journal(), item("a"))
    connect = database.connect

    def only_to_read(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA query_only = 1")
        return connection

    monkeypatch.setattr(database, "connect", only_to_read)
    with pytest.raises(BundleError, match="expected a file that can be written, but"):
        open_journal()


def test_one_that_only_reads_follows_the_one_that_writes(open_journal: Open) -> None:
    journal = open_journal()
    put(journal, item("a"))
    with Journal(journal.path.parent, read_only=True) as reader:
        assert reader.entries() == journal.entries()
        put(journal, item("b"))
        assert [entry.id for entry in reader.entries(after=1)] == ["b"]
        with pytest.raises(ReadOnlyError):
            put(reader, item("c"))


@pytest.mark.parametrize("value", [float("nan"), b"bytes", {1, 2}, "\ud800"])
def test_records_that_json_cannot_hold_are_refused(open_journal: Open, value: object) -> None:
    journal = open_journal()
    with pytest.raises(QueryError, match="expected plain JSON values"):
        put(journal, item("a"), item("b", price=value))
    assert journal.entries() == []
    put(journal, item("c"))
    assert [entry.id for entry in open_journal().entries()] == ["c"]


@pytest.mark.parametrize("id", [2**63, "\ud800"])
def test_ids_that_no_version_has_are_refused(open_journal: Open, id: int | str) -> None:
    journal = open_journal()
    with pytest.raises(QueryError, match="expected plain JSON values"):
        put(journal, item(id))
    with pytest.raises(QueryError, match="expected plain JSON values"):
        drop(journal, id)
    assert journal.entries() == []


def test_an_empty_change_is_not_written(open_journal: Open) -> None:
    journal = open_journal()
    before = journal.path.read_bytes()
    assert put(journal) == 0
    assert journal.path.read_bytes() == before


def test_times_have_a_zone(open_journal: Open) -> None:
    journal = open_journal()
    put(journal, item("a", price=2))
    (entry,) = journal.entries()
    assert entry.time.utcoffset() is not None
