"""The server as a process, from its start until a signal stops it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Timer

import uvloop

from serving.retrieval.fresh.journal import FILE, FOLDER, OLD, Journal
from serving.retrieval.parts import OpenIndex
from serving.server.access.tokens import Tokens
from serving.server.listeners import GrpcListener, RestListener, bracketed
from serving.server.runtime.server_core import ServerCore
from serving.server.runtime.settings import ServerSettings
from towers.errors import BundleError

LOG = logging.getLogger(__name__)

GRACE_S = 2.0
"""Seconds beyond `shutdown_s` after which the process ends, whatever it does."""


@dataclass(frozen=True)
class Addresses:
    """Where the server listens."""

    rest: str
    """A URL."""
    grpc: str
    """Host and port."""


def run(
    models: Path,
    *,
    settings: ServerSettings,
    journal: Path | None = None,
    index: OpenIndex | None = None,
    ready: Callable[[Addresses], None] = lambda addresses: None,
) -> None:
    """Serve a models directory with this process until SIGTERM or SIGINT; see `serve`."""
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
) -> None:
    """Serve a models directory until SIGTERM or SIGINT, then finish what is in flight.

    Args:
        models: the models directory.
        settings: addresses and limits.
        journal: the folder that keeps changes; by default `journal` in the models directory.
        index: opens indexes that are not in a bundle.
        ready: told where the server listens, once it does. A version may still be loading.
        stopping: called when the signal has come.

    Raises:
        ConfigError: the server cannot listen on a port.
        BundleError: another server uses the journal, it is damaged, or it cannot be written
            though `settings` do not say that the server only reads.
    """
    with ExitStack() as held:
        tokens = None
        if settings.tokens is not None or settings.tokens_text:
            tokens = Tokens(path=settings.tokens, text=settings.tokens_text)
        kept = _open_journal(journal or models / FOLDER, read_only=settings.read_only)
        if kept is not None:
            held.enter_context(kept)
        rest = RestListener(settings, tokens=tokens)
        held.callback(rest.close)
        # last, since a gRPC server that is made and never started cannot be taken apart
        grpc = GrpcListener(settings, tokens=tokens)
        stop = _stop_signal()
        async with ServerCore(models, settings=settings, journal=kept, index=index) as core:
            await rest.start(core)
            await grpc.start(core)
            addresses = Addresses(
                f"http{'s' if settings.tls_key else ''}://{bracketed(settings.host)}:{rest.port}",
                f"{bracketed(settings.host)}:{grpc.port}",
            )
            LOG.info("started", extra={"rest": addresses.rest, "grpc": addresses.grpc})
            ready(addresses)
            await stop.wait()
            stopping()
            LOG.info("stopping", extra={"at_most_s": settings.shutdown_s})
            await asyncio.gather(rest.stop(), grpc.stop())
    LOG.info("stopped")


def _stop_signal() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
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
