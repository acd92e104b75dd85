"""OtherVersion: opens another published version, to compare it with the one that answers."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import TypeVar

from serving.retrieval.retriever import Retriever
from serving.server.errors import ConflictError, NotFoundError, UnavailableError
from serving.server.explorer.side_thread import SideThread
from serving.server.runtime.server_core import ServerCore
from serving.version.store import Store
from towers.errors import BundleError

A = TypeVar("A")

LOG = logging.getLogger(__name__)

MOST_WAITING = 8
"""Questions to other versions that wait at most."""


class OtherVersion:
    """Keeps the version that was asked last open. Works on a thread of its own."""

    def __init__(self, core: ServerCore) -> None:
        """Open versions of the models directory of `core`."""
        self._core = core
        self._thread = SideThread("other", most_waiting=MOST_WAITING)
        self._retriever: Retriever | None = None
        self._replayed = 0

    async def ask(self, version: int, question: Callable[[Retriever], A]) -> A:
        """Open a version, unless it is open, and ask it a question. It has fresh users and items.

        Where this takes longer than a request may take, it goes on after the request has failed,
        so that a later request finds the version open.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: it cannot be used.
            OverloadedError: too many questions wait.
            UnavailableError: it is still being opened.
            QueryError: the question cannot be answered.
        """
        answered = self._thread.run(self._ask, version, question)
        await asyncio.wait([answered], timeout=self._core.settings.timeout_s)
        if not answered.done():
            answered.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise UnavailableError(
                f"version {version} is still being opened; ask again in a few seconds"
            )
        return answered.result()

    def _ask(self, version: int, question: Callable[[Retriever], A]) -> A:
        try:
            return question(self._open(version))
        except BundleError as error:
            LOG.error("version unusable", extra={"version": version, "error": str(error)})
            raise ConflictError(
                f"version {version} cannot be used; the server's log says why"
            ) from None

    def _open(self, version: int) -> Retriever:
        """Open a version, unless it is the one that was asked last, and bring it up to date."""
        versions = Store(self._core.models).versions()
        if version not in versions:
            raise NotFoundError(f"other: expected one of {versions[-20:]}, received {version}")
        if self._retriever is None or self._retriever.version != version:
            self._retriever = None  # two at once would take the room of two
            gc.collect()
            bundle = Store(self._core.models).open(version)
            self._retriever, self._replayed = Retriever(bundle), 0
        self._replayed = self._core.catch_up(self._retriever, after=self._replayed)
        return self._retriever
