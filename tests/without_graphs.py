"""Runs that write few SavedModels or none: these take longer than the rest of a small run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.publishing import export
from pipelines.publishing.publish_rounds import Rounds
from pipelines.reporting import draw_svg

TOWERS = ("user_tower", "item_tower")
"""What a version needs to be opened and to answer anyone."""


@contextmanager
def without_plots() -> Iterator[None]:
    """Write reports without plots, each of which takes a fifth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw_svg, "_plot", lambda *_: "<svg></svg>")
        yield


@contextmanager
def without_graphs(*, but: Collection[str] = ()) -> Iterator[None]:
    """Write no SavedModels `but` some, and reports without plots.

    Without both towers, versions are not checked before they are published either.
    """
    save = export._save

    def save_some(model: Any, path: Path, **given: Any) -> None:
        if path.parent.name in but:
            save(model, path, **given)

    with without_plots(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_save", save_some)
        if not set(TOWERS) <= set(but):
            patch.setattr(Rounds, "_describe", lambda *_: None)
        yield
