"""The explorer's API: what its page asks beside the retrieval API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from fastapi import APIRouter, Path, Query
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from serving.retrieval.find_text import find_text
from serving.search.index import Rows
from serving.server.api.json_answer import json_response, plain_records
from serving.server.api.json_api import JsonRoute, errors
from serving.server.errors import NotFoundError, OverloadedError
from serving.server.explorer.compare_versions import Listed, answer_by, ask, compare, reach_of
from serving.server.explorer.forms import ExplorerSchema, describe
from serving.server.explorer.models import (
    CompareQuery,
    Comparison,
    Found,
    Known,
    LookupQuery,
    PastItems,
    Versions,
)
from serving.server.explorer.other_version import OtherVersion
from serving.server.runtime.host import Host
from serving.server.runtime.served_version import Served
from serving.version.manifest import Manifest
from serving.version.store import Store
from towers.errors import BundleError, QueryError
from towers.schema import Side

A = TypeVar("A")

MOST_FOUND, LONGEST_TEXT = 100, 200
"""Results of a search, and the characters of what is searched."""
MOST_PAST = 1000
"""Items of a user's past in one answer."""
MOST_VERSIONS = 100
"""Versions in one answer."""
MOST_WAITING = 32
"""Searches that wait at most."""

REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"
)
"""A report is a page of styles and drawings: nothing in it runs or loads anything."""

InPath = Annotated[str, Path(description="As in training; an integer is written in digits.")]
InSide = Annotated[Side, Path(description="Users or items.")]
Version = Annotated[int, Path(ge=1, description="A published version.")]


class ExplorerApi:
    """The routes of the explorer's API; searches have a thread of their own."""

    def __init__(self, host: Host) -> None:
        """Answer by `host`."""
        self._host = host
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._waiting = 0
        self._described: WeakKeyDictionary[Served, dict[str, Any]] = WeakKeyDictionary()
        self._other = OtherVersion(host)

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/v1/explorer", route_class=JsonRoute, tags=["explorer"])
        self._route_tables(router)
        self._route_versions(router)
        return router

    def _route_tables(self, router: APIRouter) -> None:
        router.add_api_route(
            "/schema",
            self.schema,
            methods=["GET"],
            response_model=ExplorerSchema,
            responses=errors(429, 503),
            summary="The features and columns of users and items",
        )
        router.add_api_route(
            "/search/{side}",
            self.search,
            methods=["GET"],
            response_model=Found,
            responses=errors(400, 429, 503),
            summary="Users or items by the start of their id, or by text in their columns",
        )
        router.add_api_route(
            "/lookup/{side}",
            self.lookup,
            methods=["POST"],
            response_model=Known,
            responses=errors(400, 413, 429, 503),
            summary="What is known of several users or items",
            description="An id that the version does not have is left out.",
        )
        router.add_api_route(
            "/history/{id:path}",
            self.history,
            methods=["GET"],
            response_model=PastItems,
            responses=errors(400, 404, 503),
            summary="The items that a user has",
        )

    def _route_versions(self, router: APIRouter) -> None:
        router.add_api_route(
            "/versions",
            self.versions,
            methods=["GET"],
            response_model=Versions,
            responses=errors(429, 503),
            summary="The published versions with their figures",
        )
        router.add_api_route(
            "/versions/{version}/report",
            self.report,
            methods=["GET"],
            response_class=Response,
            responses={**errors(400, 404, 429, 503), 200: {"content": {"text/html": {}}}},
            summary="The report of a version, as HTML",
        )
        router.add_api_route(
            "/compare",
            self.compare,
            methods=["POST"],
            response_model=Comparison,
            responses=errors(400, 404, 413, 429, 503, 504),
            summary="What the current version and another answer",
            description=(
                "The other version is opened for this and kept until another one is asked for. "
                "While that takes long, the answer is 503: ask again."
            ),
        )

    async def schema(self) -> Response:
        """Describe the current version."""
        served = self._host.current()
        return json_response(await self._aside(partial(self._describe, served)))

    async def search(
        self,
        side: InSide,
        q: Annotated[
            str, Query(max_length=LONGEST_TEXT, description="Text; none finds the first rows.")
        ] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_FOUND)] = 20,
    ) -> Response:
        """Search users or items."""
        served = self._host.current()
        snapshot = await self._host.look(served.retriever.catalogue(side).snapshot)
        rows, total = await self._aside(partial(find_text, snapshot, q, limit=limit))
        return json_response(
            {
                "version": served.version,
                "side": side,
                "total": total,
                "results": await self._rows(served, side, rows),
            }
        )

    async def lookup(self, side: InSide, query: LookupQuery) -> Response:
        """Look ids up."""
        served = self._host.current()
        rows = served.retriever.catalogue(side).rows(query.ids)
        results = await self._rows(served, side, rows[rows >= 0])
        return json_response({"version": served.version, "side": side, "results": results})

    async def history(
        self, id: InPath, limit: Annotated[int, Query(ge=1, le=MOST_PAST)] = 200
    ) -> Response:
        """List the items that a user has."""
        served = self._host.current()
        parsed = served.retriever.catalogue("user").parse_id(id)
        rows = await self._host.look(partial(_past, served, parsed))
        return json_response(
            {
                "version": served.version,
                "id": parsed,
                "total": len(rows),
                "items": await self._rows(served, "item", rows[:limit]),
            }
        )

    async def versions(self) -> Response:
        """List the published versions."""
        served = self._host.current()
        return json_response(
            {
                "version": served.version,
                "versions": await self._aside(partial(self._list_versions, served.version)),
            }
        )

    async def report(self, version: Version) -> Response:
        """Answer with a version's report."""
        text = await self._aside(partial(self._read_report, version))
        return HTMLResponse(
            text,
            headers={
                "Content-Security-Policy": REPORT_POLICY,
                "X-Content-Type-Options": "nosniff",
            },
        )

    async def compare(self, query: CompareQuery) -> Response:
        """Ask two versions."""
        served = self._host.current()
        max_k = self._host.settings.max_k
        if query.k > max_k:
            raise QueryError(f"k: expected at most {max_k}, received {query.k}; ask for less")
        if query.other == served.version:
            raise QueryError(
                f"other: expected another version than the one that answers, {served.version}"
            )
        reach = reach_of(query.k, max_k=max_k)
        current = await self._current(served, query, reach=reach)
        other = await self._other.ask(query.other, partial(answer_by, query=query, reach=reach))
        return json_response(
            {
                "direction": query.direction,
                "version": served.version,
                "other": query.other,
                "k": query.k,
                "reach": reach,
                **compare(current, other, k=query.k),
            }
        )

    async def _current(self, served: Served, query: CompareQuery, *, reach: int) -> Listed:
        """Let the version that serves answer, in a batch with others."""
        question = ask(served.retriever, query, reach=reach)
        hits = await self._host.answer(served, question, model=query.direction)
        rows = hits.rows[0][hits.rows[0] >= 0]
        columns: list[dict[str, Any]] = []
        if query.columns:
            side = question.direction.target
            table = await self._host.show(served, side, rows[: query.k], query.columns)
            columns = plain_records(table[query.columns])
        scores = np.nan_to_num(hits.scores[0][: len(rows)]).tolist()
        return Listed(hits.ids[0][: len(rows)].tolist(), scores, columns)

    async def _rows(self, served: Served, side: Side, rows: Rows) -> list[dict[str, Any]]:
        """The ids and columns of rows."""
        id_column = served.retriever.catalogue(side).id_column
        records = plain_records(await self._host.show(served, side, rows))
        return [{"id": record[id_column], "columns": record} for record in records]

    async def _aside(self, function: Callable[[], A]) -> A:
        """Call a function that takes long, on the thread for that.

        Raises:
            OverloadedError: too many wait.
        """
        if self._waiting >= MOST_WAITING:
            raise OverloadedError(
                f"explorer: expected at most {MOST_WAITING} searches to wait, and they do; ask "
                "again later"
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        finally:
            self._waiting -= 1

    def _describe(self, served: Served) -> dict[str, Any]:
        if served not in self._described:
            max_k = self._host.settings.max_k
            self._described[served] = describe(served.retriever, max_k=max_k)
        return self._described[served]

    def _list_versions(self, current: int) -> list[dict[str, Any]]:
        store = Store(self._host.models)
        listed: list[dict[str, Any]] = []
        for version in sorted(store.versions(), reverse=True)[:MOST_VERSIONS]:
            known = {"version": version, "is_current": version == current, "readable": False}
            with suppress(BundleError):
                bundle = store.open(version, verify=False)
                known |= _figures(bundle.manifest)
                known |= {"readable": True, "has_report": bundle.report.is_file()}
            listed.append(known)
        return listed

    def _read_report(self, version: int) -> str:
        store = Store(self._host.models)
        try:
            return store.open(version, verify=False).report.read_text(encoding="utf-8")
        except (BundleError, OSError):
            raise NotFoundError(
                f"version: expected one that has a report, received {version}; see "
                "/v1/explorer/versions"
            ) from None


def _past(served: Served, id: int | str) -> Rows:
    """The rows of the items that a user has.

    Raises:
        NotFoundError: there is no such user.
    """
    parts = served.retriever.parts
    users, items = parts.catalogue("user"), parts.catalogue("item")
    row = int(users.rows([id])[0])
    if row < 0:
        raise NotFoundError(f"{users.id_column}: version {served.version} has no user {id!r}")
    given = users.record(row).get(parts.history or "") or []
    known = items.rows(given) if isinstance(given, list) else np.empty(0, dtype=np.int64)
    rows = np.concatenate([known, parts.seen.of("user", row)])
    present: Rows = pd.unique(rows[(rows >= 0) & items.is_present[rows]])
    return present


def _figures(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says, as `VersionFigures` has it."""
    segments = manifest.metrics.get("segments", {})
    return {
        "name": manifest.name,
        "created": manifest.created,
        "parent_version": manifest.parent_version,
        "mined_with": (manifest.mined or {}).get("version"),
        "index": str(manifest.index.get("kind", "")),
        "figures": {
            name: {"users": segment.get("n_users"), **segment["figures"]}
            for name, segment in segments.items()
        },
    }
