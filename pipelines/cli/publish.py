"""The command `publish`, and the index elsewhere that `serve` can search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from towers.errors import ConfigError

if TYPE_CHECKING:
    from serving.retrieval.parts import OpenIndex

MILVUS, OWN = "milvus", "own"


def publish(
    models: Annotated[
        Path,
        typer.Argument(help="The models directory, or one version's folder.", show_default=False),
    ],
    to: Annotated[str, typer.Option("--to", help="The engine: milvus.")] = MILVUS,
    uri: Annotated[
        str, typer.Option(help="Where it is: http://HOST:19530, or a file X.db for Milvus Lite.")
    ] = "http://127.0.0.1:19530",
    version: Annotated[int | None, typer.Option(help="A version; default: the current.")] = None,
    keep: Annotated[
        int, typer.Option(help="Other versions that stay there, the newest of them.")
    ] = 1,
    recall: Annotated[
        float, typer.Option(help="The share of the exact neighbours that must be found.")
    ] = 0.95,
    prefix: Annotated[
        str, typer.Option(help="What the names of collections and aliases begin with.")
    ] = "fm_recall",
    again: Annotated[
        bool, typer.Option("--again", help="Write the version once more where it is there already.")
    ] = False,
) -> None:
    """Write a version's vectors to Milvus, check them, and switch its aliases to them.

    Interrupted, the same command goes on with the first direction that is not finished.
    """
    from pipelines.progress import Reporter
    from pipelines.publishing.milvus import publish_milvus
    from serving.milvus.connection import MilvusConnection

    if to != MILVUS:
        raise ConfigError(f"--to: expected {MILVUS!r}, received {to!r}")
    console = Console()
    published = publish_milvus(
        models,
        MilvusConnection(uri, prefix=prefix),
        version=version,
        keep=keep,
        recall=recall,
        again=again,
        reporter=Reporter(console),
    )
    for one in published:
        measured = "there already" if one.recall is None else f"recall {one.recall:.4f}"
        text = f"{prefix}_{one.direction} -> {one.collection}: {one.n:,} vectors, {measured}"
        if one.unfiltered:
            text += f"; without the columns {', '.join(one.unfiltered)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def open_milvus(index: str, uri: str | None, *, prefix: str, timeout_s: float) -> OpenIndex | None:
    """What opens the indexes of `serve`; None for those that a version has itself.

    Args:
        index: `own` or `milvus`.
        uri: of Milvus.
        prefix: what the names of collections begin with.
        timeout_s: how long an answer of the server may take; a search gets half of it.

    Raises:
        ConfigError: the index is neither, or Milvus has no URI.
    """
    if index not in {OWN, MILVUS}:
        raise ConfigError(f"--index: expected {OWN!r} or {MILVUS!r}, received {index!r}")
    if (index == MILVUS) != (uri is not None):
        raise ConfigError(
            f"--index and --uri: expected --index {MILVUS} with a --uri, or neither, received "
            f"--index {index} {'without' if uri is None else 'with'} a --uri"
        )
    if uri is None:
        return None
    from serving.milvus.connection import MilvusConnection, import_pymilvus
    from serving.milvus.index import indexes_in

    import_pymilvus()
    return indexes_in(MilvusConnection(uri, timeout_s=timeout_s / 2, prefix=prefix))
