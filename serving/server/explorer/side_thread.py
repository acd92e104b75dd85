"""SideThread: runs what takes long for one request, so that no query has to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import ParamSpec, TypeVar

from serving.server.errors import OverloadedError

P = ParamSpec("P")
A = TypeVar("A")


class SideThread:
    """One thread, for searches and other work of the explorer."""

    def __init__(self, name: str, *, most_waiting: int) -> None:
        """Name the thread; at most `most_waiting` calls wait or run."""
        self._name, self._most_waiting = name, most_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._room = BoundedSemaphore(most_waiting)

    def run(self, function: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[A]:
        """Call a function on the thread.

        Raises:
            OverloadedError: too many calls wait.
        """
        if not self._room.acquire(blocking=False):
            raise OverloadedError(
                f"{self._name}: expected at most {self._most_waiting} questions to wait, and they "
                "do; ask again later"
            )
        running = self._thread.submit(function, *args, **kwargs)
        running.add_done_callback(lambda _: self._room.release())
        return asyncio.wrap_future(running)
