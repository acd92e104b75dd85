"""The command `serve`, and the index elsewhere that it can search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from towers.errors import ConfigError

if TYPE_CHECKING:
    from serving.retrieval.parts import OpenIndex

MILVUS, OWN = "milvus", "own"


def serve(
    models: Annotated[
        Path, typer.Argument(help="The models directory that `run` wrote.", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="REST; 0 takes a free one.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="gRPC; 0 takes a free one.")] = 8500,
    max_k: Annotated[int, typer.Option(help="The most results a source.")] = 1000,
    max_batch: Annotated[int, typer.Option(help="The most sources in a request.")] = 1024,
    max_body_mb: Annotated[int, typer.Option(help="The largest request, in MiB.")] = 16,
    max_queue: Annotated[
        int, typer.Option(help="The most sources that wait; more are refused.")
    ] = 4096,
    timeout: Annotated[float, typer.Option(help="Seconds for an answer, at most.")] = 10.0,
    poll: Annotated[float, typer.Option(help="Seconds between looks for a new version.")] = 1.0,
    log_level: Annotated[
        str, typer.Option(help="debug (a line a request), info, warning or error.")
    ] = "info",
    log_format: Annotated[
        str | None,
        typer.Option(help="text or json; default: text on a terminal, json elsewhere."),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="The folder that keeps fresh users and items; default: MODELS/journal.",
        ),
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only",
            help="Refuse changes, and never write to the journal; what another server writes to it "
            "is read.",
        ),
    ] = False,
    index: Annotated[
        str, typer.Option(help="Where to search: own (the version's), or milvus with --uri.")
    ] = "own",
    uri: Annotated[str | None, typer.Option(help="Milvus, which `publish` has written to.")] = None,
    prefix: Annotated[
        str, typer.Option(help="What the names of collections begin with.")
    ] = "fm_recall",
) -> None:
    """Answer over REST and gRPC, as TF Serving does, and always by the current version.

    What `run`, or `rollback`, makes current meanwhile is loaded and swapped in.
    """
    from serving.server.process import Addresses, run
    from serving.server.runtime.logs import configure
    from serving.server.runtime.settings import MIB, ServerSettings
    from towers.typed import parse

    limits = {"max_k": max_k, "max_batch": max_batch, "max_queue": max_queue}
    where = {"host": host, "port": port, "grpc_port": grpc_port}
    settings = parse(
        ServerSettings,
        {
            **where,
            **limits,
            "max_body_bytes": max_body_mb * MIB,
            "timeout_s": timeout,
            "poll_s": poll,
            "read_only": read_only,
        },
        where="serve",
    )
    if not models.is_dir():
        raise ConfigError(f"{models}: expected a models directory, received none; check the path")
    configure(log_level, format=log_format)

    def say(addresses: Addresses) -> None:
        if sys.stdout.isatty():
            text = f"{models} is served at {addresses.rest} and, over gRPC, at {addresses.grpc}. "
            text += f"To explore it, open {addresses.rest}/ in a browser; the API is described at "
            text += f"{addresses.rest}/docs . Ctrl-C stops the server."
            Console().print(text, markup=False, highlight=False, soft_wrap=True)

    run(
        models,
        settings=settings,
        journal=journal,
        index=open_milvus(index, uri, prefix=prefix, timeout_s=timeout),
        ready=say,
    )


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
