"""The command `evaluate`: a version's figures on a table, or those of two versions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.cli.output import Quiet
from pipelines.cli.query import AsJson, Version


def evaluate(
    models: Annotated[
        Path,
        typer.Argument(help="The models directory, or one version's folder.", show_default=False),
    ],
    on: Annotated[
        Path,
        typer.Option(
            help="The interactions to measure by: a file or a folder, CSV or Parquet, with the "
            "columns and the format of the version's own."
        ),
    ],
    version: Version = None,
    against: Annotated[
        int | None,
        typer.Option(help="A second version, measured by the same users and interactions."),
    ] = None,
    exclude_seen: Annotated[
        bool,
        typer.Option(
            "--exclude-seen/--include-seen",
            help="Whether to leave out what users know from training, as the run's evaluation did; "
            "or to rank and count everything.",
        ),
    ] = True,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", help="A cut-off, once for each; default: those of the version's run."),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            help="What stands between the fields of a CSV file with a header line; default: the "
            "format of the version's own table."
        ),
    ] = None,
    as_json: AsJson = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the figures to this CSV file as well.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure a published version on a table of interactions, or two versions side by side.

    Every item is ranked for each user of the table, by the published vectors. Of two versions,
    each difference has its 95% interval, by a paired bootstrap over users.
    """
    from pipelines.cli.show_figures import show_measured
    from pipelines.progress import Reporter
    from pipelines.versions.measure_version import measure_version
    from serving.atomic import write_text_atomic

    console = Console(stderr=as_json, quiet=quiet)
    found = measure_version(
        models,
        on,
        version=version,
        against=against,
        exclude_seen=exclude_seen,
        k=k or (),
        separator=separator,
        reporter=Reporter(console),
    )
    if csv is not None:
        write_text_atomic(csv, found.to_frame().to_csv(index=False))
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), allow_nan=False) + "\n")
    else:
        show_measured(console, found)
    if csv is not None:
        console.print(f"The figures: {csv}", markup=False, highlight=False, soft_wrap=True)
