"""Fresh users and items: put in, looked up and taken out without a new version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.responses import Response

from serving.server.api.json_answer import json_response, plain_records
from serving.server.api.json_api import JsonRoute, Strict, errors
from serving.server.api.json_values import Id, Many, Values, check_lists
from serving.server.errors import NotFoundError, TooLargeError
from serving.server.runtime.host import Host
from serving.server.runtime.served_version import Served
from towers.errors import QueryError
from towers.schema import Side

InPath = Annotated[str, Path(description="As in training; an integer is written in digits.")]


class Items(Strict):
    """Items to put in."""

    items: Many[Values] = Field(
        min_length=1, description="Each as a row of the items' table, with features and the id."
    )


class Users(Strict):
    """Users to put in."""

    users: Many[Values] = Field(
        min_length=1, description="Each as a row of the users' table, with features and the id."
    )


class Ids(Strict):
    """Users or items to take out."""

    ids: Many[Id] = Field(min_length=1)


class Upserted(BaseModel):
    """What was put in; the next answer can have it."""

    version: int = Field(description="The version that answers with it.")
    inserted: int = Field(description="Ids that were not there.")
    replaced: int = Field(description="Ids that were there.")


class Deleted(BaseModel):
    """What was taken out; no answer has it from now on."""

    version: int = Field(description="The version that answers without it.")
    deleted: int = Field(description="Ids that were there.")
    unknown: int = Field(description="Ids that were not there.")


class Shown(BaseModel):
    """What is known of a user or an item that can be found."""

    version: int
    id: Id
    columns: dict[str, Any] = Field(description="The columns of the table, the id among them.")


class FreshApi:
    """The routes of one side's fresh records."""

    def __init__(self, host: Host, side: Side) -> None:
        """Change what `host` answers with, on one side."""
        self._host, self._side = host, side

    def router(self) -> APIRouter:
        """The routes."""
        one, all = self._side, f"{self._side}s"
        router = APIRouter(prefix=f"/v1/{all}", route_class=JsonRoute, tags=[all])
        router.add_api_route(
            "",
            self.put_items if self._side == "item" else self.put_users,
            methods=["POST"],
            response_model=Upserted,
            responses=errors(400, 413, 429, 503),
            summary=f"Put {all} in, or others in their place",
            description=(
                "On disk before the answer. A value that is not given is missing; nothing of a "
                "record that was there before is kept. One record that does not fit refuses all."
            ),
        )
        router.add_api_route(
            "/delete",
            self.delete,
            methods=["POST"],
            response_model=Deleted,
            responses=errors(400, 413, 429, 503),
            summary=f"Take {all} out",
            description=(
                "On disk before the answer. An id that is not there is remembered too, so that no "
                "later version brings it; putting it in again ends that."
            ),
        )
        router.add_api_route(
            "/{id:path}",
            self.delete_one,
            methods=["DELETE"],
            response_model=Deleted,
            responses=errors(400, 429, 503),
            summary=f"Take one {one} out",
        )
        router.add_api_route(
            "/{id:path}",
            self.show,
            methods=["GET"],
            response_model=Shown,
            responses=errors(400, 404, 503),
            summary=f"What is known of one {one}",
        )
        return router

    async def put_items(self, body: Items) -> Response:
        """Put items in."""
        return await self._put(body.items)

    async def put_users(self, body: Users) -> Response:
        """Put users in."""
        return await self._put(body.users)

    async def delete(self, body: Ids) -> Response:
        """Take several out."""
        return await self._delete(body.ids)

    async def delete_one(self, id: InPath) -> Response:
        """Take one out."""
        return await self._delete([self._parse(self._host.current(), id)])

    async def show(self, id: InPath) -> Response:
        """Answer with the columns of one."""
        served = self._host.current()
        catalogue = served.retriever.catalogue(self._side)
        parsed = self._parse(served, id)
        rows = catalogue.rows([parsed])
        if rows[0] < 0:
            raise NotFoundError(
                f"{catalogue.id_column}: version {served.version} has no {self._side} {parsed!r}"
            )
        (columns,) = plain_records(await self._host.show(served, self._side, rows))
        return json_response({"version": served.version, "id": parsed, "columns": columns})

    def _parse(self, served: Served, text: str) -> int | str:
        """Read an id in a path, written as JSON writes it: 10, not 010 or 1_0.

        Raises:
            QueryError: it is none.
        """
        catalogue = served.retriever.catalogue(self._side)
        id = catalogue.parse_id(text)
        if str(id) != text:
            raise QueryError(
                f"{catalogue.id_column}: expected an integer, as in training, received {text!r}"
            )
        return id

    async def _put(self, records: Sequence[dict[str, Any]]) -> Response:
        self._check_size(len(records))
        check_lists(records)
        changed = await self._host.change(self._side, upsert=records)
        return json_response(
            {
                "version": changed.version,
                "inserted": changed.inserted,
                "replaced": changed.replaced,
            }
        )

    async def _delete(self, ids: Sequence[int | str]) -> Response:
        self._check_size(len(ids))
        changed = await self._host.change(self._side, delete=ids)
        return json_response(
            {"version": changed.version, "deleted": changed.deleted, "unknown": changed.unknown}
        )

    def _check_size(self, n: int) -> None:
        largest = self._host.settings.max_batch
        if n > largest:
            raise TooLargeError(
                f"{self._side}s: expected at most {largest}, received {n}; send several requests"
            )
