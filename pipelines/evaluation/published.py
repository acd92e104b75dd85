"""Published versions as evaluation sees them: the settings of their runs, and their scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.evaluation.evaluate import Scorer
from serving.version.manifest import Manifest
from towers.directions import DIRECTIONS
from towers.features.schema import Side
from towers.typed import parse

SECTIONS = ("data", "user", "item", "context")
"""The settings that say what a version's tables mean."""


def config_of(manifest: Manifest, *others: str) -> RunConfig:
    """The settings of a version's run: what its tables mean, and `others` by name.

    All that is not asked for has its default, so that settings which this release does not know
    any more do no harm.

    Raises:
        ConfigError: they are not settings of this release.
    """
    kept = {name: manifest.config.get(name) for name in (*SECTIONS, *others)}
    given = {name: value for name, value in kept.items() if value is not None}
    return parse(RunConfig, given, where=f"version {manifest.version}")


def published_scorer(
    vectors: Mapping[Side, NDArray[np.float32]], rows: Mapping[Side, NDArray[np.int64]]
) -> Scorer:
    """Score by the vectors of a version, for users and items of another numbering.

    Args:
        vectors: those of the version, [n, 1 + d].
        rows: the version's row of each user and of each item of that numbering; an item of -1 is
            not recommended, and no user is -1 who is asked for.
    """
    missing, items = rows["item"] < 0, vectors["item"][rows["item"]]

    def score(users: NDArray[np.int64]) -> NDArray[np.float32]:
        found = DIRECTIONS["u2i"].score(vectors["user"][rows["user"][users]], items)
        return np.where(missing, np.float32(-np.inf), found)

    return score
