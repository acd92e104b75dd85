"""The commands that train and publish: `run`, `tune` and `demo`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from pipelines.cli.exits import NOT_PROMOTED, fail
from pipelines.cli.output import JsonLog, Quiet, job_output
from pipelines.results import Rule
from towers.errors import ConfigError


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
            help="Where tables are read, checked and split: memory; disk, for interactions that "
            "memory does not hold; or spark. Default: disk for more than 10 "
            "million in Parquet, or 256 MiB of CSV."
        ),
    ] = None,
    master: Annotated[
        str | None,
        typer.Option(
            help="Spark: the cluster's URL, or local[2]; default: as Spark is configured."
        ),
    ] = None,
    journal: Annotated[
        list[Path] | None,
        typer.Option(
            help="The folder in which a server keeps fresh users and items, where it is not "
            "OUT/journal; once for each. The tables supersede what it holds when they are read."
        ),
    ] = None,
    promote: Annotated[
        str,
        typer.Option(
            help="Whether what is published becomes current: not-worse, if it is not worse than "
            "the current version; or always."
        ),
    ] = "not-worse",
    quiet: Quiet = False,
    as_json: JsonLog = False,
) -> None:
    """Read, split, fit, mine, refit, evaluate, export, check and publish.

    What is published becomes current unless it is worse than the version that is, on the same
    held-out interactions; the exit code is 3 then. Interrupted, the same command goes on from the
    last finished epoch or stage.

    Where TF_CONFIG describes several workers, each runs this command: they train together, and
    worker 0 does all else. See docs/several-workers.md.
    """
    from pipelines.cli.show_figures import show_results, summary
    from pipelines.cli.show_next import show_next
    from pipelines.config import load_config
    from pipelines.run import Release
    from pipelines.run import run as run_job

    with job_output(quiet=quiet, as_json=as_json, folder=out) as reporter:
        results = run_job(
            load_config(config),
            out,
            reporter=reporter,
            from_version=None if from_version is None else _parse_version(out, from_version),
            engine=engine,
            master=master,
            release=Release(journals=journal, promote=parse_rule(promote)),
        )
        show_results(reporter.console, results)
        show_next(reporter.console, out, program=_program())
        reporter.note("run is done", event="result", out=str(out), **summary(results))
    promotion = results.get("promotion")
    if promotion and results["current_version"] is None:
        text = f"published, but not current: {promotion['why']}"
        raise typer.Exit(fail(text, code=NOT_PROMOTED))


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
    quiet: Quiet = False,
    as_json: JsonLog = False,
) -> None:
    """Search a run's settings on its validation split, and write the TOML file of the best.

    Interrupted, the same command goes on from the last finished epoch. The test split is not
    looked at.
    """
    from pipelines.cli.show_figures import show_search
    from pipelines.cli.show_next import show_next_of_search
    from pipelines.tuning.tune import tune as tune_run

    with job_output(quiet=quiet, as_json=as_json, folder=out) as reporter:
        found = tune_run(
            config,
            out,
            trials=trials,
            minutes=minutes,
            only=only or (),
            dims=dims,
            reporter=reporter,
        )
        show_search(reporter.console, found)
        show_next_of_search(reporter.console, found, program=_program())
        best = found.ranked[0]
        reporter.note(
            "search is done",
            event="result",
            path=str(found.path),
            metric=found.metric,
            value=best.value,
            settings=dict(best.settings),
        )


def demo(
    out: Annotated[Path, typer.Option(help="The folder for data, models and report.")] = Path(
        "demo"
    ),
    serve: Annotated[
        bool, typer.Option("--serve", help="Then serve it, with the page that explores it.")
    ] = False,
    port: Annotated[int, typer.Option(help="The port of --serve; 0 takes a free one.")] = 8501,
    quiet: Quiet = False,
    as_json: JsonLog = False,
) -> None:
    """Run the whole job on MovieLens 100k and show an answer in each direction."""
    from pipelines.cli.demo import run_demo, serve_demo
    from pipelines.cli.show_next import show_next

    with job_output(quiet=quiet, as_json=as_json, folder=out / "models") as reporter:
        models = run_demo(out, reporter)
        show_next(reporter.console, models, program=_program())
    if serve:
        serve_demo(reporter.console, models, port=port)


def _program() -> str:
    """How this command was called, where its name alone would not find it."""
    return "fm-recall" if shutil.which("fm-recall") else sys.argv[0]


def parse_rule(text: str) -> Rule:
    """Read what makes a version current.

    Raises:
        ConfigError: it is none of the rules.
    """
    rules = get_args(Rule)
    if text not in rules:
        raise ConfigError(f"--promote: expected one of {list(rules)}, received {text!r}")
    return cast("Rule", text)


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
