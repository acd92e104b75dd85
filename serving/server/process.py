"""The server as a process, from its start until a signal stops it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Timer

import uvloop

from serving.retrieval.fresh.journal import FILE, FOLDER, OLD, Journal
from serving.retrieval.parts import OpenIndex
from serving.server.access.tokens import Tokens
from serving.server.listeners import GrpcListener, RestListener
from serving.server.observing.requests import Noting
from serving.server.observing.tracing import Tracing
from serving.server.ports import bracketed
from serving.server.runtime.server_core import ServerCore
from serving.server.runtime.settings import ServerSettings
from serving.server.workers.team import Team
from towers.environment import wants_traces
from towers.errors import BundleError

LOG = logging.getLogger(__name__)

SWITCH_S = 0.001
"""How long a thread that runs Python, such as one that loads a version, keeps another waiting. An
answer waits at each step that is not in Python, so that 5 ms, which is usual, would add up."""

GRACE_S = 2.0
"""Seconds beyond `shutdown_s` after which the process ends, whatever it does."""


@dataclass(frozen=True)
class Place:
    """The place of one of several processes that are one server."""

    number: int
    socket: Path
    """Where they meet."""
    alive: int
    """A file that ends when the process that started them does."""


@dataclass(frozen=True)
class Addresses:
    """Where the server listens."""

    rest: str
    """A URL."""
    grpc: str
    """Host and port."""
    writes: str = ""
    """The URL that changes go to, where that is another."""


def run(
    models: Path,
    *,
    settings: ServerSettings,
    journal: Path | None = None,
    index: OpenIndex | None = None,
    ready: Callable[[Addresses], None] = lambda addresses: None,
    place: Place | None = None,
) -> None:
    """Serve a models directory with this process until SIGTERM or SIGINT; see `serve`."""
    sys.setswitchinterval(SWITCH_S)
    # What is loaded by now stays: looking for garbage among it would only halt requests.
    gc.collect()
    gc.freeze()
    served = serve(
        models,
        settings=settings,
        journal=journal,
        index=index,
        ready=ready,
        stopping=partial(_end_within, settings.shutdown_s + GRACE_S),
        place=place,
    )
    uvloop.run(served)


def _end_within(seconds: float) -> None:
    """End the process after a time, whatever its threads do.

    A thread that loads a version cannot be stopped, and Python would wait for it. What has been
    answered is on disk.
    """

    def end() -> None:
        LOG.warning("not stopped in time, so the process ends", extra={"after_s": seconds})
        logging.shutdown()
        os._exit(0)

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def serve(
    models: Path,
    *,
    settings: ServerSettings,
    journal: Path | None = None,
    index: OpenIndex | None = None,
    ready: Callable[[Addresses], None] = lambda addresses: None,
    stopping: Callable[[], None] = lambda: None,
    place: Place | None = None,
) -> None:
    """Serve a models directory until SIGTERM or SIGINT, then finish what is in flight.

    Args:
        models: the models directory.
        settings: addresses and limits.
        journal: the folder that keeps changes; by default `journal` in the models directory.
        index: opens indexes that are not in a bundle.
        ready: told where the server listens, once it does. A version may still be loading.
        stopping: called when the signal has come.
        place: of this process among several that are one server; None: it is alone.

    Raises:
        ConfigError: the server cannot listen on a port.
        BundleError: another server uses the journal, it is damaged, or it cannot be written
            though `settings` do not say that the server only reads.
    """
    with ExitStack() as held:
        tokens = None
        if settings.tokens is not None or settings.tokens_text:
            tokens = Tokens(path=settings.tokens, text=settings.tokens_text)
        team = None if place is None else Team(place.socket, number=place.number)
        only_reads = settings.read_only or (team is not None and not team.writes)
        kept = _open_journal(journal or models / FOLDER, read_only=only_reads)
        if kept is not None:
            held.enter_context(kept)
        tracing = Tracing.to_collector() if wants_traces() else None
        if tracing is not None:
            held.callback(tracing.close)
        noting = Noting(access_log=settings.access_log, tracing=tracing)
        rests = [RestListener(settings, tokens=tokens, noting=noting)]
        held.callback(rests[0].close)
        if settings.write_port is not None:
            rests.append(RestListener(settings, tokens=tokens, writes=True, noting=noting))
            held.callback(rests[1].close)
        # last, since a gRPC server that is made and never started cannot be taken apart
        grpc = GrpcListener(settings, tokens=tokens, noting=noting)
        stop = _stop_signal(None if place is None else place.alive)
        async with ServerCore(
            models, settings=settings, journal=kept, index=index, team=team
        ) as core:
            for rest in rests:
                await rest.start(core)
            await grpc.start(core)
            root = f"http{'s' if settings.tls_key else ''}://{bracketed(settings.host)}"
            urls = [f"{root}:{rest.port}" for rest in rests]
            addresses = Addresses(
                urls[0], f"{bracketed(settings.host)}:{grpc.port}", "".join(urls[1:])
            )
            LOG.info("started", extra=asdict(addresses))
            ready(addresses)
            await stop.wait()
            stopping()
            LOG.info("stopping", extra={"at_most_s": settings.shutdown_s})
            await asyncio.gather(*(rest.stop() for rest in rests), grpc.stop())
    LOG.info("stopped")


def _stop_signal(alive: int | None = None) -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets, or the end of what the file `alive` reads."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if alive is not None:
        loop.add_reader(alive, stop.set)
        stop_reading = partial(loop.remove_reader, alive)
        asyncio.create_task(stop.wait()).add_done_callback(lambda _: stop_reading())
    return stop


def _open_journal(folder: Path, *, read_only: bool) -> Journal | None:
    """Open the journal; None where it is only to be read, and there is none.

    Raises:
        BundleError: as `Journal`; or it is only to be read, and of an earlier release.
    """
    if not read_only or (folder / FILE).exists():
        return Journal(folder, read_only=read_only)
    if (folder / OLD).exists():
        raise BundleError(
            f"{folder / OLD}: expected a journal of this release, received one of an earlier; "
            "serve once without --read-only, which converts it"
        )
    return None
