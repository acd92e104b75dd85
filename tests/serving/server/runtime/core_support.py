"""What tests of the server's core ask of it, and wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serving.retrieval.questions import Hits
from serving.server.runtime.served_version import Served
from serving.server.runtime.server_core import ServerCore
from tests.patience import PATIENCE_S

ROW = 3
USER = 2**40 + ROW


async def ask(core: ServerCore, served: Served | None = None, *, k: int = 10) -> Hits:
    """The items for the user, by the current version or another."""
    served = served or core.versions.current()
    return await core.answer(served, served.retriever.ask("u2i", ids=[USER], k=k), model="u2i")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens sooner or later."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def is_current(core: ServerCore, version: int) -> Callable[[], bool]:
    return lambda: core.versions.is_ready and core.versions.current().version == version
