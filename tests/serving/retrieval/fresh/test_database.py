"""A server that is killed, and a file that is damaged: the one is made good, the other is said."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.retrieval.fresh.database import SCHEMA
from serving.retrieval.fresh.entry import list_drafts
from serving.retrieval.fresh.journal import FILE, Journal
from tests.examples import examples
from tests.serving.retrieval.fresh import killed_server
from towers.errors import BundleError

ROOT = Path(__file__).parents[4]
SIZES = [str(size) for size in (0, 1, 511, 512, 513, 1000, 3000, *range(4096, 50_000, 3001))]
"""Up to where files may be written before the server is killed: from nothing to all of it."""
HOT = f"{FILE}-journal"
"""SQLite's rollback journal, which is there only while a change is written."""

Folders = dict[int, Path]


def ids(folder: Path) -> list[int | str]:
    with Journal(folder) as journal:
        return [entry.id for entry in journal.entries()]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders of servers that were killed while they wrote, by how far the files had come."""
    root = tmp_path_factory.mktemp("killed")
    ended = subprocess.run(
        [sys.executable, killed_server.__file__, str(root), *SIZES],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "."},
    )
    how = [line.split() for line in ended.stdout.splitlines()]
    assert {int(status) for _, status in how} == {0, signal.SIGXFSZ}
    return {int(size): root / size for size, status in how if int(status) == signal.SIGXFSZ}


def copied(folder: Path, into: Path) -> Path:
    into.mkdir()
    for file in folder.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    return into


def test_a_server_killed_anywhere_loses_only_what_it_was_writing(
    killed: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert any((folder / FILE).stat().st_size > 40_000 for folder in killed.values())
    for size, folder in killed.items():
        caplog.clear()
        again = copied(folder, tmp_path / str(size))
        with caplog.at_level(logging.WARNING), Journal(again) as journal:
            assert [entry.id for entry in journal.entries()] == ["before"]
            assert "so the change is left out; nobody was told that it was made" in caplog.text
            after = list_drafts("item", id_column="id", upsert=[{"id": "after"}])
            assert journal.append([after]) == [2]
        assert ids(again) == ["before", "after"]


def test_a_rollback_journal_that_is_cut_off_never_loses_what_was_answered(
    killed: Folders, tmp_path: Path
) -> None:
    """SQLite has it on disk before it touches the database, so no kill leaves such files."""
    opened = refused = 0
    for size, folder in killed.items():
        whole = (folder / HOT).stat().st_size
        for number, length in enumerate(range(0, whole, max(whole // 6, 1))):
            cut = copied(folder, tmp_path / f"{size} {number}")
            os.truncate(cut / HOT, length)
            try:
                assert ids(cut) in (["before"], ["before", "a", "b"])
                opened += 1
            except BundleError:
                refused += 1
    assert min(opened, refused) > 0


@settings(max_examples=examples(60), deadline=None)
@given(
    size=st.sampled_from(range(len(SIZES))),
    where=st.integers(min_value=0),
    flip=st.integers(1, 255),
)
def test_a_rollback_journal_with_a_changed_byte_never_loses_what_was_answered(
    killed: Folders, tmp_path_factory: pytest.TempPathFactory, size: int, where: int, flip: int
) -> None:
    folder = killed[sorted(killed)[size % len(killed)]]
    changed = copied(folder, tmp_path_factory.mktemp("changed") / "journal")
    raw = bytearray((changed / HOT).read_bytes())
    if raw:
        raw[where % len(raw)] ^= flip
    (changed / HOT).write_bytes(raw)
    with suppress(BundleError):
        assert ids(changed) in (["before"], ["before", "a", "b"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a journal with several pages of entries."""
    folder = tmp_path_factory.mktemp("whole")
    with Journal(folder) as journal:
        for number in range(5):
            items = [{"item_id": f"{number} {n}", "text": "x" * 150} for n in range(20)]
            journal.append([list_drafts("item", id_column="item_id", upsert=items)])
        journal.append([list_drafts("item", id_column="item_id", delete=["2 2", "3 3"])])
    return (folder / FILE).read_bytes()


@pytest.fixture
def holds(tmp_path: Path) -> Callable[[bytes], Any]:
    """What a journal with the file `raw` holds; None where it is refused as damaged."""

    def holds(raw: bytes) -> Any:
        folder = tmp_path / "journal"
        folder.mkdir(exist_ok=True)
        for left in folder.iterdir():
            left.unlink()
        (folder / FILE).write_bytes(raw)
        try:
            with Journal(folder) as journal:
                return journal.entries()
        except BundleError as error:
            assert f"{folder / FILE}: damaged: " in str(error)
            assert "restore the file from a copy" in str(error)
            return None

    return holds


def test_a_file_that_is_cut_off_is_refused(whole: bytes, holds: Callable[[bytes], Any]) -> None:
    assert len(holds(whole)) == 100
    for start, end in pairwise([*range(0, len(whole), 1024), len(whole)]):
        assert holds(whole[:start]) is None
        assert holds(whole[: end - 1]) is None


@settings(max_examples=examples(150), deadline=None)
@given(where=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_changed_byte_is_found_or_changes_nothing(
    where: int, flip: int, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It changes nothing where SQLite keeps nothing, such as between the rows of a page."""
    raw = bytearray(whole)
    raw[where % len(raw)] ^= flip
    folders = [tmp_path_factory.mktemp("changed") for _ in range(2)]
    for folder, content in zip(folders, (whole, bytes(raw)), strict=True):
        (folder / FILE).write_bytes(content)
    with Journal(folders[0]) as journal:
        expected = journal.entries()
    try:
        with Journal(folders[1]) as journal:
            assert journal.entries() == expected
    except BundleError as error:
        assert "damaged" in str(error)


def test_a_changed_byte_of_an_entry_is_found(whole: bytes, holds: Callable[[bytes], Any]) -> None:
    for found in (b'"4 7"', b"xxx", b"item4 7", b"+00:00"):
        place = whole.rindex(found) + 2
        assert holds(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]) is None


def test_a_row_that_is_gone_is_found(tmp_path: Path) -> None:
    """Each row that is left has its checksum, and SQLite finds nothing amiss."""
    with Journal(tmp_path) as journal:
        journal.append([list_drafts("item", id_column="id", upsert=[{"id": "a"}, {"id": "b"}])])
        journal._database.execute("DROP TRIGGER count_removed")
        (sql,) = [sql for sql in SCHEMA if "count_removed" in sql]
        journal._database.execute("DELETE FROM entries WHERE id = 'a'")
        journal._database.execute(sql)
    with pytest.raises(BundleError, match="it has other entries than were written"):
        Journal(tmp_path)


def test_another_database_is_no_journal(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal._database.execute("CREATE TABLE other (x)")
    with pytest.raises(BundleError, match="its tables are not those of a journal"):
        Journal(tmp_path)
    (tmp_path / FILE).write_text("no database at all")
    with pytest.raises(BundleError, match="damaged: file is not a database"):
        Journal(tmp_path)
    (tmp_path / FILE).unlink()
    Journal(tmp_path).close()  # the lock is free again
