"""SideThread: runs what takes long for one request, so that no query has to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from serving.server.errors import OverloadedError

P = ParamSpec("P")
A = TypeVar("A")

MOST_WAITING = 32
"""Calls that wait or run at most."""


class SideThread:
    """One thread, for searches and other work of the explorer. Used on one event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._waiting = 0

    async def run(self, function: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
        """Call a function on the thread.

        Raises:
            OverloadedError: too many wait.
            Exception: whatever `function` raises.
        """
        if self._waiting >= MOST_WAITING:
            raise OverloadedError(
                f"explorer: expected at most {MOST_WAITING} searches to wait, and they do; ask "
                "again later"
            )
        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._thread.submit(function, *args, **kwargs))
        finally:
            self._waiting -= 1
