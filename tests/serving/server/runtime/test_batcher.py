from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from serving.server.errors import DeadlineError, OverloadedError, UnavailableError
from serving.server.runtime import batcher as batcher_module
from serving.server.runtime.batcher import CALM, LITTLE_S, Batcher
from tests.patience import PATIENCE_S
from towers.errors import QueryError

Test = Callable[..., Coroutine[Any, Any, None]]


class Slow:
    """Answers questions with themselves, once `go` is set, and remembers the batches."""

    def __init__(self) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()

    def __call__(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        self.threads.add(threading.get_ident())
        self.began.set()
        if not self.go.wait(timeout=PATIENCE_S):
            raise TimeoutError
        if -1 in questions:
            raise QueryError("a bad question")
        return list(questions)


def run(
    test: Test,
    *,
    max_batch: int = 8,
    max_queue: int = 100,
    timeout_s: float = PATIENCE_S,
    **given: Any,
) -> None:
    """Run a test with a batcher and a function whose first batch, of the question 0, has begun."""

    async def started() -> None:
        batcher = Batcher(max_batch=max_batch, max_queue=max_queue, timeout_s=timeout_s, **given)
        slow = Slow()
        first = asyncio.create_task(batcher.run(slow, 0))
        while not slow.began.is_set():
            await asyncio.sleep(0.001)
        try:
            await test(batcher, slow)
        finally:
            slow.go.set()
            await asyncio.gather(first, return_exceptions=True)
            await batcher.close()

    asyncio.run(started())


async def ask(batcher: Batcher, slow: Slow, *questions: int, size: int = 1) -> list[Any]:
    """Start to ask; the questions wait when this returns."""
    tasks = [asyncio.create_task(batcher.run(slow, question, size=size)) for question in questions]
    await asyncio.sleep(0)
    return tasks


def test_what_waits_while_a_batch_is_computed_is_the_next_batch() -> None:
    sizes: list[int] = []

    async def test(batcher: Batcher, slow: Slow) -> None:
        tasks = await ask(batcher, slow, 1, 2, 3)
        assert slow.batches == [[0]]
        slow.go.set()
        assert await asyncio.gather(*tasks) == [1, 2, 3]
        assert slow.batches == [[0], [1, 2, 3]]
        assert len(slow.threads) == 1

    run(test, observe=sizes.append)
    assert sizes == [1, 3]


def test_a_batch_holds_no_more_sources_than_allowed_and_all_are_answered_in_turn() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        tasks = await ask(batcher, slow, *range(1, 8), size=3)
        tasks += await ask(batcher, slow, 8, size=50)
        slow.go.set()
        assert await asyncio.gather(*tasks) == list(range(1, 9))
        assert slow.batches == [[0], [1, 2], [3, 4], [5, 6], [7], [8]]

    run(test)


def test_functions_take_turns_and_what_did_not_fit_comes_after_the_others() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        waiting = await ask(batcher, slow, 1, 2, 3, 4, 5)
        order: list[str] = []
        others = [
            asyncio.create_task(batcher.alone(lambda name=name: order.append(name)))  # type: ignore[misc]
            for name in "abc"
        ]
        await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.gather(*waiting) == [1, 2, 3, 4, 5]
        await asyncio.gather(*others)
        assert slow.batches == [[0], [1, 2], [3, 4], [5]]
        assert order == ["a", "b", "c"]

    run(test, max_batch=2)


def test_functions_that_differ_never_share_a_batch() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        other = Slow()
        other.go.set()
        tasks = [
            *await ask(batcher, slow, 1),
            *await ask(batcher, other, 2),
            *await ask(batcher, slow, 3),
            *await ask(batcher, other, 4),
        ]
        slow.go.set()
        assert await asyncio.gather(*tasks) == [1, 2, 3, 4]
        assert slow.batches == [[0], [1, 3]]
        assert other.batches == [[2, 4]]
        assert slow.threads == other.threads

    run(test)


def test_methods_of_one_object_share_batches_though_each_access_makes_another() -> None:
    class Echo:
        batches: list[Sequence[int]] = []  # noqa: RUF012 - of this test only

        def answer(self, questions: Sequence[int]) -> Sequence[int]:
            self.batches.append(questions)
            return questions

    async def test(batcher: Batcher, slow: Slow) -> None:
        echo = Echo()
        tasks = [asyncio.create_task(batcher.run(echo.answer, number)) for number in (1, 2)]
        await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.gather(*tasks) == [1, 2]
        assert echo.batches == [[1, 2]]

    run(test)


def test_an_error_reaches_its_own_question_only() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        tasks = await ask(batcher, slow, 1, 2, -1, 3, 4, 5)
        slow.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found.pop(2), QueryError)
        assert found == [1, 2, 3, 4, 5]
        assert await batcher.run(slow, 6) == 6

    run(test)


def test_a_full_queue_refuses_at_once_and_takes_again_what_it_has_room_for() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        tasks = await ask(batcher, slow, 1, 2, size=2)
        assert batcher.waiting == 4
        with pytest.raises(OverloadedError, match="at most 5 sources to wait, but 4 do and 2 came"):
            await batcher.run(slow, 3, size=2)
        tasks += await ask(batcher, slow, 4, size=1)
        assert batcher.waiting == 5
        slow.go.set()
        assert await asyncio.gather(*tasks) == [1, 2, 4]
        assert batcher.waiting == 0

    run(test, max_queue=5)


def test_what_comes_too_late_is_refused_and_what_then_still_waits_is_not_computed() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
            await batcher.run(slow, 1)
        assert batcher.waiting == 0
        slow.go.set()
        assert await batcher.together(slow, 2, size=1) == 2  # whose time is never over
        assert slow.batches == [[0], [2]]

    run(test, timeout_s=0.05)


def test_what_is_cancelled_is_not_computed_and_gives_its_place_back() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        gone, kept = await ask(batcher, slow, 1, 2)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert batcher.waiting == 1
        slow.go.set()
        assert await kept == 2
        assert slow.batches == [[0], [2]]

    run(test)


def test_cancelling_while_it_is_computed_harms_nobody_else() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        gone, kept = await ask(batcher, slow, 1, 2)
        slow.began.clear()
        slow.go.set()
        while len(slow.batches) < 2:
            await asyncio.sleep(0)
        gone.cancel()
        assert await kept == 2

    run(test)


def test_alone_runs_between_batches_however_full_the_queue_is_and_however_long_it_takes() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        before, *_ = await ask(batcher, slow, 1)
        thread = asyncio.create_task(batcher.alone(threading.get_ident))
        await asyncio.sleep(0.05)
        with pytest.raises(DeadlineError):
            await before
        slow.go.set()
        assert {await thread} == slow.threads

    run(test, timeout_s=0.02, max_queue=1)


def test_closing_answers_what_waits_and_refuses_what_comes() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        waiting, *_ = await ask(batcher, slow, 1)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="shutting down"):
            await batcher.run(slow, 2)
        slow.go.set()
        await closing
        assert await waiting == 1

    run(test)


def test_nothing_is_lost_or_mixed_up_under_load() -> None:
    """Many clients, each with one question after the other, of two functions."""

    def double(questions: Sequence[int]) -> list[int]:
        return [2 * question for question in questions]

    def negate(questions: Sequence[int]) -> list[int]:
        return [-question for question in questions]

    async def client(batcher: Batcher, number: int) -> None:
        for question in range(number, number + 200):
            assert await batcher.run(double, question) == 2 * question
            assert await batcher.run(negate, question, size=3) == -question

    async def test(batcher: Batcher, slow: Slow) -> None:
        slow.go.set()
        await asyncio.gather(*(client(batcher, number) for number in range(16)))
        assert batcher.waiting == 0

    run(test)


def test_where_questions_come_one_at_a_time_quick_ones_are_answered_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches: list[tuple[int, bool]] = []
    now = [0.0]
    monkeypatch.setattr(batcher_module, "perf_counter", lambda: now[0])

    def answer(seconds: Sequence[float]) -> Sequence[float]:
        batches.append((len(seconds), threading.current_thread() is threading.main_thread()))
        now[0] += sum(seconds)
        return seconds

    async def test() -> None:
        batcher = Batcher(max_batch=8, max_queue=8, timeout_s=PATIENCE_S)
        for _ in range(CALM + 1):
            assert await batcher.run(answer, 0.0, kind="quick") == 0.0
        assert await batcher.run(answer, 0.0, kind="new") == 0.0
        assert await batcher.run(answer, LITTLE_S, kind="quick") == LITTLE_S
        assert await batcher.run(answer, 0.0, kind="quick") == 0.0
        assert await batcher.run(answer, 0.0) == 0.0
        assert await batcher.run(answer, 0.0, kind="quick") == 0.0
        both = [batcher.run(answer, 0.0, kind="quick") for _ in "ab"]
        assert await asyncio.gather(*both) == [0, 0]
        last = asyncio.create_task(batcher.run(answer, 0.0, kind="quick"))
        await asyncio.sleep(0)
        await batcher.close()
        assert await last == 0.0

    asyncio.run(test())
    assert batches == [
        *[(1, False)] * CALM,  # others may be about to ask
        (1, True),
        (1, False),  # nobody knows yet whether it is quick
        (1, True),
        (1, False),  # since the last was not
        (1, False),
        (1, True),
        (2, False),
        (1, False),  # since others have asked meanwhile
    ]
