"""Publish a version to Milvus: write and check a collection for each direction, switch the aliases.

A collection is written under the name `NAME_new`, and renamed when it is complete and its recall is
high enough. So a collection with its final name is finished, and one that an interruption left is
dropped and written again. The aliases are switched when the collections of all directions exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.progress import Reporter
from pipelines.publishing.milvus_collection import WRITE_S, CollectionWriter, PublishedDirection
from serving.milvus.connection import MilvusClient, MilvusConnection
from serving.milvus.fields import LONGEST_TEXT, column_fields
from serving.milvus.index import alias_name, version_in
from serving.version.embeddings import Embeddings
from serving.version.store import Store, open_bundle
from towers.directions import DIRECTIONS
from towers.errors import ConfigError, DataError
from towers.features.schema import Side


def publish_milvus(
    models: Path,
    milvus: MilvusConnection,
    *,
    version: int | None = None,
    keep: int = 1,
    recall: float = 0.95,
    again: bool = False,
    reporter: Reporter | None = None,
) -> list[PublishedDirection]:
    """Write a version to Milvus, unless it is there, and switch the aliases to it.

    Interrupted, the same call goes on with the first direction that is not finished.

    Args:
        models: the models directory, or the folder of one version.
        milvus: the connection to write to.
        version: the version to publish; by default the current.
        keep: how many other versions stay in Milvus, the newest of them.
        recall: the share of the exact neighbours that each direction must find.
        again: write existing collections once more, without the changes made to them since;
            servers that use them get errors for a moment.
        reporter: shows progress; silent by default.

    Raises:
        ConfigError: `keep` or `recall` is out of range.
        BundleError: there is no such version, or it is damaged.
        DataError: Milvus cannot hold an id.
        RecallGateError: the recall of a direction is too low; no alias has been switched.
        IndexUnavailableError: Milvus cannot be reached, is too slow, or refuses.
    """
    if keep < 0 or not 0 <= recall <= 1:
        raise ConfigError(
            f"expected keep of at least 0 and recall within [0, 1], received {keep} and {recall}"
        )
    reporter = reporter or Reporter()
    bundle = open_bundle(models) if version is None else Store(models).open(version)
    sides: dict[Side, Embeddings] = {
        "user": Embeddings.read(bundle.users),
        "item": Embeddings.read(bundle.items),
    }
    _check_ids(sides["user"])
    _check_ids(sides["item"])
    existing = set(milvus.call("list collections", _list))
    published = []
    for direction in DIRECTIONS.values():
        writer = CollectionWriter(milvus, bundle, direction, sides=sides, least_recall=recall)
        published.append(writer.write(existing, again=again, reporter=reporter))
    for one in published:
        _switch(milvus, alias_name(DIRECTIONS[one.direction], prefix=milvus.prefix), one.collection)
    _drop_old(milvus, published, keep=keep)
    return published


def _check_ids(side: Embeddings) -> None:
    """Refuse ids that Milvus cannot hold.

    Raises:
        DataError: a text is too long.
    """
    first = column_fields(side)[0]
    if not first.holds(side.column(side.id_column)):
        raise DataError(
            f"{side.id_column}: expected ids of at most {LONGEST_TEXT} bytes, as Milvus holds, "
            "received a longer one; shorten the ids"
        )


def _list(client: MilvusClient, timeout: float) -> list[str]:
    return [str(name) for name in client.list_collections(timeout=timeout)]


def _switch(milvus: MilvusConnection, alias: str, collection: str) -> None:
    """Make an alias name a collection, in one step."""

    def switch(client: MilvusClient, timeout: float) -> None:
        if client.has_collection(alias, timeout=timeout):
            client.alter_alias(collection, alias, timeout=timeout)
        else:
            client.create_alias(collection, alias, timeout=timeout)

    milvus.call(f"switch the alias {alias}", switch, timeout_s=WRITE_S)


def _drop_old(milvus: MilvusConnection, published: list[PublishedDirection], *, keep: int) -> None:
    """Drop all versions of each direction except the published one and the `keep` newest others."""
    names = milvus.call("list collections", _list)
    for one in published:
        for name in _old(names, one, prefix=milvus.prefix, keep=keep):
            milvus.call(
                f"drop {name}",
                lambda client, t, name=name: client.drop_collection(name, timeout=t),  # type: ignore[misc]
                timeout_s=WRITE_S,
            )


def _old(names: list[str], one: PublishedDirection, *, prefix: str, keep: int) -> Iterator[str]:
    """The collections of a direction that are not kept."""
    versions = {
        name: version
        for name in names
        if name != one.collection
        and (version := version_in(name, DIRECTIONS[one.direction], prefix=prefix)) is not None
    }
    yield from sorted(versions, key=lambda name: -versions[name])[keep:]
