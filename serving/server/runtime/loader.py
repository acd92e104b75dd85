"""Loader: notices that another version has become current, and makes it ready to answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from serving.retrieval.parts import OpenIndex
from serving.retrieval.retriever import Retriever
from serving.server.runtime.metrics import Metrics
from serving.server.runtime.served_version import Served
from serving.server.runtime.statuses import Statuses, VersionStatus
from serving.version.bundle import Bundle
from serving.version.manifest import Manifest
from serving.version.store import Store
from towers.errors import IndexUnavailableError, RecallError

LOG = logging.getLogger(__name__)

AGAIN_S = 10.0
"""Seconds until a version is tried again whose index, on another machine, did not answer."""

Identity = tuple[int, int, int]
"""Which `current` it is: the version, and the link's inode and time, which any switch changes."""


class Loader:
    """Prepares the current version of a models directory, once each time that it is switched."""

    def __init__(
        self,
        models: Path,
        *,
        replay: Callable[[Retriever], None],
        statuses: Statuses,
        metrics: Metrics,
        index: OpenIndex | None = None,
    ) -> None:
        """Look at the models directory `models`; nothing happens before `prepare`.

        Args:
            models: the models directory, which may not exist yet.
            replay: brings a version up to date with the changes made since it was published.
            statuses: told what becomes of each version.
            metrics: count what is loaded and refused.
            index: opens indexes that are not in a bundle.
        """
        self._store = Store(models)
        self._replay, self._statuses, self._metrics = replay, statuses, metrics
        self._index = index
        self._seen: Identity | None = None
        self._again_at: float | None = None
        """When to try again what was refused, if that may help."""
        self._trouble = ""

    def prepare(self, loaded: Manifest | None) -> Served | None:
        """Load the current version if it has just been made current; takes as long as that takes.

        A version that cannot be used is refused: logged, counted, and not tried again until
        `current` is switched, be it to the same version. Where only its index on another machine
        could not be reached, or is not there yet, it is tried again every `AGAIN_S` seconds.

        Args:
            loaded: the manifest of the version that answers, which is not loaded again.

        Returns:
            A version with every tower and index loaded and its changes replayed; None where there
            is nothing new, or what is new is refused.
        """
        identity = self._identify()
        is_due = self._again_at is not None and time.monotonic() >= self._again_at
        if identity is None or (identity == self._seen and not is_due):
            return None
        self._seen, self._again_at = identity, None
        return self._load(identity[0], loaded)

    def _identify(self) -> Identity | None:
        """Read which version is current; None where there is none, or where that cannot be read."""
        try:
            version = self._store.current()
            link = (self._store.root / "current").lstat() if version is not None else None
        except (OSError, RecallError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._metrics.refused()
                LOG.error("models directory unreadable", extra={"error": self._trouble})
            return None
        self._trouble = ""
        if version is None or link is None:
            return None
        return version, link.st_ino, link.st_mtime_ns

    def _load(self, version: int, loaded: Manifest | None) -> Served | None:
        """Open, check and warm a version, or refuse it."""
        began = time.perf_counter()
        try:
            bundle = self._store.open(version, verify=False)
            if bundle.manifest == loaded:
                return None
            self._statuses.set(VersionStatus(version, "LOADING"))
            LOG.info("version loading", extra={"version": version})
            served = self._warm(bundle)
        except Exception as error:  # noqa: BLE001 - the version that answers goes on
            self.refuse(version, error)
            if isinstance(error, IndexUnavailableError):
                self._again_at = time.monotonic() + AGAIN_S
            return None
        seconds = time.perf_counter() - began
        self._metrics.load_seconds.set(seconds)
        LOG.info("version ready", extra={"version": version, "seconds": round(seconds, 3)})
        return served

    def _warm(self, bundle: Bundle) -> Served:
        bundle.verify()
        served = Served.open(bundle, index=self._index)
        self._replay(served.retriever)
        served.retriever.warm()
        return served

    def refuse(self, version: int, error: Exception) -> None:
        """Log and count a version that cannot be used, and say so in its status."""
        self._statuses.set(VersionStatus(version, "END", "UNKNOWN", str(error)))
        self._metrics.refused()
        trace = None if isinstance(error, RecallError) else error
        LOG.error(
            "version refused", extra={"version": version, "error": str(error)}, exc_info=trace
        )
