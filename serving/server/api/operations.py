"""Operations: what a supervisor and Prometheus ask over HTTP."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from serving.server.api.dependencies import TheCore

router = APIRouter(include_in_schema=False)
GET = ["GET", "HEAD"]


@router.api_route("/healthz", methods=GET)
async def health() -> Response:
    """Answer that the process does."""
    return JSONResponse({"status": "ok"})


@router.api_route("/readyz", methods=GET)
async def ready(core: TheCore) -> Response:
    """Answer 200 once a version is loaded."""
    if not core.versions.is_ready:
        return JSONResponse({"status": "no version is loaded"}, status_code=503)
    return JSONResponse({"status": "ok", "version": core.versions.current().version})


@router.api_route("/metrics", methods=GET)
async def metrics(core: TheCore) -> Response:
    """Answer with all figures, for Prometheus."""
    return Response(await core.figures(), media_type=CONTENT_TYPE_LATEST)
