"""The commands about published versions: `versions` and `rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.cli.query import Models


def versions(models: Models = Path("models")) -> None:
    """List the published versions, with their figures."""
    from pipelines.cli.display import show_versions
    from serving.version.store import Store

    show_versions(Console(), Store(models))


def rollback(
    models: Annotated[Path, typer.Argument(help="The models directory.")] = Path("models"),
    to: Annotated[int | None, typer.Option(help="A version; default: the one before.")] = None,
) -> None:
    """Make an earlier version current, after checking that it is undamaged."""
    from serving.version.store import Store

    version = Store(models).rollback(to=to)
    text = f"Version {version} is current. To see all: fm-recall versions -m {models}"
    Console().print(text, markup=False, soft_wrap=True)
