"""What an earlier version was trained on is not held out: it would remember it, not foresee it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from pipelines.data.columns.ids import IdKind
from serving.search.index import Pairs
from serving.version.seen import read_pairs
from towers.errors import DataError
from towers.features.schema import SIDES, Side


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedOn:
    """The positives that a published version was trained on; they stay in its file."""

    version: int
    ids: Mapping[Side, NDArray[Any]]
    """The version's users and items by row, int64 or str objects."""
    path: Path
    """The pairs of rows, as `serving.version.seen` writes them."""

    def check_ids(self, kinds: Mapping[Side, IdKind]) -> None:
        """Refuse ids of another type than the version's.

        Raises:
            DataError: they are integers, and the version's are text, or the other way round.
        """
        names = {"integer": "integers", "text": "text"}
        for side in SIDES:
            is_integer = types.is_integer_dtype(self.ids[side].dtype)
            expected, received = "integer" if is_integer else "text", kinds[side]
            if expected != received:
                raise DataError(
                    f"{side}_id: expected {names[expected]}, as in version {self.version}, "
                    f"received {names[received]}; convert the ids, or train from the start, "
                    "without --from"
                )

    def pairs_among(self, ids: Mapping[Side, pd.Index]) -> Iterator[Pairs]:
        """Say the pairs by the rows of `ids`, some of them at a time.

        Those of a user or an item that is not among `ids` are left out.

        Raises:
            BundleError: the file is damaged.
        """
        rows = {side: ids[side].get_indexer(pd.Index(self.ids[side])) for side in SIDES}
        shape = len(rows["user"]), len(rows["item"])
        for users, items in read_pairs(self.path, shape=shape):
            here, there = rows["user"][users], rows["item"][items]
            kept = (here >= 0) & (there >= 0)
            yield here[kept], there[kept]

    def message(self, count: int) -> str:
        """What a person is told of so many interactions that were to be held out."""
        return (
            f"{count:,} interactions would have been held out, but version {self.version} was "
            "trained on them, so they train again"
        )
