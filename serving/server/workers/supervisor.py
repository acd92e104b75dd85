"""The process that starts the processes of a server, and starts again those that die."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING, Any

from serving.server.ports import reserved
from towers.environment import share_cores
from towers.errors import ConfigError, RecallError

if TYPE_CHECKING:  # the supervisor itself needs no TensorFlow
    from serving.retrieval.parts import OpenIndex
    from serving.server.process import Addresses
    from serving.server.runtime.settings import ServerSettings

AGAIN_S, LATEST_S = 1.0, 60.0
"""Seconds until a process that died is started again, at first and at most; they double where it
dies within `LATEST_S`."""
GRACE_S = 5.0
"""Seconds beyond its own time after which a process is killed at the end."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What each process is to do; it is sent to a fresh interpreter."""

    models: Path
    settings: ServerSettings
    journal: Path | None
    index: Callable[[], OpenIndex | None]
    """Makes what opens indexes that are not in a bundle."""
    prepare: Callable[[], None]
    """Called first, such as to configure the log."""


@dataclass(eq=False)
class _Worker:
    number: int
    process: BaseProcess
    ours: Connection
    started: float = field(default_factory=time.monotonic)


class Supervisor:
    """Runs several processes that are one server, until SIGTERM or SIGINT."""

    def __init__(self, work: Work, *, ready: Callable[[Addresses], None]) -> None:
        """Do `work`; `ready` is told where the server listens, once all processes do."""
        self._work, self._ready = work, ready
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, _Worker] = {}
        self._failures: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._stop = Event()

    def run(self) -> None:
        """Start them, and see that they go on.

        Raises:
            RecallError: as `serving.server.process.serve`.
        """
        with ExitStack() as stack:
            for ends in (signal.SIGTERM, signal.SIGINT):
                before = signal.signal(ends, lambda *_: self._stop.set())
                stack.callback(signal.signal, ends, before)
            self._settings = stack.enter_context(reserved(self._work.settings))
            folder = stack.enter_context(TemporaryDirectory(prefix="fm-recall-"))
            self._socket = Path(folder) / "team"
            stack.enter_context(share_cores(self._settings.workers))
            stack.callback(self._end)
            self._start(0)  # which makes the journal that the others read
            addresses = self._listening(0)
            for number in range(1, self._settings.workers):
                self._start(number)
            for number in range(1, self._settings.workers):
                self._listening(number)
            if addresses is not None and not self._stop.is_set():
                self._ready(addresses)
            self._watch()

    def _start(self, number: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(self._work, self._settings, number, self._socket, theirs),
            name=f"fm-recall {number}",
        )
        process.start()
        theirs.close()
        self._workers[number] = _Worker(number, process, ours)

    def _listening(self, number: int) -> Addresses | None:
        """Wait until a process listens; None where the server is stopped meanwhile.

        Raises:
            RecallError: it cannot.
        """
        worker = self._workers[number]
        while not self._stop.is_set():
            if not worker.ours.poll(0.2):
                continue
            try:
                said = worker.ours.recv()
            except EOFError:
                raise ConfigError(
                    f"process {number} of the server ended before it listened; see its log"
                ) from None
            if isinstance(said, RecallError):
                raise said
            found: Addresses = said
            return found
        return None

    def _watch(self) -> None:
        """Start again what dies, until a signal comes."""
        while not self._stop.is_set():
            wait([worker.process.sentinel for worker in self._workers.values()], timeout=0.2)
            now = time.monotonic()
            for worker in list(self._workers.values()):
                if not worker.process.is_alive() and not self._stop.is_set():
                    self._bury(worker, now)
            for number in [number for number, at in self._due.items() if at <= now]:
                del self._due[number]
                self._start(number)

    def _bury(self, worker: _Worker, now: float) -> None:
        """Note that a process has died, and when to start it again."""
        number = worker.number
        lived = now - worker.started
        failures = self._failures[number] = 0 if lived > LATEST_S else self._failures.get(number, 0)
        again_s = min(AGAIN_S * 2**failures, LATEST_S)
        self._failures[number] += 1
        self._due[number] = now + again_s
        worker.ours.close()
        del self._workers[number]
        facts = {"worker": number, "exit": worker.process.exitcode, "again_in_s": again_s}
        LOG.error("a process of the server died", extra=facts)

    def _end(self) -> None:
        """Stop all, and kill those that do not stop in time."""
        for worker in self._workers.values():
            worker.process.terminate()
        stop = time.monotonic() + self._settings.shutdown_s + GRACE_S
        for worker in self._workers.values():
            worker.process.join(max(0.0, stop - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.ours.close()


def _serve(
    work: Work, settings: ServerSettings, number: int, socket: Path, theirs: Connection
) -> None:
    """Be one of the processes; says to the one that started it where it listens."""
    from serving.server.process import Place, run

    def say(what: Any) -> None:
        theirs.send(what)

    work.prepare()
    try:
        place = Place(number, socket, theirs.fileno())
        run(
            work.models,
            settings=settings,
            journal=work.journal,
            index=work.index(),
            ready=say,
            place=place,
        )
    except RecallError as error:
        LOG.error("a process of the server cannot serve", extra={"error": str(error)})
        say(type(error)(str(error)))
