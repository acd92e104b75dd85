"""Hold out what is new: a run that continues is not judged by what its parent was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from pipelines.data.blocks import ids_of
from pipelines.data.ids import IdKind
from pipelines.data.interactions import SIDES
from pipelines.data.prepare import Prepared
from serving.search.index import Pairs, Rows
from serving.version.seen import read_pairs
from towers.errors import DataError
from towers.schema import Side


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
            expected, received = id_kind(self.ids[side]), kinds[side]
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


def hold_out_new(prepared: Prepared, trained_on: TrainedOn) -> Prepared:
    """Move to training what is held out although the version was trained on it.

    Its figures on those would be of what it remembers, not of what it foresees. Training stays in
    order of time where there are times.

    Raises:
        DataError: as `TrainedOn.check_ids`.
    """
    trained_on.check_ids({side: id_kind(prepared.train[f"{side}_id"]) for side in SIDES})
    tables = {"user": prepared.users, "item": prepared.items}
    ids = {side: pd.Index(ids_of(tables[side], tables[side].columns[0])) for side in SIDES}
    known = [pair_keys(*pairs) for pairs in trained_on.pairs_among(ids)]
    keys = np.concatenate([np.empty(0, np.int64), *known])
    held_out = {"validation": prepared.validation, "test": prepared.test}
    is_known = {}
    for name, frame in held_out.items():
        pairs = (ids[side].get_indexer(frame[f"{side}_id"]) for side in SIDES)
        is_known[name] = np.isin(pair_keys(*pairs), keys)
    count = sum(int(flags.sum()) for flags in is_known.values())
    if not count:
        return prepared
    columns = prepared.train.columns
    moved = [held_out[name][flags].reindex(columns=columns) for name, flags in is_known.items()]
    train = pd.concat([prepared.train, *moved], ignore_index=True)
    if "timestamp" in columns:
        train = train.sort_values("timestamp", kind="stable", ignore_index=True)
    kept = {name: held_out[name][~flags].reset_index(drop=True) for name, flags in is_known.items()}
    lines = (*prepared.lines, trained_on.message(count))
    return dataclasses.replace(prepared, train=train, **kept, lines=lines)


def id_kind(ids: NDArray[Any] | pd.Series) -> IdKind:
    """Say what ids are by the type of their column."""
    return "integer" if types.is_integer_dtype(ids.dtype) else "text"


def pair_keys(users: NDArray[Any], items: NDArray[Any]) -> Rows:
    """Give each pair of rows, which are below 2**31, a number of its own, [n]."""
    keys: Rows = (users.astype(np.int64) << 32) | items
    return keys
