"""The explorer's API: what its page asks beside the retrieval API."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from serving.retrieval.find_text import find_text
from serving.search.index import Rows
from serving.server.api.dependencies import Current, TheCore
from serving.server.api.error_answers import ERRORS
from serving.server.api.fresh_routes import InPath
from serving.server.api.json_route import JsonRoute
from serving.server.api.table_json import plain_records
from serving.server.explorer.compare_versions import Listed, answer_by, ask, compare, reach_of
from serving.server.explorer.forms import ExplorerSchema, describe
from serving.server.explorer.models import (
    CompareQuery,
    Comparison,
    Found,
    Known,
    LookupQuery,
    PastItems,
    Row,
    Versions,
)
from serving.server.explorer.other_version import OtherVersion
from serving.server.explorer.published import list_versions, read_report
from serving.server.explorer.side_thread import SideThread
from serving.server.runtime.served_version import Served
from serving.server.runtime.server_core import ServerCore
from towers.errors import QueryError
from towers.features.schema import Side

MOST_FOUND, LONGEST_TEXT = 100, 200
"""Results of a search, and the characters of what is searched."""
MOST_PAST = 1000
"""Items of a user's past in one answer."""

MOST_WAITING = 32
"""Searches that wait or run at most."""

REPORT_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; "
        "sandbox"
    ),
    "X-Content-Type-Options": "nosniff",
}
"""A report is a page of styles and drawings: nothing in it runs or loads anything."""

InSide = Annotated[Side, Path(description="Users or items.")]
Version = Annotated[int, Path(ge=1, description="A published version.")]

router = APIRouter(
    prefix="/v1/explorer", route_class=JsonRoute, tags=["explorer"], responses=ERRORS
)


@dataclass(frozen=True, eq=False)
class Explorer:
    """What the routes of one app keep between requests."""

    other: OtherVersion
    side_thread: SideThread = field(
        default_factory=lambda: SideThread("explorer", most_waiting=MOST_WAITING)
    )
    schemas: WeakKeyDictionary[Served, ExplorerSchema] = field(default_factory=WeakKeyDictionary)


async def _explorer(request: Request) -> Explorer:
    explorer: Explorer = request.app.state.explorer
    return explorer


TheExplorer = Annotated[Explorer, Depends(_explorer)]


@router.get("/schema", summary="The features and columns of users and items")
async def schema(core: TheCore, served: Current, explorer: TheExplorer) -> ExplorerSchema:
    """Describe the version that answers."""
    if served not in explorer.schemas:
        max_k = core.settings.max_k
        described = await explorer.side_thread.run(describe, served.retriever, max_k=max_k)
        explorer.schemas[served] = described
    return explorer.schemas[served]


@router.get(
    "/search/{side}", summary="Users or items by the start of their id, or by text in their columns"
)
async def search(
    core: TheCore,
    served: Current,
    *,
    explorer: TheExplorer,
    side: InSide,
    q: Annotated[
        str, Query(max_length=LONGEST_TEXT, description="Text; none finds the first rows.")
    ] = "",
    limit: Annotated[int, Query(ge=1, le=MOST_FOUND)] = 20,
) -> Found:
    """Search, with the best first: this id, ids that start so, columns that do, and all others."""
    snapshot = await core.look(served.retriever.catalogue(side).snapshot)
    rows, total = await explorer.side_thread.run(find_text, snapshot, q, limit=limit)
    return Found(served.version, side, total, await _rows(core, served, side, rows))


@router.post("/lookup/{side}", summary="What is known of several users or items")
async def lookup(side: InSide, query: LookupQuery, core: TheCore, served: Current) -> Known:
    """Look several ids up; one that the version does not have is left out."""
    rows = served.retriever.catalogue(side).rows(query.ids)
    return Known(served.version, side, await _rows(core, served, side, rows[rows >= 0]))


@router.get("/history/{id:path}", summary="The items that a user has")
async def history(
    id: InPath,
    core: TheCore,
    served: Current,
    limit: Annotated[int, Query(ge=1, le=MOST_PAST)] = 200,
    name: Annotated[
        str | None, Query(description="Of several histories, the feature; default: the positives.")
    ] = None,
) -> PastItems:
    """List the items of training, and those of the history that the user was put in with."""
    parsed = served.retriever.catalogue("user").parse_id(id)
    rows = await core.look(partial(_past, served, parsed, name))
    items = await _rows(core, served, "item", rows[:limit])
    return PastItems(served.version, parsed, len(rows), items)


@router.get("/versions", summary="The published versions with their figures")
async def versions(core: TheCore, served: Current, explorer: TheExplorer) -> Versions:
    """List the published versions, the newest first."""
    listed = await explorer.side_thread.run(list_versions, core.models, current=served.version)
    return Versions(served.version, listed)


@router.get(
    "/versions/{version}/report",
    summary="The report of a version, as HTML",
    response_class=Response,
    responses={200: {"content": {"text/html": {}}}},
)
async def report(version: Version, core: TheCore, explorer: TheExplorer) -> Response:
    """Answer with a page in which nothing runs, and which loads nothing."""
    text = await explorer.side_thread.run(read_report, core.models, version)
    return HTMLResponse(text, headers=REPORT_HEADERS)


@router.post("/compare", summary="What the current version and another answer")
async def compare_versions(
    query: CompareQuery, core: TheCore, served: Current, explorer: TheExplorer
) -> Comparison:
    """Ask two versions the same.

    The other version is opened for this and kept until another one is asked for. While that takes
    long, the answer is 503: ask again.
    """
    max_k = core.settings.max_k
    if query.k > max_k:
        raise QueryError(f"k: expected at most {max_k}, received {query.k}; ask for less")
    if query.other == served.version:
        raise QueryError(
            f"other: expected another version than the one that answers, {served.version}"
        )
    reach = reach_of(query.k, max_k=max_k)
    current = await _current(core, served, query, reach=reach)
    other = await explorer.other.ask(query.other, partial(answer_by, query=query, reach=reach))
    return compare(query, current, other, version=served.version, reach=reach)


async def _current(core: ServerCore, served: Served, query: CompareQuery, *, reach: int) -> Listed:
    """Let the version that serves answer, in a batch with others."""
    question = ask(served.retriever, query, reach=reach)
    hits = await core.answer(served, question, model=query.direction)
    columns: list[dict[str, Any]] = []
    if query.columns:
        rows = hits.rows[0][hits.rows[0] >= 0][: query.k]
        table = await core.show(served, question.direction.target, rows, query.columns)
        columns = plain_records(table[query.columns])
    return Listed.of(hits, columns)


async def _rows(core: ServerCore, served: Served, side: Side, rows: Rows) -> list[Row]:
    """The ids and columns of rows."""
    id_column = served.retriever.catalogue(side).id_column
    records = plain_records(await core.show(served, side, rows))
    return [Row(record[id_column], record) for record in records]


def _past(served: Served, id: int | str, name: str | None) -> Rows:
    """The rows of the items that a user has, in a history or by the positives.

    Raises:
        UnknownIdError: there is no such user.
        QueryError: there is no such history.
    """
    parts = served.retriever.parts
    if name is not None and name not in parts.history_columns:
        raise QueryError(
            f"name: expected one of the histories {list(parts.history_columns)}, received {name!r}"
        )
    users, items = parts.catalogue("user"), parts.catalogue("item")
    row = int(parts.known_rows("user", [id], remedy="check the id, or put it in first")[0])
    column = parts.history_columns.get(name or parts.history or "")
    given = users.record(row).get(column or "") or []
    known = items.rows(given) if isinstance(given, list) else np.empty(0, dtype=np.int64)
    past = parts.seen if name is None else parts.past(name)
    rows = np.concatenate([known, past.of("user", row)])
    present: Rows = pd.unique(rows[(rows >= 0) & items.is_present[rows]])
    return present
