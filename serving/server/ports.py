"""Ports: bound, shared by several processes, and named in errors."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from serving.server.runtime.settings import ServerSettings
from towers.errors import ConfigError

BACKLOG = 2048
"""Connections that wait to be accepted."""


def bracketed(host: str) -> str:
    """The host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


@contextmanager
def reserved(settings: ServerSettings) -> Iterator[ServerSettings]:
    """Keep the ports for several processes, which listen there; the settings with their numbers.

    Raises:
        ConfigError: somebody else listens on one of them.
    """
    with ExitStack() as stack:
        ports = {}
        for name in ("port", "grpc_port", "write_port"):
            wanted = getattr(settings, name)
            if wanted is None:
                continue
            with bind(settings.host, wanted, name=name):  # nobody else has it
                pass
            held = bind(settings.host, wanted, shared=True, listens=False, name=name)
            ports[name] = stack.enter_context(held).getsockname()[1]
        yield replace(settings, **ports)


def bind(
    host: str, port: int, *, shared: bool = False, listens: bool = True, name: str = "port"
) -> socket.socket:
    """Bind a port; `shared` with other processes that say so too.

    Raises:
        ConfigError: it is taken.
    """
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
        if listens:
            made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise not_bound(name, host, port, why=error.strerror or str(error)) from None
    return made


def not_bound(setting: str, host: str, port: int, *, why: str = "address in use") -> ConfigError:
    """The error of a port that cannot be had."""
    return ConfigError(
        f"{setting}: expected to listen on {bracketed(host)}:{port}, but: {why.lower()}; stop what "
        "listens there, or choose another"
    )
