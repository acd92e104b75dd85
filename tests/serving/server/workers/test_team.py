"""A team of processes, here in one: each with a core and a connection to the one that writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from serving.retrieval.fresh.journal import Journal
from serving.server.errors import UnavailableError
from serving.server.runtime.server_core import ServerCore
from serving.server.runtime.settings import ServerSettings
from serving.server.workers import team as team_of_processes
from serving.server.workers.team import Team
from tests.patience import PATIENCE_S
from towers.errors import QueryError, StorageError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is slow to read what was changed is waited for, however busy the machine."""
    monkeypatch.setattr(team_of_processes, "PATIENCE_S", PATIENCE_S)


FRESH = {"item_id": "fresh", "genres": ["x"], "price": 1.0, "title": "Fresh"}


def has(core: ServerCore, id: str) -> bool:
    (row,) = core.versions.current().retriever.catalogue("item").rows([id]).tolist()
    return bool(row >= 0)


@asynccontextmanager
async def team(models: Path, journal: Path, *, n: int = 3) -> AsyncIterator[list[ServerCore]]:
    """Cores of which the first writes; `poll_s` is so long that nobody looks by itself."""
    settings = ServerSettings(poll_s=3600, timeout_s=PATIENCE_S, max_unknown=2)
    with TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            cores = []
            for number in range(n):
                kept = stack.enter_context(Journal(journal, read_only=number > 0))
                its = Team(Path(folder) / "team", number=number)
                core = ServerCore(models, settings=settings, journal=kept, team=its)
                cores.append(await stack.enter_async_context(core))
            for core in cores:
                await core.versions.ready()
            async with asyncio.timeout(PATIENCE_S):
                while len(cores[0]._team._peers) < n - 1:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)
            yield cores


def running(models: Path, journal: Path, test: Callable[[list[ServerCore]], Any]) -> None:
    async def run() -> None:
        async with team(models, journal) as cores:
            await test(cores)

    asyncio.run(run())


@pytest.mark.parametrize("asked", [0, 2])
def test_a_change_counts_in_every_process_before_it_is_answered(
    published: Path, tmp_path: Path, asked: int
) -> None:
    async def test(cores: list[ServerCore]) -> None:
        changed = await cores[asked].change("item", upsert=[FRESH])
        assert (changed.version, changed.inserted) == (1, 1)
        assert [has(core, "fresh") for core in cores] == [True] * 3
        changed = await cores[asked].change("item", delete=["fresh", "item 7"])
        assert (changed.deleted, changed.unknown) == (2, 0)
        assert not any(has(core, id) for core in cores for id in ("fresh", "item 7"))

    running(published, tmp_path, test)


def test_many_changes_by_all_processes_reach_all(published: Path, tmp_path: Path) -> None:
    async def test(cores: list[ServerCore]) -> None:
        async def put(number: int) -> None:
            record = FRESH | {"item_id": f"fresh {number}"}
            await cores[number % 3].change("item", upsert=[record])
            assert all(has(core, f"fresh {number}") for core in cores)

        await asyncio.gather(*map(put, range(30)))

    running(published, tmp_path, test)


def test_what_the_writing_process_refuses_is_refused_in_its_words(
    published: Path, tmp_path: Path
) -> None:
    async def test(cores: list[ServerCore]) -> None:
        with pytest.raises(QueryError, match="unknown columns"):
            await cores[1].change("item", upsert=[FRESH | {"colour": "red"}])
        with pytest.raises(StorageError, match="remembered"):
            await cores[1].change("item", delete=["a", "b", "c"])

    running(published, tmp_path, test)


def test_without_the_writing_process_questions_are_answered_and_changes_wait(
    published: Path, tmp_path: Path
) -> None:
    async def test(cores: list[ServerCore]) -> None:
        await cores[0]._team.close()  # type: ignore[union-attr]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await cores[1].change("item", upsert=[FRESH])
                except UnavailableError:
                    break
        served = cores[1].versions.current()
        question = served.retriever.ask("u2i", ids=[2**40 + 3], k=3)
        assert (await cores[1].answer(served, question, model="u2i")).rows.shape == (1, 3)

    running(published, tmp_path, test)


@pytest.mark.parametrize("asked", [0, 1])
def test_any_process_tells_the_figures_of_all(published: Path, tmp_path: Path, asked: int) -> None:
    async def test(cores: list[ServerCore]) -> None:
        cores[2].metrics.count(surface="rest", model="u2i", code="OK")
        text = (await cores[asked].figures()).decode()
        for number in range(3):
            assert f'fm_recall_version{{worker="{number}"}} 1.0' in text
        counted = 'fm_recall_requests_total{code="OK",model="u2i",surface="rest",worker="2"} 1.0'
        assert counted in text
        assert text.count("# TYPE fm_recall_version gauge") == 1

    running(published, tmp_path, test)
