"""The app: everything that the server answers over HTTP."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from serving.server.access.http import CheckAccess
from serving.server.access.tokens import Tokens
from serving.server.api import (
    explain_rank_routes,
    explain_routes,
    fresh_routes,
    operations,
    recommend_routes,
    retrieve_routes,
)
from serving.server.api.body_limit import LimitBody
from serving.server.api.error_answers import handle_errors
from serving.server.api.gzip_body import ReadGzip
from serving.server.explorer import page
from serving.server.explorer import routes as explorer_routes
from serving.server.explorer.other_version import OtherVersion
from serving.server.observing.requests import QUIETLY, NoteRequests, Noting
from serving.server.runtime.server_core import ServerCore
from serving.server.tf_serving import rest_predict
from serving.version.manifest import installed_packages

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

ROUTERS = (
    retrieve_routes.router,
    recommend_routes.router,
    explain_routes.router,
    explain_rank_routes.router,
    fresh_routes.items,
    fresh_routes.users,
    explorer_routes.router,
    operations.router,
)


def build_app(
    core: ServerCore,
    *,
    tokens: Tokens | None = None,
    takes_writes: bool = True,
    noting: Noting = QUIETLY,
) -> FastAPI:
    """Put together the surfaces that answer by `core`, which is started and stopped elsewhere.

    With `tokens`, only those who show one are answered; without `takes_writes`, nothing that
    changes users or items is. `noting` says what is noted of requests.
    """
    app = FastAPIOffline(
        title="fm-recall",
        version=installed_packages().get("fm-recall", "unknown"),
        description=DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.state.core = core
    app.state.explorer = explorer_routes.Explorer(OtherVersion(core))
    for router in ROUTERS:
        app.include_router(router)
    app.router.routes.extend([*rest_predict.routes(core), *page.routes()])
    handle_errors(app)
    settings = core.settings
    app.add_middleware(ReadGzip, max_bytes=settings.max_body_bytes)
    app.add_middleware(LimitBody, max_bytes=settings.max_body_bytes, timeout_s=settings.timeout_s)
    app.add_middleware(CheckAccess, settings=settings, tokens=tokens, takes_writes=takes_writes)
    app.add_middleware(NoteRequests, noting=noting)
    return app
