"""The command line. TensorFlow is imported by the commands that need it, so that help is quick."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.cli.publish import open_milvus, publish
from pipelines.cli.query import Models, explain, parse_object, query
from towers.errors import ConfigError, EngineError, RecallError

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    name="fm-recall",
    help="Candidate generation with a factorization machine rewritten as two towers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The models directory to publish to.")] = Path("models"),
    from_version: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="VERSION",
            help="Continue from this version, or from the one that is `current`: a short round "
            "that keeps what it has learned. Default: train from the start.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Where tables are read, checked and split: memory; disk, for interactions in "
            "Parquet that memory does not hold; or spark. Default: disk for more than 10 million."
        ),
    ] = None,
    master: Annotated[
        str | None,
        typer.Option(
            help="Spark: the cluster's URL, or local[2]; default: as Spark is configured."
        ),
    ] = None,
) -> None:
    """Read, split, fit, mine, refit, evaluate, export, check and publish.

    Interrupted, the same command goes on from the last finished epoch or stage.
    """
    from pipelines.cli.display import show_next, show_results
    from pipelines.config import load_config
    from pipelines.progress import Reporter
    from pipelines.run import run as run_job

    console = Console()
    with _resumable():
        results = run_job(
            load_config(config),
            out,
            reporter=Reporter(console),
            from_version=None if from_version is None else _parse_version(out, from_version),
            engine=engine,
            master=master,
        )
    show_results(console, results)
    show_next(console, out, program=_program())


@app.command()
def tune(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="The folder for the trials and the TOML file of the best.")
    ] = Path("tune"),
    trials: Annotated[
        int, typer.Option(help="How many trials to have in the end; the first changes nothing.")
    ] = 20,
    minutes: Annotated[
        float | None,
        typer.Option(help="Stop after this long; the same command goes on later."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting to search, such as training.l2; may be given several times. "
            "Default: all but model.embedding_dim."
        ),
    ] = None,
    dims: Annotated[
        bool, typer.Option("--dims", help="Search model.embedding_dim too, which costs time.")
    ] = False,
) -> None:
    """Search a run's settings on its validation split, and write the TOML file of the best.

    Interrupted, the same command goes on from the last finished epoch. The test split is not
    looked at.
    """
    from pipelines.cli.display import show_next_of_search, show_search
    from pipelines.progress import Reporter
    from pipelines.tuning.tune import tune as tune_run

    console = Console()
    with _resumable():
        found = tune_run(
            config,
            out,
            trials=trials,
            minutes=minutes,
            only=only or (),
            dims=dims,
            reporter=Reporter(console),
        )
    show_search(console, found)
    show_next_of_search(console, found, program=_program())


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder for data, models and report.")] = Path(
        "demo"
    ),
    serve: Annotated[
        bool, typer.Option("--serve", help="Then serve it, with the page that explores it.")
    ] = False,
    port: Annotated[int, typer.Option(help="The port of --serve; 0 takes a free one.")] = 8501,
) -> None:
    """Run the whole job on MovieLens 100k and show an answer in each direction."""
    from pipelines.cli.demo import run_demo, serve_demo
    from pipelines.cli.display import show_next
    from pipelines.progress import Reporter

    console = Console()
    with _resumable():
        models = run_demo(out, Reporter(console))
    show_next(console, models, program=_program())
    if serve:
        serve_demo(console, models, port=port)


app.command()(query)
app.command()(explain)


@app.command()
def versions(models: Models = Path("models")) -> None:
    """List the published versions, with their figures."""
    from pipelines.cli.display import show_versions
    from serving.version.store import Store

    show_versions(Console(), Store(models))


@app.command()
def rollback(
    models: Annotated[Path, typer.Argument(help="The models directory.")] = Path("models"),
    to: Annotated[int | None, typer.Option(help="A version; default: the one before.")] = None,
) -> None:
    """Make an earlier version current, after checking that it is undamaged."""
    from serving.version.store import Store

    version = Store(models).rollback(to=to)
    text = f"Version {version} is current. To see all: fm-recall versions -m {models}"
    Console().print(text, markup=False, soft_wrap=True)


@app.command()
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
    from serving.server.runtime.logs import configure
    from serving.server.runtime.process import Addresses, run
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


@app.command()
def candidates(
    models: Annotated[
        Path,
        typer.Argument(help="The models directory, or one version's folder.", show_default=False),
    ],
    users: Annotated[
        Path | None,
        typer.Option(help="Users, in Parquet: a file or a folder; ids, maybe with features."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("candidates"),
    items: Annotated[
        Path | None,
        typer.Option(help="Items, in Parquet: the users that each matches best are written too."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; see docs/candidates.md.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", help="Candidates a user; default: 100.")] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Channels with their quotas, in order of priority: u2i=60,i2i=20."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help='Which items may be candidates, as JSON: {"column": "year", "equals": 1999}.'
        ),
    ] = None,
    block: Annotated[
        Path | None, typer.Option(help="Ids of items that may not, in Parquet or CSV.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="A version; default: the current.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Start over, whatever the folder holds of this command.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="What writes the shards: local, this process; or spark.")
    ] = "local",
    master: Annotated[
        str | None,
        typer.Option(
            help="Spark: the cluster's URL, or local[2]; default: as Spark is configured."
        ),
    ] = None,
) -> None:
    """Write the candidates of every user of a table, as Parquet shards.

    Interrupted or killed, the same command goes on after the last finished shard.
    """
    from pipelines.candidates.job import CandidateJob, write_candidates
    from pipelines.candidates.on_spark import open_engine
    from pipelines.candidates.settings import load_settings, parse_channels
    from pipelines.cli.display import show_candidates
    from pipelines.progress import Reporter

    given = {
        "k": k,
        "channels": None if channels is None else parse_channels(channels),
        "where": None if where is None else parse_object(where, option="--where"),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(config, changes=changes)
    job = CandidateJob(
        models=models,
        out=out,
        users=users,
        items=items,
        block=block,
        version=version,
        settings=settings,
    )
    console = Console()
    with _resumable(after="shard"), open_engine(engine, master=master) as chosen:
        totals = write_candidates(job, again=again, reporter=Reporter(console), engine=chosen)
    show_candidates(console, totals, out=out)


app.command()(publish)


def _program() -> str:
    """How this command was called, where its name alone would not find it."""
    return "fm-recall" if shutil.which("fm-recall") else sys.argv[0]


def _parse_version(models: Path, text: str) -> int:
    """Read the number of a version, or `current`.

    Raises:
        BundleError: no version is current.
        ConfigError: it is neither.
    """
    from serving.version.bundle import parse_version
    from serving.version.store import Store

    version = Store(models).open(verify=False).version if text == "current" else parse_version(text)
    if version is None:
        raise ConfigError(
            f"--from: expected the number of a version, or 'current', received {text!r}; to see "
            f"them: fm-recall versions -m {models}"
        )
    return version


def main() -> None:
    """Run a command; what goes wrong is one clear message, and exit code 2 for bad input."""
    try:
        app()
    except RecallError as error:
        is_system = isinstance(error, EngineError)
        sys.exit(_fail(str(error), code=FAILED if is_system else BAD_INPUT))
    except OSError as error:
        sys.exit(_fail(f"{error.filename or 'system'}: {error.strerror}", code=FAILED))


@contextmanager
def _resumable(*, after: str = "epoch or stage") -> Iterator[None]:
    """Say how to go on after an interruption, and from what on."""
    try:
        yield
    except KeyboardInterrupt:
        again = f"interrupted; the same command goes on from the last finished {after}"
        raise typer.Exit(_fail(again, code=INTERRUPTED)) from None


def _fail(message: str, *, code: int) -> int:
    """Say what went wrong on standard error, and pass the exit code on."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)
    return code
