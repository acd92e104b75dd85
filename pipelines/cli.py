"""The command line. TensorFlow is imported by the commands that need it, so that help is quick."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from towers.errors import QueryError, RecallError

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

Models = Annotated[
    Path, typer.Option("--models", "-m", help="The models directory that `run` wrote.")
]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The models directory to publish to.")] = Path("models"),
) -> None:
    """Read, split, fit, mine, refit, evaluate, export, check and publish.

    Interrupted, the same command goes on from the last finished epoch or stage.
    """
    from pipelines.config import load_config
    from pipelines.display import show_next, show_results
    from pipelines.progress import Reporter
    from pipelines.run import run as run_job

    console = Console()
    with _resumable():
        results = run_job(load_config(config), out, reporter=Reporter(console))
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
    from pipelines.display import show_next_of_search, show_search
    from pipelines.progress import Reporter
    from pipelines.tune import tune as tune_run

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
) -> None:
    """Run the whole job on MovieLens 100k and show an answer in each direction."""
    from pipelines.demo import run_demo
    from pipelines.display import show_next
    from pipelines.progress import Reporter

    console = Console()
    with _resumable():
        models = run_demo(out, Reporter(console))
    show_next(console, models, program=_program())


@app.command()
def query(
    direction: Annotated[str, typer.Argument(help="u2i, i2i, u2u or i2u.", show_default=False)],
    models: Models = Path("models"),
    id: Annotated[str | None, typer.Option(help="A user or item of the tables.")] = None,
    features: Annotated[
        str | None,
        typer.Option(help='Raw features of anyone else, as JSON: \'{"age": 30, "history": [1]}\'.'),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many to retrieve.")] = 10,
    exclude: Annotated[str, typer.Option(help="Ids to leave out, separated by commas.")] = "",
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="Leave out what the user has interacted with.")
    ] = False,
    show: Annotated[
        str, typer.Option(help="Columns of the target's table to show, separated by commas.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    version: Annotated[int | None, typer.Option(help="A version; default: the current.")] = None,
) -> None:
    """Retrieve items for a user, items like an item, users like a user, or users for an item."""
    from pipelines.display import hits_as_json, show_hits
    from serving.retriever import Retriever, find_direction

    chosen = find_direction(direction)
    retriever = Retriever.open(models, version=version)
    sources, targets = (retriever.embeddings(side) for side in (chosen.source, chosen.target))
    hits = retriever.retrieve(
        direction,
        id=None if id is None else sources.parse_id(id),
        features=None if features is None else _parse_features(features),
        k=k,
        exclude=[targets.parse_id(text) for text in _split(exclude)],
        exclude_seen=exclude_seen,
    )
    columns = _split(show)
    if as_json:
        sys.stdout.write(hits_as_json(hits, show=columns) + "\n")
        return
    show_hits(
        Console(), hits, title=f"{direction}, version {retriever.bundle.version}", show=columns
    )


@app.command()
def versions(models: Models = Path("models")) -> None:
    """List the published versions, with their figures."""
    from pipelines.display import show_versions
    from serving.store import Store

    show_versions(Console(), Store(models))


@app.command()
def rollback(
    models: Annotated[Path, typer.Argument(help="The models directory.")] = Path("models"),
    to: Annotated[int | None, typer.Option(help="A version; default: the one before.")] = None,
) -> None:
    """Make an earlier version current, after checking that it is undamaged."""
    from serving.store import Store

    version = Store(models).rollback(to=to)
    text = f"Version {version} is current. To see all: fm-recall versions -m {models}"
    Console().print(text, markup=False, soft_wrap=True)


def _program() -> str:
    """How this command was called, where its name alone would not find it."""
    return "fm-recall" if shutil.which("fm-recall") else sys.argv[0]


def _split(text: str) -> list[str]:
    """Cut a list at its commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_features(text: str) -> dict[str, Any]:
    """Read raw features.

    Raises:
        QueryError: the text is not a JSON object.
    """
    try:
        features = json.loads(text)
    except json.JSONDecodeError as error:
        raise QueryError(
            f"--features: expected a JSON object, received {text!r}: {error}"
        ) from None
    if not isinstance(features, dict):
        raise QueryError(f"--features: expected a JSON object, received {text!r}")
    return features


def main() -> None:
    """Run a command; what goes wrong is one clear message, and exit code 2 for bad input."""
    try:
        app()
    except RecallError as error:
        sys.exit(_fail(str(error), code=BAD_INPUT))
    except OSError as error:
        sys.exit(_fail(f"{error.filename or 'system'}: {error.strerror}", code=FAILED))


@contextmanager
def _resumable() -> Iterator[None]:
    """Say how to go on after an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        again = "interrupted; the same command goes on from the last finished epoch or stage"
        raise typer.Exit(_fail(again, code=INTERRUPTED)) from None


def _fail(message: str, *, code: int) -> int:
    """Say what went wrong on standard error, and pass the exit code on."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)
    return code
