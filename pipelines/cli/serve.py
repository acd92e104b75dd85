"""The command `serve`, and the index elsewhere that it can search."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from towers.errors import ConfigError

if TYPE_CHECKING:
    from serving.retrieval.parts import OpenIndex
    from serving.server.process import Addresses

MILVUS, OWN = "milvus", "own"


def serve(
    models: Annotated[
        Path, typer.Argument(help="The models directory that `run` wrote.", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="REST; 0 takes a free one.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="gRPC; 0 takes a free one.")] = 8500,
    write_port: Annotated[
        int | None,
        typer.Option(
            help="REST for changes of users and items, which --port then refuses; default: --port."
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that answer on the same ports, each with the version in its memory."
        ),
    ] = 1,
    max_k: Annotated[int, typer.Option(help="The most results a source.")] = 1000,
    max_batch: Annotated[int, typer.Option(help="The most sources in a request.")] = 1024,
    max_body_mb: Annotated[int, typer.Option(help="The largest request, in MiB.")] = 16,
    max_list: Annotated[
        int, typer.Option(help="The longest list of a source over TF Serving's protocols.")
    ] = 4096,
    max_cells: Annotated[
        int, typer.Option(help="The most values in a request: sources times the longest list.")
    ] = 2**18,
    max_results: Annotated[
        int, typer.Option(help="The most results in an answer: sources times k.")
    ] = 100_000,
    max_unknown: Annotated[
        int,
        typer.Option(help="The most ids remembered as taken out that are not there, of each side."),
    ] = 100_000,
    max_connections: Annotated[int, typer.Option(help="The most connections to REST.")] = 1000,
    max_header_kb: Annotated[int, typer.Option(help="The largest head of a request, in KiB.")] = 64,
    header_timeout: Annotated[
        float, typer.Option(help="Seconds in which the head of a request must have come.")
    ] = 10.0,
    idle: Annotated[int, typer.Option(help="Seconds that an idle connection stays open.")] = 75,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            help="MiB that the process may have: a version that does not fit beside the one that "
            "answers is refused. Default: none."
        ),
    ] = None,
    shutdown: Annotated[
        float, typer.Option(help="Seconds that requests in flight may still take at the end.")
    ] = 10.0,
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
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write a line to the log for each request.")
    ] = False,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="The folder that keeps fresh users and items; default: MODELS/journal.",
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="The file of the tokens of those who may ask (docs/access.md); read again when it "
            "changes. The environment's FM_RECALL_TOKENS may have them too.",
        ),
    ] = None,
    without_tokens: Annotated[
        bool,
        typer.Option("--without-tokens", help="Let anyone ask who reaches the address."),
    ] = False,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="The certificate for REST and gRPC, as PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, as PEM.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name that the server answers to over HTTP; once for each."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="A page of another server that may ask, such as https://shop.example."),
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
    uri: Annotated[
        str | None,
        typer.Option(
            help="Milvus, which `publish` has written to; the environment's FM_RECALL_MILVUS_TOKEN "
            "has USER:PASSWORD, if it asks for them."
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="What the names of collections begin with.")
    ] = "fm_recall",
) -> None:
    """Answer over REST and gRPC, as TF Serving does, and always by the current version.

    What `run`, or `rollback`, makes current meanwhile is loaded and swapped in.
    """
    from serving.server.runtime.logs import configure
    from serving.server.runtime.settings import MIB, ServerSettings
    from towers.environment import secret
    from towers.typed import parse

    limits = {
        "workers": workers,
        "max_k": max_k,
        "max_batch": max_batch,
        "max_list": max_list,
        "max_cells": max_cells,
        "max_results": max_results,
        "max_unknown": max_unknown,
        "max_connections": max_connections,
        "max_header_bytes": max_header_kb * 2**10,
        "header_s": header_timeout,
        "idle_s": idle,
        "max_queue": max_queue,
        "memory_bytes": None if memory_limit is None else memory_limit * MIB,
        "shutdown_s": shutdown,
    }
    where = {"host": host, "port": port, "grpc_port": grpc_port, "write_port": write_port}
    settings = parse(
        ServerSettings,
        {
            **where,
            **limits,
            "max_body_bytes": max_body_mb * MIB,
            "timeout_s": timeout,
            "poll_s": poll,
            "read_only": read_only,
            "access_log": access_log,
            "tokens": tokens,
            "tokens_text": secret("FM_RECALL_TOKENS"),
            "open_to_all": without_tokens,
            "tls_certificate": tls_certificate,
            "tls_key": tls_key,
            "hosts": tuple(allow_host or ()),
            "origins": tuple(allow_origin or ()),
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

    open_index = partial(open_milvus, index, uri, prefix=prefix, timeout_s=timeout)
    if workers > 1:
        from serving.server.workers.supervisor import Supervisor, Work

        work = Work(
            models=models,
            settings=settings,
            journal=journal,
            index=open_index,
            prepare=partial(configure, log_level, format=log_format),
        )
        Supervisor(work, ready=say).run()
        return
    from serving.server.process import run

    run(models, settings=settings, journal=journal, index=open_index(), ready=say)


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
    from serving.milvus.connection import TOKEN, MilvusConnection, import_pymilvus
    from serving.milvus.index import indexes_in
    from towers.environment import secret

    import_pymilvus()
    at = MilvusConnection(uri, token=secret(TOKEN), timeout_s=timeout_s / 2, prefix=prefix)
    return indexes_in(at)
