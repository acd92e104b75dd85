"""Changes that wait are written together; each has its own answer or error, in the order asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.retrieval.fresh.entry import Draft
from serving.retrieval.fresh.journal import Journal
from serving.server.runtime.change_queue import Changed
from serving.server.runtime.served_version import Served
from serving.server.runtime.server_core import ServerCore
from tests.patience import PATIENCE_S
from towers.errors import QueryError, ReadOnlyError, StorageError

if TYPE_CHECKING:
    from tests.serving.server.conftest import Running, Shifted

Ids = list[list[int | str]]


def fresh(id: str) -> dict[str, Any]:
    return {"item_id": id, "genres": ["x"], "price": 1.0, "title": "Fresh"}


class Disk:
    """Lets a journal write once `go` is set, and refuses the ids in `full`."""

    def __init__(self, journal: Journal, *, full: Sequence[str] = ()) -> None:
        self._append, self._full = journal.append, full
        self.begun, self.go = threading.Event(), threading.Event()
        self.asked: Ids = []

    def append(self, requests: Sequence[Sequence[Draft]]) -> list[int]:
        ids = [draft.id for request in requests for draft in request]
        self.asked.append(ids)
        self.begun.set()
        assert self.go.wait(PATIENCE_S)
        if set(self._full) & set(ids):
            raise StorageError("/srv/models/journal/fresh.sqlite: the disk is full")
        return self._append(requests)


async def change_while_it_writes(
    core: ServerCore, disk: Disk, changes: Sequence[dict[str, Any]]
) -> list[Changed | BaseException]:
    """Begin with one change, and ask for `changes` before it is on disk."""
    first = asyncio.create_task(core.change("item", upsert=[fresh("first")]))
    await asyncio.to_thread(disk.begun.wait, PATIENCE_S)
    waiting = [asyncio.create_task(core.change("item", **change)) for change in changes]
    async with asyncio.timeout(PATIENCE_S):
        while core._changes._disk.waiting < len(changes):
            await asyncio.sleep(0)
    disk.go.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


@pytest.fixture
def during(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[Changed | BaseException], Ids, Ids]]:
    """Makes changes while another is written.

    It gives their answers, the ids that the journal was asked to write each time, and what is known
    of the ids of `changes` afterwards: in the journal, and in the version that answers.
    """

    def during(
        changes: Sequence[dict[str, Any]], *, full: Sequence[str] = ()
    ) -> tuple[list[Changed | BaseException], Ids, Ids]:
        async def test() -> tuple[list[Changed | BaseException], Ids, Ids]:
            with Journal(tmp_path) as journal:
                disk = Disk(journal, full=full)
                monkeypatch.setattr(journal, "append", disk.append)
                async with running(journal=journal) as core:
                    answers = await change_while_it_writes(core, disk, changes)
                    catalogue = core.versions.current().retriever.catalogue("item")
                    put = [entry.id for entry in journal.entries() if entry.record is not None]
                    found = catalogue.ids(catalogue.rows(put)).tolist()
            return answers, disk.asked, [put, found]

        return asyncio.run(test())

    return during


Made = Callable[..., tuple[list[Changed | BaseException], Ids, Ids]]


def test_all_that_wait_are_written_together_in_order(during: Made) -> None:
    changes: list[dict[str, Any]] = [
        {"upsert": [fresh("a"), fresh("b")]},
        {"delete": ["a"]},
        {"upsert": [fresh("a")]},
        {"delete": ["b", "c"]},
    ]
    answers, asked, known = during(changes)
    assert asked == [["first"], ["a", "b", "a", "a", "b", "c"]]
    assert answers == [
        Changed(1, inserted=2, replaced=0, deleted=0, unknown=0),
        Changed(1, inserted=0, replaced=0, deleted=1, unknown=0),
        Changed(1, inserted=1, replaced=0, deleted=0, unknown=0),
        Changed(1, inserted=0, replaced=0, deleted=1, unknown=1),
    ]
    assert known == [["first", "a"], ["first", "a"]]


def test_a_change_that_cannot_be_written_fails_alone(during: Made) -> None:
    names = ["a", "b", "huge", "c"]
    changes = [{"upsert": [fresh(name)]} for name in names]
    answers, asked, known = during(changes, full=["huge"])
    assert asked[:2] == [["first"], names]
    assert [type(answer) for answer in answers] == [Changed, Changed, StorageError, Changed]
    assert "nothing has changed" in str(answers[2])
    assert "/srv" not in str(answers[2])
    assert known == [["first", "a", "b", "c"], ["first", "a", "b", "c"]]


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["to fit", "to be applied"])
def test_what_is_on_disk_is_never_answered_as_refused(
    running: Running, shifted: Shifted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A version that it does not fit comes between the check and the disk."""

    def refusing(change: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(side: Any, **given: Any) -> Any:
            if fails == "to be applied":
                raise MemoryError
            if given.get("upsert"):
                raise QueryError("unknown columns")
            return change(side, **given)

        return refuse

    async def test() -> None:
        shifted(tmp_path / "models", 0)
        with Journal(tmp_path / "journal") as journal:
            disk = Disk(journal)
            monkeypatch.setattr(journal, "append", disk.append)
            async with running(tmp_path / "models", journal=journal) as core:
                change = asyncio.create_task(core.change("item", upsert=[fresh("a"), fresh("b")]))
                await asyncio.to_thread(disk.begun.wait, PATIENCE_S)
                monkeypatch.setattr(Served, "open", opening())
                shifted(tmp_path / "models", 1)
                async with asyncio.timeout(PATIENCE_S):
                    while core.versions.current().version != 2:
                        await asyncio.sleep(0.01)
                disk.go.set()
                answer = await change
            assert answer == Changed(2, inserted=0, replaced=0, deleted=0, unknown=0, left_out=2)
            assert [entry.id for entry in journal.entries()] == ["a", "b"]

    def opening() -> Any:
        opened = Served.open

        def open_it(*given: Any, **settings: Any) -> Served:
            served = opened(*given, **settings)
            monkeypatch.setattr(served.retriever, "change", refusing(served.retriever.change))
            return served

        return open_it

    asyncio.run(test())


@pytest.mark.slow
def test_a_server_that_only_reads_follows_the_journal(
    running: Running, published: Path, tmp_path: Path
) -> None:
    async def test() -> None:
        with Journal(tmp_path) as journal, Journal(tmp_path, read_only=True) as reader:
            async with (
                running(journal=journal) as core,
                running(journal=reader, read_only=True) as other,
            ):
                await core.change("item", upsert=[fresh("a")])
                catalogue = other.versions.current().retriever.catalogue("item")
                async with asyncio.timeout(PATIENCE_S):
                    while catalogue.rows(["a"])[0] < 0:
                        await asyncio.sleep(0.01)
                with pytest.raises(ReadOnlyError, match="only reads"):
                    await other.change("item", delete=["a"])

    asyncio.run(test())


@pytest.mark.slow
def test_deletes_of_ids_that_are_not_there_are_bounded(running: Running, tmp_path: Path) -> None:
    async def test() -> None:
        with Journal(tmp_path) as journal:
            async with running(journal=journal, max_unknown=3) as core:
                await core.change("item", delete=["item 1", "item 2", "?1", "?2"])
                await core.change("item", delete=["?1", "?3"])
                with pytest.raises(StorageError, match=r"at most 3 items .* 3 are and 2 came"):
                    await core.change("item", delete=["?4", "?1"])
                await core.change("user", delete=[1])  # of each side
            async with running(journal=journal, max_unknown=3) as core:  # after a restart
                with pytest.raises(StorageError):
                    await core.change("item", delete=["?5"])
                await core.change("item", upsert=[fresh("?1")])
                await core.change("item", delete=["?5", "item 3", "item 2"])
            assert sorted(journal.deleted("item")) == [
                "?2", "?3", "?5", "item 1", "item 2", "item 3",
            ]  # fmt: skip

    asyncio.run(test())
