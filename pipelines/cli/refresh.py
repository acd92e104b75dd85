"""The command `refresh`: a version once more, with what is chosen of late."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import JsonLog, Quiet, job_output


def refresh(
    models: Annotated[Path, typer.Argument(help="The models directory.", show_default=False)],
    interactions: Annotated[
        Path,
        typer.Option(
            help="A table of interactions up to now, with the columns of the one that trained: all "
            "of them, or those of the latest window.",
            show_default=False,
        ),
    ],
    version: Annotated[int | None, typer.Option(help="A version; default: the current.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Where the table is read: memory, disk or spark; see run.")
    ] = None,
    master: Annotated[
        str | None, typer.Option(help="Spark: the cluster's URL, or local[2].")
    ] = None,
    quiet: Quiet = False,
    as_json: JsonLog = False,
) -> None:
    """Count again what is chosen of late, and publish a new version with it, without training.

    The trend of items, and the candidates of the channel `recent`, are as of the table; vectors are
    those of the version. The new version becomes current if the old one is.
    """
    from pipelines.publishing.refresh import refresh as refresh_version

    with job_output(quiet=quiet, as_json=as_json, folder=models) as reporter:
        number = refresh_version(
            models,
            interactions,
            version=version,
            engine=engine,
            master=master,
            reporter=reporter,
        )
        text = f"Version {number} is published. To see all: fm-recall versions -m {models}"
        reporter.say(text)
        reporter.note("refresh is done", event="result", version=number)
