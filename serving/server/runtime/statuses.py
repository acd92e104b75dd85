"""Statuses: the state of each version that the server has tried to load."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Literal

State = Literal["LOADING", "AVAILABLE", "UNLOADING", "END"]

KEPT = 100
"""Versions remembered; of those that are at their end, the lowest numbers are forgotten first."""


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version, in TF Serving's terms."""

    version: int
    state: State
    error_code: str = "OK"
    """`UNKNOWN` where the version was refused."""
    error_message: str = ""


class Statuses:
    """The latest status of each version. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_version: dict[int, VersionStatus] = {}

    def set(self, status: VersionStatus) -> None:
        """Replace the version's status."""
        with self._lock:
            self._by_version[status.version] = status
            ended = [each for each, known in self._by_version.items() if known.state == "END"]
            if len(self._by_version) > KEPT and ended:
                del self._by_version[min(ended)]

    def replace(self, status: VersionStatus, *, where: State) -> None:
        """Replace the version's status where its state is `where`, and leave any other."""
        with self._lock:
            known = self._by_version.get(status.version)
            if known is not None and known.state == where:
                self._by_version[status.version] = status

    def all(self) -> list[VersionStatus]:
        """Every version's, the newest version's first."""
        with self._lock:
            return sorted(self._by_version.values(), key=lambda status: -status.version)
