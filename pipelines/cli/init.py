"""The commands before a first run: `init` and `check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import Quiet, job_output


def init(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="The tables: CSV, JSON lines or Parquet, or folders of them.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="The TOML file to write.")] = Path("fm-recall.toml"),
    again: Annotated[bool, typer.Option("--again", help="Write over a file that exists.")] = False,
    quiet: Quiet = False,
) -> None:
    """Look at tables as they come, and write the configuration of a first run on them.

    It says which table is which, the ids, times and ratings, and the features with their kinds;
    what was guessed stands in comments, with how sure it is.
    """
    from pipelines.cli.show_init import show_next_of_init, show_said
    from pipelines.guess.init import init as init_config
    from towers.errors import ConfigError

    with job_output(quiet=quiet, as_json=False, after=None) as reporter:
        written = init_config(files, out, again=again, reporter=reporter)
        show_said(reporter.console, written.draft.said(), left_out=written.draft.left_out)
        show_next_of_init(reporter.console, out, rejected=written.rejected)
    if written.problem is not None:
        raise ConfigError(f"{out} is written, but a run would refuse it: {written.problem}")


def check(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    engine: Annotated[
        str | None, typer.Option(help="Where the tables are read: memory, disk or spark; see run.")
    ] = None,
    master: Annotated[
        str | None, typer.Option(help="Spark: the cluster's URL, or local[2].")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Read, check and split the tables of a run, and report what an expert would look at first.

    Nothing is trained or written. The exit code is 0 with warnings, and 2 where a run would refuse
    the configuration or its tables.
    """
    from pipelines.check.check import check as check_config
    from pipelines.cli.show_init import show_checked

    with job_output(quiet=quiet or as_json, as_json=False, after=None) as reporter:
        found = check_config(config, reporter=reporter, engine=engine, master=master)
        if as_json:
            typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        else:
            show_checked(reporter.console, found)
