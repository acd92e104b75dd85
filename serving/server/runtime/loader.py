"""Loader: notices that another version has become current, and makes it ready to answer."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from serving.retrieval.parts import OpenIndex
from serving.retrieval.retriever import Retriever
from serving.server.runtime.metrics import Metrics
from serving.server.runtime.served_version import Served
from serving.server.runtime.settings import MIB
from serving.server.runtime.statuses import Statuses, VersionStatus
from serving.version.bundle import Bundle
from serving.version.manifest import Manifest
from serving.version.store import Store
from towers.errors import BundleError, RecallError
from towers.features.schema import SIDES

LOG = logging.getLogger(__name__)

AGAIN_S, LATEST_S = 10.0, 600.0
"""Seconds until a version that was refused is tried again, at first and at most; each time it is
refused again they double."""
PER_BYTE = 1.5
"""Bytes of memory that a version takes for each byte of the files that are loaded, about."""

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
        memory_bytes: int | None = None,
    ) -> None:
        """Look at the models directory `models`; nothing happens before `prepare`.

        Args:
            models: the models directory, which may not exist yet.
            replay: brings a version up to date with the changes made since it was published.
            statuses: told what becomes of each version.
            metrics: count what is loaded and refused.
            index: opens indexes that are not in a bundle.
            memory_bytes: the most memory that the process may have.
        """
        self._store = Store(models)
        self._replay, self._statuses, self._metrics = replay, statuses, metrics
        self._index, self._memory_bytes = index, memory_bytes
        self._seen: Identity | None = None
        self._again_at: float | None = None
        """When to try again what was refused."""
        self._failures = 0
        """How often the version that is current now was refused, one time after another."""
        self._trouble = ""

    def prepare(self, loaded: Manifest | None) -> Served | None:
        """Load the current version if it has just been made current; takes as long as that takes.

        A version that cannot be used is refused: logged, counted, and shown in its status. The
        cause may pass, such as a disk that does not answer, a lack of memory, or an index on
        another machine that is not there yet. So the version is tried again after `AGAIN_S`
        seconds, and ever later, until it is loaded or `current` is switched.

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
        if identity != self._seen:
            self._failures = 0
        elif self._failures:
            self._metrics.tried_again()
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
            return None
        self._failures = 0
        seconds = time.perf_counter() - began
        self._metrics.load_seconds.set(seconds)
        LOG.info("version ready", extra={"version": version, "seconds": round(seconds, 3)})
        return served

    def _warm(self, bundle: Bundle) -> Served:
        self._check_memory(bundle)
        bundle.verify()
        served = Served.open(bundle, index=self._index)
        self._replay(served.retriever)
        served.retriever.warm()
        self._metrics.drift.prepare(served.retriever)
        return served

    def refuse(self, version: int, error: Exception) -> None:
        """Log and count a version that cannot be used, say so in its status, and try it again."""
        again_s = min(AGAIN_S * 2**self._failures, LATEST_S)
        self._failures += 1
        self._again_at = time.monotonic() + again_s
        reason = str(error).replace(f"{self._store.root.resolve()}/", "")
        reason = reason.replace(f"{self._store.root}/", "")  # a client need not know where it is
        self._statuses.set(VersionStatus(version, "END", "UNKNOWN", reason))
        self._metrics.refused()
        trace = None if isinstance(error, RecallError) else error
        facts = {"version": version, "error": str(error), "again_in_s": again_s}
        LOG.error("version refused", extra=facts, exc_info=trace)

    def _check_memory(self, bundle: Bundle) -> None:
        """Refuse a version that does not fit beside what is loaded.

        Raises:
            BundleError: it would need more than the limit leaves.
        """
        if self._memory_bytes is None:
            return
        has, needs = memory_in_use(), estimate_memory(bundle.manifest)
        if has + needs > self._memory_bytes:
            raise BundleError(
                f"version {bundle.version}: expected it to fit into the memory limit of "
                f"{self._memory_bytes // MIB:,} MiB, but the server has {has // MIB:,} MiB and the "
                f"version needs about {needs // MIB:,}; raise --memory-limit, store the index in "
                "fewer bytes (index.storage), or serve the version with a server of its own"
            )


def estimate_memory(manifest: Manifest) -> int:
    """Estimate the bytes of memory that a version takes, by the files that are loaded."""
    loaded = ("users.parquet", "items.parquet", "seen.parquet", "index/")
    towers = tuple(f"models/{side}_tower/" for side in SIDES)
    sizes = (
        record.bytes for name, record in manifest.files.items() if name.startswith(loaded + towers)
    )
    return round(PER_BYTE * sum(sizes))


def memory_in_use() -> int:
    """The bytes of memory that this process has (resident); 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
