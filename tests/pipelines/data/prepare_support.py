"""Tables in a folder, prepared in one block or in many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS, Interactions, Part, all_blocks, every_positive
from pipelines.data.engines import Plan, RunStep
from pipelines.data.events import Block
from pipelines.data.hold_out import TrainedOn
from pipelines.data.prepare import Prepared, prepare
from pipelines.progress import Reporter
from pipelines.training.queries import times_of
from towers.errors import RecallError
from towers.typed import parse

CASES: list[tuple[Part, ...]] = [(part,) for part in PARTS] + [("train", "validation")]


@dataclass(frozen=True, kw_only=True)
class Given:
    """Tables in a folder, and the settings of a run on them."""

    folder: Path
    settings: dict[str, Any]

    @property
    def config(self) -> RunConfig:
        return parse(RunConfig, self.settings, where="test")

    def whole(self, trained_on: TrainedOn | None = None) -> Prepared:
        """Prepared in one block."""
        return self.prepare(Plan(), name="whole", trained_on=trained_on)

    def blocked(
        self,
        rows: int = 5,
        *,
        name: str = "blocked",
        run_step: RunStep | None = None,
        trained_on: TrainedOn | None = None,
    ) -> Prepared:
        """Prepared in chunks and blocks of so many rows."""
        plan = Plan(engine="disk", rows=rows)
        if run_step is None:
            return self.prepare(plan, name=name, trained_on=trained_on)
        with patch("pipelines.data.engines.run_here", run_step):
            return self.prepare(plan, name=name, trained_on=trained_on)

    def prepare(self, plan: Plan, *, name: str, trained_on: TrainedOn | None = None) -> Prepared:
        return prepare(
            self.config,
            self.folder / name,
            plan=plan,
            quarantine_dir=self.folder / f"rejects-{name}",
            trained_on=trained_on,
            reporter=Reporter(),
        )


def by_user(interactions: Interactions, kind: Callable[[Block], Any]) -> dict[int, Any]:
    """What the block of each user says of it: the row of a matrix, or values of its positives."""
    found: dict[int, Any] = {}
    for block in all_blocks(interactions):
        said = kind(block)
        for place, user in enumerate(block.users.tolist()):
            if isinstance(said, np.ndarray):
                its = slice(*block.matrix.indptr[place : place + 2])
                found[user] = np.nan_to_num(said[its], nan=-1.0).tolist()
            else:
                row = None if said is None else said[[place]].tocoo()
                pairs = [] if row is None else zip(row.coords[1], row.data, strict=True)
                found[user] = list(pairs)
    return found


def write_shards(folder: Path, rows: pd.DataFrame, *, cuts: list[int], schema: pa.Schema) -> None:
    """Write rows as shards, which begin at `cuts`."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pandas(rows, schema, preserve_index=False)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for number, start in enumerate(bounds[:-1]):
        shard = table.slice(start, bounds[number + 1] - start)
        pq.write_table(shard, folder / f"{number}.parquet", row_group_size=3)


def outcome_of(attempt: Callable[[], Prepared]) -> Prepared | str:
    """What is prepared, or the error that the attempt ends with."""
    try:
        return attempt()
    except RecallError as error:
        return f"{type(error).__name__}: {error}"


def message_of(attempt: Callable[[], Prepared]) -> str:
    """The error that an attempt ends with; empty without one."""
    outcome = outcome_of(attempt)
    return outcome if isinstance(outcome, str) else ""


def times(block: Block) -> NDArray[np.float64]:
    """The times of a block's positives; NaN where there are none."""
    return times_of(block, np.arange(block.matrix.nnz))


def assert_same(whole: Prepared, blocked: Prepared) -> None:
    """The same users, items, report and interactions, a user's in the same order."""
    pd.testing.assert_frame_equal(blocked.users, whole.users)
    pd.testing.assert_frame_equal(blocked.items, whole.items)
    lines = [line.replace("rejects-blocked", "rejects-whole") for line in blocked.lines]
    assert lines == list(whole.lines)
    assert blocked.counts == whole.counts
    assert (blocked.contexts is None) == (whole.contexts is None)
    if blocked.contexts is not None and whole.contexts is not None:
        pd.testing.assert_frame_equal(blocked.contexts, whole.contexts)
    for parts in CASES:
        expected, received = whole.interactions(*parts), blocked.interactions(*parts)
        ours, theirs = every_positive(received), every_positive(expected)
        np.testing.assert_array_equal(ours.indptr, theirs.indptr)
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_array_equal(ours.data, theirs.data)
        np.testing.assert_array_equal(received.user_counts, expected.user_counts)
        np.testing.assert_array_equal(received.item_counts, expected.item_counts)
        assert received.has_times == expected.has_times
        users = np.arange(expected.shape[0])
        for kind in (attrgetter("turned_down"), attrgetter("moments"), times):
            assert by_user(received, kind) == by_user(expected, kind)
        seen = received.seen_of(users).toarray()
        np.testing.assert_array_equal(seen, expected.seen_of(users).toarray())
