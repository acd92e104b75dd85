"""Fresh users and items: put in, looked up and taken out without a new version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from serving.server.api.dependencies import Current, TheCore
from serving.server.api.error_answers import ERRORS
from serving.server.api.json_route import JsonRoute
from serving.server.api.request_model import REQUEST, RequestModel
from serving.server.api.request_values import Id, Many, Values, check_lists
from serving.server.api.table_json import plain_records
from serving.server.errors import TooLargeError
from serving.server.runtime.served_version import Served
from serving.server.runtime.server_core import ServerCore
from towers.features.schema import Side

items = APIRouter(prefix="/v1/items", route_class=JsonRoute, tags=["items"], responses=ERRORS)
users = APIRouter(prefix="/v1/users", route_class=JsonRoute, tags=["users"], responses=ERRORS)


async def _side(request: Request) -> Side:
    """Whether a path is about items or users."""
    return "item" if request.url.path.startswith(items.prefix) else "user"


ItsSide = Annotated[Side, Depends(_side)]
InPath = Annotated[str, Path(description="As in training; an integer is written in digits.")]


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST)
class Items(RequestModel):
    """Items to put in."""

    items: Many[Values] = Field(
        min_length=1, description="Each as a row of the items' table, with features and the id."
    )


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST)
class Users(RequestModel):
    """Users to put in."""

    users: Many[Values] = Field(
        min_length=1, description="Each as a row of the users' table, with features and the id."
    )


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST)
class Ids(RequestModel):
    """Users or items to take out."""

    ids: Many[Id] = Field(min_length=1)


LEFT_OUT = (
    "Of what was sent, what is on disk but does not fit the version that answers now, which came "
    "while the change was written."
)


@dataclass(frozen=True)
class Upserted:
    """What was put in; the next answer can have it."""

    version: Annotated[int, Field(description="The version that answers with it.")]
    inserted: Annotated[int, Field(description="Ids that were not there.")]
    replaced: Annotated[int, Field(description="Ids that were there.")]
    left_out: Annotated[int, Field(description=LEFT_OUT)] = 0


@dataclass(frozen=True)
class Deleted:
    """What was taken out; no answer has it from now on."""

    version: Annotated[int, Field(description="The version that answers without it.")]
    deleted: Annotated[int, Field(description="Ids that were there.")]
    unknown: Annotated[int, Field(description="Ids that were not there.")]
    left_out: Annotated[int, Field(description=LEFT_OUT)] = 0


@dataclass(frozen=True)
class Shown:
    """What is known of a user or an item that can be found."""

    version: int
    id: Id
    columns: Annotated[
        dict[str, Any], Field(description="The columns of the table, the id among them.")
    ]


PUT = (
    "On disk before the answer. A value that is not given is missing; nothing of a record that was "
    "there before is kept. One record that does not fit refuses all."
)


@items.post("", summary="Put items in, or others in their place", description=PUT)
async def put_items(body: Items, core: TheCore) -> Upserted:
    """Put items in, or others in their place."""
    return await _put(core, "item", body.items)


@users.post("", summary="Put users in, or others in their place", description=PUT)
async def put_users(body: Users, core: TheCore) -> Upserted:
    """Put users in, or others in their place."""
    return await _put(core, "user", body.users)


@items.post("/delete", summary="Take items out")
@users.post("/delete", summary="Take users out")
async def delete(body: Ids, side: ItsSide, core: TheCore) -> Deleted:
    """Take several out, on disk before the answer.

    An id that is not there is remembered too, so that no later version brings it; putting it in
    again ends that.
    """
    return await _delete(core, side, body.ids)


@items.delete("/{id:path}", summary="Take one item out")
@users.delete("/{id:path}", summary="Take one user out")
async def delete_one(id: InPath, side: ItsSide, core: TheCore, served: Current) -> Deleted:
    """Take one out, as several are."""
    return await _delete(core, side, [_parse(served, side, id)])


@items.get("/{id:path}", summary="What is known of one item")
@users.get("/{id:path}", summary="What is known of one user")
async def show(id: InPath, side: ItsSide, core: TheCore, served: Current) -> Shown:
    """Answer with the columns of the table, as published or as put in since."""
    parsed = _parse(served, side, id)
    rows = served.retriever.parts.known_rows(
        side, [parsed], remedy="check the id, or put it in first"
    )
    (columns,) = plain_records(await core.show(served, side, rows))
    return Shown(served.version, parsed, columns)


def _parse(served: Served, side: Side, text: str) -> int | str:
    """Read an id in a path.

    Raises:
        QueryError: the text is not such an id.
    """
    return served.retriever.catalogue(side).parse_id(text)


async def _put(core: ServerCore, side: Side, records: Sequence[dict[str, Any]]) -> Upserted:
    _check_size(core, side, len(records))
    check_lists(records, most=core.settings.max_cells)
    changed = await core.change(side, upsert=records)
    return Upserted(changed.version, changed.inserted, changed.replaced, changed.left_out)


async def _delete(core: ServerCore, side: Side, ids: Sequence[int | str]) -> Deleted:
    _check_size(core, side, len(ids))
    changed = await core.change(side, delete=ids)
    return Deleted(changed.version, changed.deleted, changed.unknown, changed.left_out)


def _check_size(core: ServerCore, side: Side, n: int) -> None:
    largest = core.settings.max_batch
    if n > largest:
        raise TooLargeError(
            f"{side}s: expected at most {largest}, received {n}; send several requests"
        )
