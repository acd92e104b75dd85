"""Peer: the other end of a connection between two processes of one server."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, StreamReader, StreamWriter, Task
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import orjson

from serving.server.errors import UnavailableError
from towers.errors import RecallError

Message = dict[str, Any]
Answer = Callable[[Message], Awaitable[Any]]

LONGEST = 2**28
"""Bytes of a message: more than the body of any request."""

LOG = logging.getLogger(__name__)


class Peer:
    """Both ends ask, and answer what they are asked; a line of JSON each time."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, *, answer: Answer) -> None:
        """Take a connection; `run` reads from it, and `answer` answers what comes."""
        self._reader, self._writer, self._answer = reader, writer, answer
        self._waiting: dict[int, Future[Any]] = {}
        self._tasks: set[Task[None]] = set()
        self._last = 0
        self._closed = False

    async def ask(self, what: str, **body: Any) -> Any:
        """Ask the other end.

        Raises:
            UnavailableError: it is gone.
            RecallError: what it refuses with.
        """
        if self._closed:
            raise _gone()
        self._last += 1
        future = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        number = self._last
        try:
            await self._write({"ask": what, "number": number, "body": body})
            return await future
        except ConnectionError:
            raise _gone() from None
        finally:
            self._waiting.pop(number, None)

    async def run(self) -> None:
        """Read until the other end is gone."""
        try:
            while line := await self._reader.readline():
                self._take(orjson.loads(line))
        except (ConnectionError, ValueError) as error:
            LOG.warning("another process of the server is gone", extra={"error": str(error)})
        finally:
            self.close()

    def close(self) -> None:
        """End the connection; what waits for an answer gets none."""
        self._closed = True
        self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_gone())

    def _take(self, message: Message) -> None:
        if "ask" in message:
            task = asyncio.create_task(self._respond(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        future = self._waiting.get(message["number"])
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(_error_of(*message["error"]))
        else:
            future.set_result(message["answer"])

    async def _respond(self, message: Message) -> None:
        outcome: Message = {"number": message["number"]}
        try:
            outcome["answer"] = await self._answer(message)
        except RecallError as error:
            outcome["error"] = [type(error).__name__, str(error)]
        except Exception:
            LOG.exception("a question of another process of the server failed")
            outcome["error"] = [RecallError.__name__, "internal error; the server's log says more"]
        with suppress(ConnectionError):
            await self._write(outcome)

    async def _write(self, message: Message) -> None:
        self._writer.write(orjson.dumps(message) + b"\n")
        await self._writer.drain()


def _gone() -> UnavailableError:
    return UnavailableError("the process of the server that writes is gone; ask again later")


def _error_of(name: str, text: str) -> RecallError:
    """An error of the other end, as one of its class."""
    kinds = [RecallError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return next((kind for kind in kinds if kind.__name__ == name), RecallError)(text)
