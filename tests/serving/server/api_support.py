"""A core and its app on an event loop of their own, for tests that are no coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from serving.retrieval.fresh.journal import Journal
from serving.server.access.tokens import Tokens
from serving.server.app import build_app
from serving.server.runtime.server_core import ServerCore
from serving.server.runtime.settings import ServerSettings
from tests.patience import PATIENCE_S


@dataclass(frozen=True)
class Api:
    """Sends requests to the app, as a client would."""

    portal: BlockingPortal
    client: httpx.AsyncClient
    core: ServerCore
    app: FastAPI

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self.portal.call(partial(self.client.request, method, path, **given))

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.request("POST", path, json=body)


@contextmanager
def running_api(
    models: Path,
    *,
    journal: Path | None = None,
    wait: bool = True,
    tokens: Tokens | None = None,
    **settings: Any,
) -> Iterator[Api]:
    """Serve a models directory in this process, without a port."""

    @asynccontextmanager
    async def serving() -> AsyncIterator[tuple[ServerCore, FastAPI, httpx.AsyncClient]]:
        async with AsyncExitStack() as stack:
            kept = stack.enter_context(Journal(journal)) if journal else None
            chosen = ServerSettings(**{"poll_s": 0.05, "timeout_s": PATIENCE_S} | settings)
            core = await stack.enter_async_context(
                ServerCore(models, settings=chosen, journal=kept)
            )
            if wait:
                await core.versions.ready()
            app = build_app(core, tokens=tokens)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = httpx.AsyncClient(
                transport=transport, base_url="http://localhost", timeout=PATIENCE_S
            )
            yield core, app, await stack.enter_async_context(client)

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving()) as served:
        core, app, client = served
        yield Api(portal, client, core, app)
