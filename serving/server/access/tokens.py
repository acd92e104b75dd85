"""Tokens: what clients show, the rights that each gives, and when it ends.

    [shop]
    token = "..."                      # or sha256 = "..."
    rights = ["read", "write"]
    expires = 2027-01-01T00:00:00Z     # optional

A file is read again when it changes, so that tokens are exchanged without a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import tomllib
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from serving.server.errors import ForbiddenError, UnauthenticatedError
from towers.errors import ConfigError
from towers.typed import STRICT, parse

Right = Literal["read", "write", "admin"]
"""`read`: questions; `write`: fresh users and items; `admin`: figures of the server, and other
versions than the current."""

LOOK_EVERY_S = 1.0
"""How often to see whether the file has changed."""
SHORTEST = 16
"""Characters of a token at least."""

WHO: ContextVar[str] = ContextVar("who", default="anyone")
"""The name of the token with which the request that is being answered came."""

LOG = logging.getLogger(__name__)


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class TokenRecord:
    """What the file says of one token."""

    rights: Annotated[list[Right], Field(min_length=1)]
    token: Annotated[str, Field(min_length=SHORTEST)] | None = None
    """The token; or, so that the file does not have it, `sha256`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """The digest of the token (hex)."""
    expires: datetime | None = None
    """From when on it is refused, with its time zone."""

    def __post_init__(self) -> None:
        if (self.token is None) == (self.sha256 is None):
            raise ConfigError("expected either `token` or `sha256`")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ConfigError("expires: expected a time zone, such as 2027-01-01T00:00:00Z")


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token."""

    name: str
    digest: bytes
    """The sha256 of the token."""
    rights: frozenset[Right]
    expires: datetime | None


class Tokens:
    """The tokens of a file, or of a text. Any thread may call it."""

    def __init__(self, *, path: Path | None = None, text: str | None = None) -> None:
        """Read the tokens of a file, which are read again when it changes, and those of a text.

        Raises:
            ConfigError: there are none, or one is not as it should be.
        """
        self._path, self._lock = path, Lock()
        self._fixed = _read(text, where="FM_RECALL_TOKENS") if text else []
        self._looked = monotonic()
        self._stamp = self._stat()
        self._tokens = [*self._fixed, *self._of_file()]
        if not self._tokens:
            raise ConfigError("tokens: expected at least one, received none; add one")

    def check(self, authorization: str | None, right: Right) -> str:
        """Say whose token a request shows; every token is compared, each in constant time.

        Args:
            authorization: the header: `Bearer TOKEN`, or `Basic` with the token as the password,
                which is how browsers ask for it.
            right: what the request needs.

        Raises:
            UnauthenticatedError: it shows none, an unknown one, or one that has expired.
            ForbiddenError: the token does not give the right.
        """
        shown = hashlib.sha256(_shown(authorization).encode(errors="surrogatepass")).digest()
        found: Token | None = None
        for token in self._current():
            if hmac.compare_digest(token.digest, shown):
                found = token
        if found is None:
            raise UnauthenticatedError(
                "authorization: expected `Bearer TOKEN` with a token that the server knows"
            )
        if found.expires is not None and found.expires <= datetime.now(UTC):
            raise UnauthenticatedError("authorization: the token has expired; ask for another")
        if right not in found.rights:
            raise ForbiddenError(
                f"authorization: expected a token with the right {right!r}, received one with "
                f"{sorted(found.rights)}"
            )
        return found.name

    def _current(self) -> Sequence[Token]:
        """The tokens as the file has them now; those before, where it cannot be read."""
        now = monotonic()
        with self._lock:
            if self._path is not None and now - self._looked >= LOOK_EVERY_S:
                self._looked = now
                if (stamp := self._stat()) != self._stamp:
                    self._stamp = stamp
                    self._reload()
            return self._tokens

    def _reload(self) -> None:
        try:
            self._tokens = [*self._fixed, *self._of_file()]
            LOG.info("tokens read again", extra={"tokens": len(self._tokens)})
        except ConfigError as error:
            LOG.error("tokens not read, those before stay", extra={"error": str(error)})

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = None if self._path is None else self._path.stat()
        except OSError:
            return None
        return None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _of_file(self) -> list[Token]:
        if self._path is None:
            return []
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._path}: cannot be read: {error}; check the path") from None
        return _read(text, where=str(self._path))


def _read(text: str, *, where: str) -> list[Token]:
    """Read tokens as TOML. No message quotes a token.

    Raises:
        ConfigError: it is not TOML, or a token is not as it should be.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from None
    tokens = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: {name}: expected a table of `token` and `rights`")
        try:
            record = parse(TokenRecord, table, where=f"{where}: {name}")
        except ConfigError:
            raise ConfigError(
                f"{where}: {name}: expected `token` (of {SHORTEST} characters at least) or "
                "`sha256` (64 hexadecimal digits), `rights` (some of read, write, admin) and maybe "
                "`expires` (a time with its zone), and nothing else"
            ) from None
        digest = record.sha256 or hashlib.sha256((record.token or "").encode()).hexdigest()
        tokens.append(
            Token(
                name=name,
                digest=bytes.fromhex(digest),
                rights=frozenset(record.rights),
                expires=record.expires,
            )
        )
    return tokens


def _shown(authorization: str | None) -> str:
    """The token in a header; empty where there is none."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return value.strip() if scheme.lower() == "bearer" else ""
