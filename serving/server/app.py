"""The app: everything that the server answers over HTTP."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.server.api.explain_routes import ExplainApi
from serving.server.api.fresh_routes import FreshApi
from serving.server.api.json_api import error_response, http_status
from serving.server.api.retrieve_routes import RetrieveApi
from serving.server.errors import INTERNAL, status_of
from serving.server.explorer import page as explorer_page
from serving.server.explorer.routes import ExplorerApi
from serving.server.runtime import operations
from serving.server.runtime.host import Host
from serving.server.runtime.limits import LimitBody
from serving.server.tf_serving import rest_predict
from serving.version.manifest import installed_packages
from towers.errors import RecallError

DESCRIPTION = """
Recall: of all items, or users, the few hundred that are worth ranking.

- **retrieval** answers in four directions, by an id or by features, with exclusions, filters and a
  minimum score, and explains a score by the features of both sides.
- **items** and **users** are put in, looked up and taken out without a new version.
- **explorer** is what the page at `/` asks besides.
- Below `/v1/models` is TF Serving's own REST API, which TensorFlow's documentation describes.
- `/healthz`, `/readyz` and `/metrics` are for who runs the server.

Every error has one shape: `{"error": {"code": "INVALID_ARGUMENT", "message": "..."}}`.
"""


def build_app(host: Host) -> FastAPI:
    """Put together the surfaces that answer by `host`, which is started and stopped elsewhere."""
    app = FastAPIOffline(
        title="fm-recall",
        version=installed_packages().get("fm-recall", "unknown"),
        description=DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.state.host = host
    app.include_router(RetrieveApi(host).router())
    app.include_router(ExplainApi(host).router())
    app.include_router(FreshApi(host, "item").router())
    app.include_router(FreshApi(host, "user").router())
    app.include_router(ExplorerApi(host).router())
    app.router.routes.extend(
        [*rest_predict.routes(host), *operations.routes(host), *explorer_page.routes()]
    )
    for kind in (HTTPException, RecallError, Exception):
        app.add_exception_handler(kind, _refuse)
    settings = host.settings
    app.add_middleware(LimitBody, max_bytes=settings.max_body_bytes, timeout_s=settings.timeout_s)
    return app


def _refuse(request: Request, error: Exception) -> Response:
    """Answer an error that came up outside of the JSON API's own routes."""
    status, message = status_of(error), str(error)
    if isinstance(error, HTTPException):
        status = http_status(error)
        message = f"{error.detail}: {request.method} {request.url.path}; see /docs"
    elif status == INTERNAL:
        message = "internal error; the server's log says more"
    response = error_response(status, message, path=request.url.path)
    response.headers.update(getattr(error, "headers", None) or {})
    return response
