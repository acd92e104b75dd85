"""The command `rank`: the second stage of a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.exits import NOT_PROMOTED, fail
from pipelines.cli.output import JsonLog, Quiet, job_output


def rank(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.", show_default=False)],
    models: Annotated[Path, typer.Option("-m", "--models", help="The models directory.")] = Path(
        "models"
    ),
    version: Annotated[int | None, typer.Option(help="A version; default: the current.")] = None,
    promote: Annotated[
        str,
        typer.Option(
            help="Whether what is published becomes current: not-worse, if it ranks better than "
            "recall alone; or always."
        ),
    ] = "not-worse",
    quiet: Quiet = False,
    as_json: JsonLog = False,
) -> None:
    """Train a ranker of what a version finds, and publish the version with it as a new one.

    It learns from exposures (chosen or not) or, without them, from the candidates that users chose
    and those that they did not, in the part of the tables that the version was not trained on.
    Where its order is not better than recall's own on validation, the new version is published and
    not current; the exit code is 3 then. Interrupted, the same command goes on from the last epoch.
    """
    from pipelines.cli.show_figures import show_ranking
    from pipelines.cli.train import parse_rule
    from pipelines.config import load_config
    from pipelines.ranking.rank import rank as rank_version

    with job_output(quiet=quiet, as_json=as_json, folder=models) as reporter:
        results = rank_version(
            load_config(config),
            models,
            version=version,
            promote=parse_rule(promote),
            reporter=reporter,
        )
        show_ranking(reporter.console, results)
        facts = {"version": results.version, "is_current": results.is_current, "why": results.why}
        reporter.note("rank is done", event="result", **facts, figures=results.figures)
        if results.is_current:
            reporter.say(f"Next: fm-recall query u2i --rank -m {models} --id USER")
    if not results.is_current:
        text = f"version {results.version} is published, but not current: {results.why}"
        raise typer.Exit(fail(text, code=NOT_PROMOTED))
