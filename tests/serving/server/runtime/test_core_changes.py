"""Fresh changes through the server's core: kept, visible, and never lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.retrieval.fresh.journal import Journal
from serving.server.errors import OverloadedError, UnavailableError
from serving.server.runtime.change_queue import MOST_WAITING
from serving.server.runtime.server_core import ServerCore
from tests.patience import PATIENCE_S
from tests.serving.server.runtime.core_support import ROW, ask, is_current, until
from towers.errors import QueryError

if TYPE_CHECKING:
    from tests.serving.server.conftest import Running, Shifted

FRESH: dict[str, Any] = {"item_id": "fresh", "genres": ["x"], "price": 1.0, "title": "Fresh"}

Best = Callable[..., list[str]]


@pytest.mark.slow
def test_a_change_is_visible_at_once_and_kept_across_a_restart_and_by_the_next_version(
    running: Running, shifted: Shifted, tmp_path: Path, best: Best
) -> None:
    gone = best(ROW)[0]

    async def found(core: ServerCore) -> set[str]:
        return set((await ask(core, k=121)).ids[0])

    async def test() -> None:
        models = tmp_path / "models"
        shifted(models, 0)
        with Journal(tmp_path / "journal") as journal:
            async with running(models, journal=journal) as core:
                assert gone in await found(core)
                changed = await core.change("item", upsert=[FRESH], delete=[gone])
                assert (changed.version, changed.inserted, changed.deleted) == (1, 1, 1)
                assert "fresh" in await found(core)
                assert gone not in await found(core)
                version = shifted(models, 1)
                await until(is_current(core, version))
                assert "fresh" in await found(core)
                assert gone not in await found(core)
        with Journal(tmp_path / "journal") as journal:
            async with running(models, journal=journal) as core:
                assert "fresh" in await found(core)
                assert gone not in await found(core)

    asyncio.run(test())


@pytest.mark.slow
def test_no_change_is_lost_while_versions_are_swapped(
    running: Running, shifted: Shifted, tmp_path: Path
) -> None:
    async def test() -> None:
        models = tmp_path / "models"
        shifted(models, 0)
        with Journal(tmp_path / "journal") as journal:
            async with running(models, journal=journal) as core:
                added: list[str] = []
                for shift in range(1, 4):
                    version = shifted(models, shift)
                    while core.versions.current().version != version:
                        name = f"fresh {len(added)}"
                        changed = await core.change("item", upsert=[{**FRESH, "item_id": name}])
                        added.append(name)
                        assert changed.version in {version - 1, version}
                        await asyncio.sleep(0.005)
                        rows = core.versions.current().retriever.catalogue("item").rows(added)
                        assert (rows >= 0).all()
                assert len(added) >= 3

    asyncio.run(test())


def test_a_change_is_made_though_its_client_goes_away(running: Running, tmp_path: Path) -> None:
    async def test() -> None:
        with Journal(tmp_path) as journal:
            async with running(journal=journal) as core:
                asking = asyncio.create_task(core.change("item", upsert=[FRESH]))
                await asyncio.sleep(0)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                catalogue = core.versions.current().retriever.catalogue("item")
                await until(lambda: bool((catalogue.rows(["fresh"]) >= 0).all()))
            assert [entry.id for entry in journal.entries()] == ["fresh"]

    asyncio.run(test())


@pytest.mark.slow
def test_a_change_that_does_not_fit_changes_nothing(running: Running, tmp_path: Path) -> None:
    async def test() -> None:
        with Journal(tmp_path) as journal:
            async with running(journal=journal) as core:
                with pytest.raises(QueryError, match="colour"):
                    await core.change("item", upsert=[{**FRESH, "colour": "red"}])
                assert not journal.entries()
        async with running() as core:
            with pytest.raises(UnavailableError, match="journal"):
                await core.change("item", upsert=[FRESH])

    asyncio.run(test())


@pytest.mark.slow
def test_changes_that_the_disk_cannot_keep_up_with_are_refused(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    async def test() -> None:
        with Journal(tmp_path) as journal:
            append = journal.append
            monkeypatch.setattr(
                journal, "append", lambda *a, **b: go.wait(PATIENCE_S) and append(*a, **b)
            )
            async with running(journal=journal) as core:
                waiting = [
                    asyncio.create_task(core.change("item", upsert=[FRESH]))
                    for _ in range(MOST_WAITING)
                ]
                await asyncio.sleep(0)
                with pytest.raises(OverloadedError, match="changes: expected at most 64"):
                    await core.change("item", upsert=[FRESH])
                await ask(core)  # questions do not wait for the disk
                go.set()
                await asyncio.gather(*waiting)
                await core.change("item", upsert=[FRESH])

    asyncio.run(test())
