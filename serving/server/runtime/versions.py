"""Versions: the version that answers, and each that becomes current swapped in for it."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from serving.retrieval.parts import OpenIndex
from serving.server.errors import NotFoundError, UnavailableError
from serving.server.runtime.audit import audit
from serving.server.runtime.batcher import Batcher
from serving.server.runtime.change_queue import ChangeQueue
from serving.server.runtime.loader import Loader
from serving.server.runtime.metrics import Metrics
from serving.server.runtime.served_version import MODELS, Served
from serving.server.runtime.statuses import Statuses, VersionStatus
from towers.errors import QueryError

A = TypeVar("A")
B = TypeVar("B")

LOG = logging.getLogger(__name__)

CURRENT = "current"
"""The label of the version that answers."""


class Versions:
    """The versions of one models directory: the one that is loaded, and what became of others.

    Its methods are called on the event loop that started it, unless they say otherwise.
    """

    def __init__(self, models: Path, *, metrics: Metrics) -> None:
        """Follow the models directory `models` once started; `metrics` count what is loaded."""
        self._models, self._metrics = models, metrics
        self._statuses = Statuses()
        self._served: Served | None = None
        self._closed = False
        self._settled = asyncio.Event()
        self._ready = asyncio.Event()

    def start(
        self,
        *,
        batcher: Batcher,
        changes: ChangeQueue,
        index: OpenIndex | None,
        memory_bytes: int | None,
    ) -> None:
        """Get ready to `look`.

        Args:
            batcher: computes answers; versions are swapped between its batches.
            changes: brings a version up to date before it answers.
            index: opens indexes that are not in a bundle.
            memory_bytes: the most memory that the process may have.
        """
        self._loop = asyncio.get_running_loop()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._batcher, self._changes = batcher, changes
        self._loader = Loader(
            self._models,
            replay=changes.replay,
            statuses=self._statuses,
            metrics=self._metrics,
            index=index,
            memory_bytes=memory_bytes,
        )
        self._metrics.watch_index(self._index_size)
        created = "When the version that answers was made; seconds since 1970."
        self._metrics.watch("version_created_seconds", created, self._created)

    def close(self) -> None:
        """Free what is loaded. What is being loaded is not waited for: see `process.run`."""
        self._closed = True
        self._background.shutdown(wait=False, cancel_futures=True)
        self._served = None

    @property
    def is_ready(self) -> bool:
        """Whether a version is loaded."""
        return self._served is not None

    async def ready(self) -> None:
        """Wait until a version is loaded."""
        await self._ready.wait()

    async def settled(self) -> None:
        """Wait until the version that was current at the start is loaded or refused."""
        await self._settled.wait()

    def current(self) -> Served:
        """The version that answers. Any thread may ask.

        Raises:
            UnavailableError: none is loaded yet.
        """
        served = self._served
        if served is None:
            raise UnavailableError(
                "version: expected one to be loaded, but none is yet; ask again later, and see the "
                "server's log if that does not help"
            )
        return served

    def find(self, name: str, *, version: int | None = None, label: str | None = None) -> Served:
        """The loaded version of a model; refusals are in TF Serving's words.

        Raises:
            NotFoundError: no such model, or that version of it is not loaded.
            QueryError: no such label.
        """
        _check_label(label)
        served = self._served
        if served is None or name not in served.signatures or version not in {None, served.version}:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise NotFoundError(f"Servable not found for request: {wanted}")
        return served

    def statuses(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> list[VersionStatus]:
        """What has become of the versions of a model, newest first.

        Raises:
            NotFoundError: no such model, or no such version of it.
            QueryError: no such label.
        """
        _check_label(label)
        if label is not None and self._served is not None:
            version = self._served.version
        known = MODELS if self._served is None else self._served.signatures
        found = self._statuses.all() if name in known else []
        if version is None and not found:
            raise NotFoundError(f"Could not find any versions of model {name}")
        if version is not None:
            found = [status for status in found if status.version == version]
        if not found:
            raise NotFoundError(f"Could not find version {version} of model {name}")
        return found

    async def look(self) -> None:
        """Swap in the current version, if it is another and can be used."""
        loaded = None if self._served is None else self._served.retriever.bundle.manifest
        served = await self._in_background(self._loader.prepare, loaded)
        if served is not None:
            await self._swap_in(served)
        self._settled.set()

    async def _swap_in(self, served: Served) -> None:
        """Let a loaded version answer, or refuse it."""
        try:
            await self._in_background(self._changes.catch_up, served.retriever)
            await self._batcher.alone(partial(self._swap, served))
        except Exception as error:  # noqa: BLE001 - the version that answers goes on
            self._loader.refuse(served.version, error)
        else:
            self._ready.set()

    async def _in_background(self, function: Callable[[A], B], argument: A) -> B:
        return await self._loop.run_in_executor(self._background, function, argument)

    def _swap(self, served: Served) -> None:
        """Let another version answer; on the batcher's thread, where no change can come between."""
        self._changes.catch_up(served.retriever)
        before, self._served = self._served, served
        if before is not None:
            unloading = VersionStatus(before.version, "UNLOADING")
            self._statuses.replace(unloading, where="AVAILABLE")
        self._statuses.set(VersionStatus(served.version, "AVAILABLE"))
        self._metrics.loaded(served.version)
        self._metrics.in_memory.inc()
        weakref.finalize(served, self._unloaded, served.version).atexit = False
        LOG.info("version swapped in", extra={"version": served.version})
        was = None if before is None else before.version
        audit("version changed", who="server", version=served.version, before=was)

    def _unloaded(self, version: int) -> None:
        """Note that nothing refers to a version any more. Any thread may call it."""
        if not self._closed:
            self._loop.call_soon_threadsafe(self._free, version)

    def _free(self, version: int) -> None:
        """Give the memory of a version back: its parts refer to each other."""
        if self._closed:
            return
        self._background.submit(gc.collect)
        self._metrics.in_memory.dec()
        self._statuses.replace(VersionStatus(version, "END"), where="UNLOADING")
        LOG.info("version unloaded", extra={"version": version})

    def _created(self) -> float:
        served = self._served
        if served is None:
            return math.nan
        return datetime.fromisoformat(served.retriever.bundle.manifest.created).timestamp()

    def _index_size(self, direction: str) -> int:
        return 0 if self._served is None else self._served.retriever.index_sizes()[direction]


def _check_label(label: str | None) -> None:
    if label not in {None, CURRENT}:
        raise QueryError(f"Unrecognized servable version label: {label}")
