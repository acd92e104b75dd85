"""What FastAPI gives to the functions of routes: the core, and the version that answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from serving.server.runtime.served_version import Served
from serving.server.runtime.server_core import ServerCore


async def _core(request: Request) -> ServerCore:
    """The core of the app that was asked."""
    core: ServerCore = request.app.state.core
    return core


async def _current(request: Request) -> Served:
    """The version that answers, for the whole of a request.

    Raises:
        UnavailableError: none is loaded yet.
    """
    return (await _core(request)).versions.current()


async def _n_bytes(request: Request) -> int:
    """How many bytes the body has."""
    return len(await request.body())


TheCore = Annotated[ServerCore, Depends(_core)]


Current = Annotated[Served, Depends(_current)]


NBytes = Annotated[int, Depends(_n_bytes)]
