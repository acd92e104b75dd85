"""Batcher: computes the answers of all requests on one thread, in batches.

While the thread is idle, work is done at once. While it is busy, work waits, and the next batch is
all that waits for the same function. So batches grow with the load, and nothing waits for a batch
to fill up.

Where questions come one at a time, those of a kind that takes little are answered on the event
loop itself: to wake a thread, and be woken by it, takes a fifth of a millisecond. Where they come
side by side they are not: what comes meanwhile would not be read, and the next batch be smaller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import Any, TypeVar

from serving.server.errors import DeadlineError, OverloadedError, UnavailableError

Q = TypeVar("Q")
A = TypeVar("A")
LITTLE_S = 0.002
"""What may keep the event loop from all else."""

CALM = 8
"""After so many batches of one question in a row, questions come one at a time."""

Function = Callable[[Sequence[Any]], Sequence[Any]]
"""Answers each of a sequence of questions; functions that are equal share batches."""


@dataclass(eq=False, slots=True)
class _Job:
    """One question that waits, is computed, or is done."""

    function: Function
    question: Any
    size: int
    future: asyncio.Future[Any]
    kind: str | None
    waits: bool = False
    """Whether it is in the queue, and counts there. Changed under the batcher's lock."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one question."""

    value: Any = None
    error: Exception | None = None


class Batcher:
    """Runs functions on one thread, in batches. Made, used and closed on one event loop."""

    def __init__(
        self,
        *,
        max_batch: int,
        max_queue: int,
        timeout_s: float | None,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Start the thread.

        Args:
            max_batch: the most sources in a batch of several questions.
            max_queue: the most sources that wait.
            timeout_s: how long a question may take, waiting included; None: as long as it needs.
            observe: told the size of each batch, in sources, on the thread.
        """
        self._max_batch, self._max_queue, self._timeout_s = max_batch, max_queue, timeout_s
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher")
        self._lock = Lock()
        self._queues: dict[Function, deque[_Job]] = {}
        """What waits for each function, that of the job that waits longest first."""
        self._waiting = 0
        self._took_s: dict[str, float] = {}
        """What the latest question of each kind took that was alone."""
        self._in_a_row = 0
        """How many batches of one question there were since the last of several."""
        self._busy = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many sources wait."""
        return self._waiting

    async def run(
        self,
        function: Callable[[Sequence[Q]], Sequence[A]],
        question: Q,
        *,
        size: int = 1,
        kind: str | None = None,
    ) -> A:
        """Answer one question, with others that have come for the same function.

        A batch that fails is asked again in halves, so an error reaches its own question only. A
        question that is cancelled, or whose time is over, before its batch has begun is
        not computed.

        Args:
            function: answers any number of questions.
            question: what to ask.
            size: how many sources the question has.
            kind: of questions that take about as long as each other, and maybe little; None: not.

        Raises:
            OverloadedError: the queue is full.
            DeadlineError: the time is over.
            UnavailableError: `close` has been called.
            Exception: whatever `function` raises for this question.
        """
        timeout_s = self._timeout_s
        return await self._run(function, question, size=size, timeout_s=timeout_s, kind=kind)

    async def alone(self, function: Callable[[], A]) -> A:
        """Call a function between two batches, however many wait and however long it takes.

        Raises:
            UnavailableError: `close` has been called.
            Exception: whatever `function` raises.
        """
        return await self._run(lambda _: [function()], None, size=0, timeout_s=None)

    async def together(
        self, function: Callable[[Sequence[Q]], Sequence[A]], question: Q, *, size: int
    ) -> A:
        """As `run`, however long it takes.

        Raises:
            OverloadedError, UnavailableError, Exception: as `run`.
        """
        return await self._run(function, question, size=size, timeout_s=None)

    async def close(self) -> None:
        """Finish what has begun or waits, and end the thread."""
        self._closed = True
        await asyncio.sleep(0)  # what is to begin does
        await self._loop.run_in_executor(None, self._thread.shutdown)

    async def _run(
        self,
        function: Callable[[Sequence[Q]], Sequence[A]],
        question: Q,
        *,
        size: int,
        timeout_s: float | None,
        kind: str | None = None,
    ) -> A:
        job = _Job(function, question, size, self._loop.create_future(), kind)
        timer = None if timeout_s is None else self._loop.call_later(timeout_s, self._expire, job)
        try:
            self._enter(job)
            answer: A = await job.future
            return answer
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(job)

    def _enter(self, job: _Job) -> None:
        if self._closed:
            raise UnavailableError("the server is shutting down; ask another, or again later")
        with self._lock:
            if self._busy and self._waiting + job.size > self._max_queue:
                raise OverloadedError(
                    f"queue: expected at most {self._max_queue} sources to wait, but "
                    f"{self._waiting} do and {job.size} came; ask again later, or more slowly"
                )
            self._queues.setdefault(job.function, deque()).append(job)
            job.waits = True
            self._waiting += job.size
            starts = not self._busy
            self._busy = True
        if starts and self._begins_here(job):
            self._loop.call_soon(self._begin)
        elif starts:
            self._thread.submit(self._work)

    def _begins_here(self, job: _Job) -> bool:
        """Whether to answer on the event loop a question that finds the thread idle."""
        if job.kind is None or self._in_a_row < CALM:
            return False
        return self._took_s.get(job.kind, LITTLE_S) < LITTLE_S

    def _begin(self) -> None:
        """Answer a question that is still alone here, and else on the thread; on the event loop."""
        jobs = [job for queue in self._queues.values() for job in queue]
        if len(jobs) == 1 and jobs[0].waits:
            batch = self._take()
            _deliver(batch, self._answer(batch))
        if self._queues:
            self._thread.submit(self._work)
        else:
            self._busy = False  # nobody else is at work, and only the event loop enters jobs

    def _leave(self, job: _Job) -> None:
        """Give up the job's place if it still waits; the thread passes over it."""
        if job.waits:
            with self._lock:
                if job.waits:
                    job.waits = False
                    self._waiting -= job.size

    def _expire(self, job: _Job) -> None:
        if not job.future.done():
            job.future.set_exception(
                DeadlineError(
                    f"timeout: expected an answer within {self._timeout_s} s, received none; ask "
                    "again later, or for less"
                )
            )

    def _work(self) -> None:
        """Answer batches until nothing waits; on the thread."""
        batch = self._take()
        while batch:
            answered, outcomes = batch, self._answer(batch)
            batch = self._take()  # first, so that who asks once more finds the thread idle
            self._loop.call_soon_threadsafe(_deliver, answered, outcomes)

    def _answer(self, batch: Sequence[_Job]) -> list[_Outcome]:
        """Answer the questions of a batch; on the thread, or in its place."""
        if sources := sum(job.size for job in batch):
            self._observe(sources)
        began = perf_counter()
        outcomes = _attempt(batch[0].function, [job.question for job in batch])
        self._in_a_row = self._in_a_row + 1 if len(batch) == 1 else 0
        if len(batch) == 1 and (kind := batch[0].kind) is not None:
            self._took_s[kind] = perf_counter() - began
        return outcomes

    def _take(self) -> list[_Job]:
        """Take the jobs of the function whose turn it is that fit into one batch.

        What does not fit has its turn again after all others.
        """
        batch: list[_Job] = []
        room = self._max_batch
        with self._lock:
            while self._queues and not batch:
                function = next(iter(self._queues))
                queue = self._queues.pop(function)
                while queue and room > 0 and not (batch and queue[0].size > room):
                    job = queue.popleft()
                    if job.waits:
                        job.waits = False
                        self._waiting -= job.size
                        room -= job.size
                        batch.append(job)
                if queue:
                    self._queues[function] = queue
            self._busy = bool(batch)
        return batch


def _attempt(function: Function, questions: Sequence[Any]) -> list[_Outcome]:
    """Ask all at once and, if that fails, the two halves."""
    try:
        return [_Outcome(answer) for answer in function(questions)]
    except Exception as error:  # noqa: BLE001 - the one who asked gets it
        if len(questions) == 1:
            return [_Outcome(error=error)]
    middle = len(questions) // 2
    return [*_attempt(function, questions[:middle]), *_attempt(function, questions[middle:])]


def _deliver(batch: Sequence[_Job], outcomes: Sequence[_Outcome]) -> None:
    """Hand the outcomes to those who still wait for them; on the event loop."""
    for job, outcome in zip(batch, outcomes, strict=True):
        if job.future.done():
            continue
        if outcome.error is None:
            job.future.set_result(outcome.value)
        else:
            job.future.set_exception(outcome.error)
