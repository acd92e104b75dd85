"""The command `candidates`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import JsonLog, Quiet, job_output
from pipelines.cli.query import DiversityWeight, MaxPer, parse_caps, parse_object


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
    max_per: MaxPer = None,
    diversity: DiversityWeight = None,
    block: Annotated[
        Path | None, typer.Option(help="Ids of items that may not, in Parquet or CSV.")
    ] = None,
    rank: Annotated[
        bool, typer.Option("--rank", help="Order each user's candidates by the version's ranker.")
    ] = False,
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
    quiet: Quiet = False,
    as_json: JsonLog = False,
) -> None:
    """Write the candidates of every user of a table, as Parquet shards.

    Interrupted or killed, the same command goes on after the last finished shard.
    """
    from pipelines.candidates.on_spark import open_engine
    from pipelines.candidates.settings import load_settings, parse_channels
    from pipelines.candidates.write_candidates import CandidateJob, write_candidates
    from pipelines.cli.show_next import show_candidates

    given = {
        "k": k,
        "channels": None if channels is None else parse_channels(channels),
        "where": None if where is None else parse_object(where, option="--where"),
        "max_per": None if max_per is None else parse_caps(max_per),
        "diversity": diversity,
        "rank": rank or None,
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
    output = job_output(quiet=quiet, as_json=as_json, folder=out, after="shard")
    with output as reporter, open_engine(engine, master=master) as chosen:
        totals = write_candidates(job, again=again, reporter=reporter, engine=chosen)
        show_candidates(reporter.console, totals, out=out)
        reporter.note("candidates are written", event="result", out=str(out), tables=dict(totals))
