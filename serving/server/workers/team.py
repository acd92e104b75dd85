"""Team: has the changes made by one process of a server reach all of them before it answers.

The first process keeps the journal, and the others are connected to it. They send it the changes
that come to them. Once one is on disk and applied there, all others are told to read the journal,
and only then it is answered: so the next question finds it, whichever process answers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from asyncio import StreamReader, StreamWriter, Task
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.retrieval.fresh.entry import Id, Record
from serving.server.errors import UnavailableError
from serving.server.runtime.change_queue import Changed, ChangeQueue
from serving.server.runtime.metrics import Metrics
from serving.server.workers.figures import merge
from serving.server.workers.peer import LONGEST, Message, Peer
from towers.errors import RecallError
from towers.features.schema import Side

PATIENCE_S = 5.0
"""How long another process may take to read what was changed; it reads it later, too."""
AGAIN_S = 0.2
"""Between tries to reach the process that writes."""

LOG = logging.getLogger(__name__)


class Team:
    """The processes of one server, as one of them knows the others."""

    def __init__(self, socket: Path, *, number: int) -> None:
        """Meet at a socket in the file system; the process with the number 0 writes."""
        self._socket, self.number = socket, number
        self._peers: set[Peer] = set()
        """Of the process that writes: all others."""
        self._writer: Peer | None = None
        """Of all others: the one that writes."""
        self._running: list[Task[None]] = []
        self._round: Task[None] | None = None
        self._next: Task[None] | None = None

    @property
    def writes(self) -> bool:
        """Whether this process keeps the journal."""
        return self.number == 0

    async def start(self, changes: ChangeQueue, metrics: Metrics) -> None:
        """Meet the others; `changes` and `metrics` are those of this process."""
        self._changes, self._metrics = changes, metrics
        if self.writes:
            self._socket.unlink(missing_ok=True)
            serving = asyncio.start_unix_server(self._welcome, self._socket, limit=LONGEST)
            self._server = await serving
        else:
            self._running.append(asyncio.create_task(self._stay_connected()))

    async def close(self) -> None:
        """Leave the others."""
        for task in self._running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self.writes:
            self._server.close()
        for peer in [*self._peers, self._writer]:
            if peer is not None:
                peer.close()

    async def make(self, side: Side, *, upsert: Sequence[Record], delete: Sequence[Id]) -> Changed:
        """Make a change that every process answers with from now on.

        Raises:
            RecallError: as `ChangeQueue.make`; UnavailableError where no process writes.
        """
        if self.writes:
            changed = await self._changes.make(side, upsert=upsert, delete=delete)
            await self._tell()
            return changed
        if self._writer is None:
            raise UnavailableError("no process of the server writes now; ask again later")
        given = {"side": side, "upsert": list(upsert), "delete": list(delete)}
        return Changed(**await self._writer.ask("change", **given))

    async def figures(self) -> bytes:
        """The figures of all processes, with the number of each."""
        own = {str(self.number): self._metrics.text().decode()}
        if not self.writes:
            try:
                others = await self._writer.ask("figures of all") if self._writer else {}
            except UnavailableError:
                others = {}
            return merge(others | own)
        return merge(await self._gather() | own)

    async def _gather(self) -> dict[str, str]:
        asked = [_within(peer.ask("figures")) for peer in self._peers]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return {str(n): text for n, text in (x for x in found if not isinstance(x, BaseException))}

    async def _tell(self) -> None:
        """Have all others read the journal; those that ask meanwhile share the next round."""
        if self._next is None:
            self._next = asyncio.create_task(self._have_read(self._round))
        await asyncio.shield(self._next)

    async def _have_read(self, before: Task[None] | None) -> None:
        if before is not None:
            await before
        self._round, self._next = self._next, None
        asked = [_within(peer.ask("read")) for peer in self._peers]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, Exception):
                LOG.warning("a process reads a change late", extra={"error": repr(outcome)})

    async def _welcome(self, reader: StreamReader, writer: StreamWriter) -> None:
        peer = Peer(reader, writer, answer=self._answer)
        self._peers.add(peer)
        try:
            await peer.run()
        finally:
            self._peers.discard(peer)

    async def _stay_connected(self) -> None:
        """Be connected to the process that writes, whenever there is one."""
        while True:
            with suppress(OSError):
                ends = await asyncio.open_unix_connection(self._socket, limit=LONGEST)
                self._writer = Peer(*ends, answer=self._answer)
                try:
                    await self._read()  # what was written while nobody told
                    await self._writer.run()
                finally:
                    self._writer.close()
                    self._writer = None
            await asyncio.sleep(AGAIN_S)

    async def _read(self) -> None:
        with suppress(RecallError):  # no version is loaded, and the one that will be reads it
            await self._changes.follow()

    async def _answer(self, message: Message) -> Any:
        asked, body = message["ask"], message["body"]
        if asked == "change":
            return dataclasses.asdict(await self.make(**body))
        if asked == "read":
            await self._read()
            return None
        if asked == "figures":
            return self.number, self._metrics.text().decode()
        return await self._gather() | {str(self.number): self._metrics.text().decode()}


async def _within(asked: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await asked
