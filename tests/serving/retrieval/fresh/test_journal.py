from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.retrieval.fresh import journal as module
from serving.retrieval.fresh.entry import Entry
from serving.retrieval.fresh.journal import FILE, Journal
from towers.errors import BundleError, QueryError

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
    return journal.append("item", id_column="item_id", upsert=records)


def drop(journal: Journal, *ids: int | str) -> int:
    return journal.append("item", id_column="item_id", delete=ids)


def content(journal: Journal) -> list[tuple[str, int | str, Any]]:
    return [(entry.side, entry.id, entry.record) for entry in journal.entries()]


def test_what_was_written_is_there_after_a_restart(open_journal: Open) -> None:
    journal = open_journal()
    assert put(journal, item("a", genres=["x", "y"], price=1.5, title=None), item("b")) == 2
    assert journal.append("user", id_column="uid", upsert=[{"uid": 2**62, "city": "Zürich"}]) == 3
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
    journal.append("item", id_column="item_id", upsert=[item(3)], delete=[3, 2])
    for opened in (journal, open_journal()):
        assert [(entry.op, entry.id) for entry in opened.entries()] == [
            ("upsert", 1),
            ("delete", 2),
            ("upsert", 3),
        ]


def test_an_integer_is_not_the_text_of_it(open_journal: Open) -> None:
    put(open_journal(), item(1), item("1"))
    assert [entry.id for entry in open_journal().entries()] == [1, "1"]


def test_it_is_on_disk_before_append_returns(
    open_journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal()
    written: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: written.append(journal.path.read_text()))
    put(journal, item("a"), item("b"))
    assert len(written) == 1
    assert '"id":"b"' in written[0]


def test_a_line_is_json_with_a_checksum(open_journal: Open) -> None:
    journal = open_journal()
    put(journal, item("a\n\u2028"))
    (line,) = [json.loads(text) for text in journal.path.read_text("utf-8").split("\n") if text]
    assert set(line) == {"crc32", "entries"}
    (entry,) = line["entries"]
    assert set(entry) == {"seq", "time", "side", "op", "id", "record"}


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


@given(cut=st.integers(min_value=1))
def test_a_torn_last_line_is_dropped_with_a_warning(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    with Journal(folder) as journal:
        put(journal, item("a"))
        whole = journal.path.read_bytes()
        put(journal, item("b"), item("c"))
        last = len(journal.path.read_bytes()) - len(whole)
    os.truncate(folder / FILE, len(whole) + cut % last)
    with Journal(folder) as journal:
        assert [entry.id for entry in journal.entries()] == ["a"]
        assert journal.path.read_bytes() == whole
        put(journal, item("d"))
    with Journal(folder) as journal:
        assert [entry.id for entry in journal.entries()] == ["a", "d"]


def test_the_warning_names_file_and_line(
    open_journal: Open, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal()
    put(journal, item("a"))
    with journal.path.open("ab") as file:
        file.write(b"\0" * 100)
    with caplog.at_level(logging.WARNING):
        open_journal()
    assert f"{journal.path}: line 2: torn" in caplog.text


@given(where=st.integers(min_value=0), flip=st.integers(1, 255))
def test_damage_before_the_last_line_is_refused(
    where: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    with Journal(folder) as journal:
        put(journal, item("a"))
        put(journal, item("b"))
        size = len(journal.path.read_bytes())
        put(journal, item("c"))
        put(journal, item("d"))
    raw = bytearray((folder / FILE).read_bytes())
    raw[where % size] ^= flip
    (folder / FILE).write_bytes(raw)
    with pytest.raises(BundleError, match=r"fresh\.jsonl: line \d: damaged: .*; restore the file"):
        Journal(folder)
    (folder / FILE).unlink()
    Journal(folder).close()  # the lock is free again


def test_compaction_keeps_what_counts(
    open_journal: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SMALL", 20)
    journal = open_journal()
    put(journal, item("kept"))
    sizes = []
    for price in range(60):
        put(journal, item("often", price=price))
        sizes.append(journal.path.stat().st_size)
    assert max(sizes) < 25 * (sizes[1] - sizes[0])
    expected = journal.entries()
    assert content(journal) == [
        ("item", "kept", item("kept")),
        ("item", "often", item("often", price=59)),
    ]
    assert put(journal, item("after")) == 62
    assert open_journal().entries()[:2] == expected
    assert {path.name for path in journal.path.parent.iterdir()} == {FILE, ".lock"}
    assert not caplog.records


def test_a_compaction_that_fails_loses_nothing(
    open_journal: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "SMALL", 5)
    monkeypatch.setattr(module, "write_text_atomic", refuse)
    journal = open_journal()
    for price in range(12):
        put(journal, item("often", price=price))
    assert "could not be compacted: no space left" in caplog.text
    assert content(open_journal()) == [("item", "often", item("often", price=11))]


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_changes_nothing(
    open_journal: Open, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    journal = open_journal()
    put(journal, item("a"))
    file = journal._file

    class Full:
        """Takes half of what is written, as a disk does that gets full."""

        def write(self, line: bytes) -> int:
            return file.write(line[: len(line) // 2])

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

    def refuse(_: int) -> None:
        raise OSError("input/output error")

    with monkeypatch.context() as patched:
        if step == "write":
            patched.setattr(journal, "_file", Full())
        else:
            patched.setattr(os, "fsync", refuse)
        with pytest.raises(BundleError, match=r"could not be written .*nothing has changed"):
            put(journal, item("b"))
    assert [entry.id for entry in journal.entries()] == ["a"]
    put(journal, item("c"))
    assert [entry.id for entry in open_journal().entries()] == ["a", "c"]


@pytest.mark.parametrize("value", [float("nan"), b"bytes", {1, 2}, "\ud800"])
def test_records_that_json_cannot_hold_are_refused(open_journal: Open, value: object) -> None:
    journal = open_journal()
    with pytest.raises(QueryError, match="expected plain JSON values"):
        put(journal, item("a"), item("b", price=value))
    assert journal.entries() == []
    put(journal, item("c"))
    assert [entry.id for entry in open_journal().entries()] == ["c"]


def test_an_empty_change_is_not_written(open_journal: Open) -> None:
    journal = open_journal()
    assert put(journal) == 0
    assert journal.path.read_bytes() == b""


def test_entries_are_what_the_file_says(open_journal: Open) -> None:
    journal = open_journal()
    put(journal, item("a", price=2))
    (entry,) = journal.entries()
    assert entry == Entry(
        seq=1, time=entry.time, side="item", op="upsert", id="a", record=item("a", price=2)
    )
    assert entry.time.utcoffset() is not None
