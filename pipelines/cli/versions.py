"""The commands about published versions: `versions`, `rollback`, `compare` and `export`."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from pipelines.cli.query import AsJson, Models, Version

if TYPE_CHECKING:
    from pipelines.versions.export_vectors import VectorFormat
    from towers.features.schema import Side

MIB = 2**20


def versions(models: Models = Path("models")) -> None:
    """List the published versions, with their figures."""
    from pipelines.cli.show_versions import show_versions
    from pipelines.leftovers import find_leftovers
    from serving.version.store import Store

    console = Console()
    show_versions(console, Store(models))
    if left := find_leftovers(models):
        size = sum(one.n_bytes for one in left) / MIB
        text = f"{len(left)} left over by killed or interrupted jobs ({size:,.1f} MiB); to see and "
        text += f"to remove them: fm-recall clean {shlex.quote(str(models))}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def clean(
    models: Annotated[Path, typer.Argument(help="The models directory.")] = Path("models"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
) -> None:
    """List what killed or interrupted jobs have left in a models directory, and remove it.

    Published versions, and what a living process works on, are never touched.
    """
    from pipelines.leftovers import find_leftovers, remove

    console = Console()
    left = find_leftovers(models)
    for one in left:
        when = datetime.fromtimestamp(one.changed, UTC)
        done = "" if not yes else "removed " if remove(models, one) else "in use again "
        text = (
            f"{done}{one.path}: {one.what}; {one.n_bytes / MIB:,.1f} MiB, last changed {when:%F %R}"
        )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not left:
        console.print(f"{models}: nothing is left over", markup=False, highlight=False)
    elif not yes:
        console.print("To remove all of it: the same command with --yes", markup=False)


def rollback(
    models: Annotated[Path, typer.Argument(help="The models directory.")] = Path("models"),
    to: Annotated[int | None, typer.Option(help="A version; default: the one before.")] = None,
) -> None:
    """Make an earlier version current, after checking that it is undamaged."""
    from serving.version.store import Store

    version = Store(models).rollback(to=to)
    text = f"Version {version} is current. To see all: fm-recall versions -m {models}"
    Console().print(text, markup=False, soft_wrap=True)


def compare(
    first: Annotated[int, typer.Argument(help="A version.", show_default=False)],
    second: Annotated[int, typer.Argument(help="The other version.", show_default=False)],
    models: Models = Path("models"),
    k: Annotated[int, typer.Option("-k", help="How many items the compared lists have.")] = 20,
    users: Annotated[int, typer.Option(help="How many users to draw for the lists.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Say what differs between two versions: settings, data, figures, vectors, lists and indexes.

    The figures are those that each was published with; to measure both by the same interactions,
    use `evaluate --against`.
    """
    from pipelines.cli.show_versions import show_compared
    from pipelines.versions.compare_versions import compare_versions

    found = compare_versions(models, first, second, k=k, n_users=users)
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), allow_nan=False) + "\n")
    else:
        show_compared(Console(), found)


def export(
    models: Annotated[
        Path,
        typer.Argument(help="The models directory, or one version's folder.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write; new, or empty.")],
    vectors: Annotated[
        str, typer.Option(help="The format of the vectors: parquet, npy or faiss.")
    ] = "parquet",
    side: Annotated[str, typer.Option(help="Whose vectors: user or item.")] = "item",
    version: Version = None,
) -> None:
    """Write the vectors of all users or all items, with their ids beside, for other programs."""
    from pipelines.versions.export_vectors import export_vectors

    count = export_vectors(
        models,
        out,
        side=cast("Side", side),
        format=cast("VectorFormat", vectors),
        version=version,
    )
    text = f"{count:,} vectors of {side}s: {out}"
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
