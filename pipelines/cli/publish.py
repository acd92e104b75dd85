"""The command `publish`: a version's vectors in a search engine elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import JsonLog, Quiet, job_output
from towers.errors import ConfigError

MILVUS = "milvus"


def publish(
    models: Annotated[
        Path,
        typer.Argument(help="The models directory, or one version's folder.", show_default=False),
    ],
    to: Annotated[str, typer.Option("--to", help="The engine: milvus.")] = MILVUS,
    uri: Annotated[
        str,
        typer.Option(
            help="Where it is: http://HOST:19530, or a file X.db for Milvus Lite. "
            "FM_RECALL_MILVUS_TOKEN in the environment has USER:PASSWORD, where it asks for them."
        ),
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
    quiet: Quiet = False,
    as_json: JsonLog = False,
) -> None:
    """Write a version's vectors to Milvus, check them, and switch its aliases to them.

    Interrupted, the same command goes on with the first direction that is not finished.
    """
    from pipelines.publishing.publish_milvus import publish_milvus
    from serving.milvus.connection import TOKEN, MilvusConnection
    from towers.environment import secret

    if to != MILVUS:
        raise ConfigError(f"--to: expected {MILVUS!r}, received {to!r}")
    with job_output(quiet=quiet, as_json=as_json, folder=models, after="direction") as reporter:
        published = publish_milvus(
            models,
            MilvusConnection(uri, token=secret(TOKEN), prefix=prefix),
            version=version,
            keep=keep,
            recall=recall,
            again=again,
            reporter=reporter,
        )
        for one in published:
            measured = "there already" if one.recall is None else f"recall {one.recall:.4f}"
            text = f"{prefix}_{one.direction} -> {one.collection}: {one.n:,} vectors, {measured}"
            if one.unfiltered:
                text += f"; without the columns {', '.join(one.unfiltered)}"
            reporter.say(text)
        reporter.note("vectors are published", event="result", n_directions=len(published))
