"""What the functions of routes are given: the host, and the version that answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from serving.server.runtime.host import Host
from serving.server.runtime.served_version import Served


async def _host(request: Request) -> Host:
    """The host of the app that was asked."""
    host: Host = request.app.state.host
    return host


async def _current(request: Request) -> Served:
    """The version that answers, for the whole of a request.

    Raises:
        UnavailableError: none is loaded yet.
    """
    return (await _host(request)).current()


TheHost = Annotated[Host, Depends(_host)]


Current = Annotated[Served, Depends(_current)]
