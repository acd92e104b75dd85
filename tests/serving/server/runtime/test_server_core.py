from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from serving.server.errors import DeadlineError, NotFoundError, UnavailableError
from serving.server.runtime.server_core import ServerCore
from serving.version.store import Store
from tests.patience import PATIENCE_S
from tests.serving.server.runtime.core_support import ROW, ask, is_current, until
from towers.errors import QueryError

if TYPE_CHECKING:
    from tests.serving.conftest import World
    from tests.serving.server.conftest import Running, Shifted

Best = Callable[..., list[str]]
Spoil = Callable[[Path, int], None]


def has_state(core: ServerCore, version: int, state: str) -> bool:
    return states(core).get(version) == state


def states(core: ServerCore) -> dict[int, str]:
    return {status.version: status.state for status in core.versions.statuses("u2i")}


def test_answers_are_those_of_the_version(running: Running, best: Best, world: World) -> None:
    async def test() -> None:
        async with running() as core:
            hits = await ask(core)
            assert hits.ids.tolist() == [best(ROW)]
            packed = (
                core.versions.current().retriever.tower("user").pack({"city": ["a", "b"]}, size=2)
            )
            vectors = await core.encode(core.versions.current(), "user", packed, model="user_tower")
            np.testing.assert_array_equal(
                vectors, core.versions.current().retriever.encode("user", packed)
            )
            sample = core.metrics.registry.get_sample_value
            told = {"model": "u2i", "direction": "u2i"}
            assert sample("fm_recall_answer_seconds_count", told) == 1
            assert sample("fm_recall_batch_sources_count") == 2
            assert sample("fm_recall_batch_sources_sum") == 3
            assert sample("fm_recall_version") == 1
            assert sample("fm_recall_index_size", {"direction": "u2i"}) == len(
                world.sides["item"].ids
            )

    asyncio.run(test())


def test_encoding_is_batched_and_each_client_gets_its_own_vectors(running: Running) -> None:
    async def test() -> None:
        async with running() as core:
            served = core.versions.current()
            tower = served.retriever.tower("user")
            histories: list[list[list[str]]] = [
                [["item 1"], ["item 2", "item 3"]],
                [[]],
                [[f"item {row}" for row in range(9)]],
            ]
            batches = [tower.pack({"history": lists}, size=len(lists)) for lists in histories]
            go = threading.Event()
            held = asyncio.create_task(core.compute(served, go.wait, model="u2i"))
            await asyncio.sleep(0)  # it holds up the others, so that they wait together
            asked = [
                asyncio.create_task(core.encode(served, "user", packed, model="user_tower"))
                for packed in batches
            ]
            await asyncio.sleep(0)
            go.set()
            await held
            found = await asyncio.gather(*asked)
            for packed, vectors in zip(batches, found, strict=True):
                expected = served.retriever.encode("user", packed)
                np.testing.assert_allclose(vectors, expected, rtol=1e-6)
            count = core.metrics.registry.get_sample_value("fm_recall_batch_sources_count")
            assert count == 2  # what held them, and they

    asyncio.run(test())


def test_a_directory_without_a_version_is_waited_for(
    running: Running, shifted: Shifted, tmp_path: Path, best: Best
) -> None:
    async def test() -> None:
        async with running(tmp_path) as core:
            assert not core.versions.is_ready
            with pytest.raises(UnavailableError, match="none is yet"):
                core.versions.current()
            with pytest.raises(NotFoundError, match="Could not find any versions of model u2i"):
                core.versions.statuses("u2i")
            shifted(tmp_path, 5)
            await asyncio.wait_for(core.versions.ready(), PATIENCE_S)
            assert (await ask(core)).ids.tolist() == [best(ROW, shift=5)]

    asyncio.run(test())


def test_a_damaged_version_at_the_start_leaves_the_host_unready_until_there_is_another(
    running: Running, shifted: Shifted, damage: Spoil, tmp_path: Path
) -> None:
    async def test() -> None:
        shifted(tmp_path, 0)
        damage(tmp_path, shifted(tmp_path, 1, activate=False))
        async with running(tmp_path) as core:
            assert not core.versions.is_ready
            assert states(core) == {2: "END"}
            Store(tmp_path).rollback()
            await until(is_current(core, 1))
            assert states(core) == {2: "END", 1: "AVAILABLE"}

    asyncio.run(test())


def test_models_are_found_by_version_and_label_and_else_not_in_the_words_of_tf_serving(
    running: Running,
) -> None:
    async def test() -> None:
        async with running() as core:
            for named in ({}, {"version": 1}, {"label": "current"}):
                assert core.versions.find("u2i", **named) is core.versions.current()
                assert [status.version for status in core.versions.statuses("u2i", **named)] == [1]
            calls: list[tuple[Callable[[], object], str]] = [
                (lambda: core.versions.find("x"), r"^Servable not found for request: Latest\(x\)$"),
                (
                    lambda: core.versions.find("u2i", version=7),
                    r"^Servable not found for request: Specific\(u2i, 7\)$",
                ),
                (lambda: core.versions.statuses("x"), "^Could not find any versions of model x$"),
                (
                    lambda: core.versions.statuses("u2i", version=7),
                    "^Could not find version 7 of model u2i$",
                ),
            ]
            for call, words in calls:
                with pytest.raises(NotFoundError, match=words):
                    call()
            for method in (core.versions.find, core.versions.statuses):
                with pytest.raises(QueryError, match=r"^Unrecognized servable version label: new$"):
                    method("u2i", label="new")

    asyncio.run(test())


@pytest.mark.slow
def test_a_new_version_is_swapped_in_and_the_old_one_answers_who_asked_it_and_is_freed(
    running: Running, shifted: Shifted, tmp_path: Path, best: Best
) -> None:
    async def test() -> None:
        shifted(tmp_path, 0)
        async with running(tmp_path) as core:
            old = core.versions.current()
            retriever = weakref.ref(old.retriever)
            shifted(tmp_path, 7)
            await until(is_current(core, 2))
            assert states(core) == {1: "UNLOADING", 2: "AVAILABLE"}
            assert (await ask(core)).ids.tolist() == [best(ROW, shift=7)]
            assert (await ask(core, old)).ids.tolist() == [best(ROW)]
            with pytest.raises(NotFoundError):
                core.versions.find("u2i", version=1)
            assert core.metrics.registry.get_sample_value("fm_recall_versions_in_memory") == 2
            del old
            await until(lambda: retriever() is None)
            await until(lambda: states(core) == {1: "END", 2: "AVAILABLE"})
            assert core.metrics.registry.get_sample_value("fm_recall_versions_in_memory") == 1

    asyncio.run(test())


@pytest.mark.slow
def test_a_refused_version_leaves_the_one_that_answers(
    running: Running, shifted: Shifted, damage: Spoil, outdate: Spoil, tmp_path: Path, best: Best
) -> None:
    async def test() -> None:
        shifted(tmp_path, 0)
        async with running(tmp_path) as core:
            for spoil in (damage, outdate):
                version = shifted(tmp_path, 1, activate=False)
                spoil(tmp_path, version)
                await until(partial(has_state, core, version, "END"))
                assert core.versions.current().version == 1
                assert (await ask(core)).ids.tolist() == [best(ROW)]
            sample = core.metrics.registry.get_sample_value
            assert sample("fm_recall_refused_versions_total") == 2
            version = shifted(tmp_path, 2)
            await until(is_current(core, version))

    asyncio.run(test())


def test_a_slow_answer_is_given_up_and_the_host_answers_the_next(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with running(timeout_s=0.1) as core:
            retriever, go = core.versions.current().retriever, threading.Event()
            answer = retriever.answer
            with monkeypatch.context() as patch:
                patch.setattr(retriever, "answer", lambda q: go.wait(PATIENCE_S) and answer(q))
                with pytest.raises(DeadlineError):
                    await ask(core)
                go.set()
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    with suppress(DeadlineError):
                        await ask(core)
                        break

    asyncio.run(test())


def test_a_closed_host_keeps_nothing_and_refuses(running: Running) -> None:
    async def test() -> weakref.ref[ServerCore]:
        async with running() as core:
            pass
        with pytest.raises(UnavailableError):
            core.versions.current()
        return weakref.ref(core)

    closed = asyncio.run(test())
    gc.collect()
    assert closed() is None


def test_what_waits_together_is_answered_in_one_batch_each_client_its_own(
    running: Running, best: Best
) -> None:
    async def client(core: ServerCore, row: int) -> None:
        served = core.versions.current()
        question = served.retriever.ask("u2i", ids=[2**40 + row], k=10)
        hits = await core.answer(served, question, model="u2i")
        assert hits.ids.tolist() == [best(row)]

    async def test() -> None:
        async with running() as core:
            sample = core.metrics.registry.get_sample_value
            for _ in range(20):
                go = threading.Event()
                async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
                    tasks.create_task(core.compute(core.versions.current(), go.wait, model="u2i"))
                    await asyncio.sleep(0)
                    for row in range(40):
                        tasks.create_task(client(core, row))
                    while sample("fm_recall_queue_sources") != 40:
                        await asyncio.sleep(0.001)
                    go.set()
            assert sample("fm_recall_batch_sources_count") == 20 * 2  # what held them, and they
            assert sample("fm_recall_batch_sources_sum") == 20 * (1 + 40)

    asyncio.run(test())
