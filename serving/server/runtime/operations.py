"""Operations: what a supervisor and Prometheus ask over HTTP."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from serving.server.runtime.host import Host


def routes(host: Host) -> list[BaseRoute]:
    """`/healthz`: the process answers; `/readyz`: a version is loaded; `/metrics`: Prometheus."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        if not host.is_ready:
            return JSONResponse({"status": "no version is loaded"}, status_code=503)
        return JSONResponse({"status": "ok", "version": host.current().version})

    async def metrics(_: Request) -> Response:
        return Response(host.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", health), Route("/readyz", ready), Route("/metrics", metrics)]
