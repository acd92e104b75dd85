"""Connection to Milvus: every call has a time limit, and fails with an error that says what to do.

While Milvus is away, calls fail at once but for one a second, which looks whether it is back.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from threading import Lock
from types import ModuleType
from typing import Any, TypeVar

from grpc import RpcError

from towers.errors import ConfigError, IndexUnavailableError
from towers.extras import import_extra

T = TypeVar("T")

MilvusClient = Any
"""pymilvus's, which has no types and need not be installed."""

PREFIX = "fm_recall"
"""What the names of collections and aliases begin with, unless it is chosen."""

TOKEN = "FM_RECALL_MILVUS_TOKEN"
"""The variable of the environment that has Milvus' token, as commands read it."""

LOOK_EVERY_S = 1.0
"""How long calls fail at once after one that got no answer."""

LOOK_FOR_S = 0.5
"""How long the first call that looks whether Milvus is back may take; twice as long each time."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class MilvusConnection:
    """One Milvus: a server's URI such as http://host:19530, or a local file `*.db` (Milvus Lite).

    Nothing is connected before the first call, and a connection that breaks is made again. Any
    thread may call.
    """

    def __init__(
        self, uri: str, *, token: str | None = None, timeout_s: float = 5.0, prefix: str = PREFIX
    ) -> None:
        """Use the Milvus at `uri`.

        Args:
            uri: where it is.
            token: `USER:PASSWORD`, or an API key, where Milvus asks for one; no message shows it.
            timeout_s: how long a call may take.
            prefix: what the names of collections and aliases begin with.

        Raises:
            ConfigError: the prefix cannot begin a name, or the URI has a password, which whoever
                lists the processes of the machine would read.
        """
        if re.search(r"//[^/]*@", uri):
            raise ConfigError(
                f"--uri: expected an address without user and password, received one with them; "
                f"put USER:PASSWORD into the environment's {TOKEN}"
            )
        if not _NAME.fullmatch(prefix):
            raise ConfigError(
                f"prefix: expected a letter or _, then letters, digits and _, at most 64 in all, "
                f"received {prefix!r}"
            )
        self.prefix, self.timeout_s = prefix, timeout_s
        self.address = self._uri = uri
        self._token = token or ""
        self._client: MilvusClient | None = None
        self._lock = Lock()
        self._failed_at: float | None = None
        """When a call got no answer last; None once one has."""
        self._looks = 0
        """Calls in a row that got none."""

    def call(
        self,
        task: str,
        function: Callable[[MilvusClient, float], T],
        *,
        timeout_s: float | None = None,
    ) -> T:
        """Call `function` with the client and the seconds that it may take.

        Args:
            task: what is to be done, for the message of an error.
            function: what does it.
            timeout_s: how long it may take, where that is not the connection's own.

        Raises:
            IndexUnavailableError: Milvus is away, too slow, or refuses.
            ConfigError: pymilvus is not installed.
        """
        pymilvus = import_pymilvus()
        limit = self.timeout_s if timeout_s is None else timeout_s
        failed_at = self._failed_at
        if failed_at is not None:
            if time.monotonic() - failed_at < LOOK_EVERY_S:
                raise self._error(task, "none a moment ago", limit_s=limit)
            if timeout_s is None:
                limit = min(limit, LOOK_FOR_S * 2.0 ** min(self._looks - 1, 10))
        try:
            result = function(self._connected(limit), limit)
        except pymilvus.MilvusException as error:
            if _is_absence(error):
                self._note_absence()
            raise self._error(task, _first_line(error.message), limit_s=limit) from None
        except (RpcError, OSError) as error:
            self._note_absence()
            raise self._error(task, _first_line(str(error)), limit_s=limit) from None
        self._failed_at, self._looks = None, 0
        return result

    def _note_absence(self) -> None:
        self._failed_at = time.monotonic()
        self._looks += 1

    def _connected(self, timeout_s: float) -> MilvusClient:
        with self._lock:
            if self._client is None:
                if "://" not in self._uri:
                    # Milvus Lite logs calls that pymilvus only tries.
                    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
                self._client = import_pymilvus().MilvusClient(
                    self._uri, token=self._token, timeout=timeout_s
                )
            return self._client

    def _error(self, task: str, received: str, *, limit_s: float) -> IndexUnavailableError:
        return IndexUnavailableError(
            f"Milvus at {self.address}: {task}: expected an answer within {limit_s:g} s, "
            f"received {received}; check that it runs, and ask again later"
        )


def import_pymilvus() -> ModuleType:
    """Import pymilvus, whose own log is silenced: what fails is raised and said once.

    Raises:
        ConfigError: it is not installed.
    """
    pymilvus = import_extra("pymilvus", extra="milvus", task="Milvus")
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus


def _is_absence(error: Exception) -> bool:
    """Whether nobody answered, which the next call would wait for too.

    Milvus's own errors have a number above 1; pymilvus gives the status of gRPC, or 1 or 2.
    """
    code = getattr(error, "code", None)
    return not isinstance(code, int) or code in {1, 2}


def _first_line(message: str) -> str:
    lines = message.strip().splitlines()
    return lines[0][:300] if lines else "an error without a message"
