"""Job: runs each step over all chunks or blocks, shows its progress, and sums up its outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.data.engines import Plan, RunStep
from pipelines.data.faults.rejects import Faults
from pipelines.data.faults.report import CheckedRows, PositiveCounts
from pipelines.data.hold_out import TrainedOn
from pipelines.data.inputs import Inputs
from pipelines.data.split import Split
from pipelines.data.steps.check import CheckChunk, Keys, write_ids
from pipelines.data.steps.chunks import INTERACTIONS, TEST, Chunks
from pipelines.data.steps.database import find_places, first_seen, write_moments
from pipelines.data.steps.files import (
    ROW,
    checked_file,
    known_file,
    read_faults,
    settled_file,
    write_by_block,
)
from pipelines.data.steps.parse import context_column, duplicate
from pipelines.data.steps.settle import SettleBlock
from pipelines.data.steps.store import Cuts, StoreBlock
from pipelines.progress import Reporter
from pipelines.spark.tasks import Outcome, Task
from towers.features.schema import SIDES, Side

Checked = Mapping[str, CheckedRows]
"""The outcome of the check of each table."""

KNOWN = pa.schema({"user_row": ROW, "item_row": ROW})


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The outcome for the rows that passed the check of each row by itself."""

    counts: Mapping[str, PositiveCounts]
    """By table."""
    only: Mapping[Side, int]
    """Where all interactions have the same user, or the same item: the row of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """The tables of interactions, and what runs steps on them."""

    tables: Mapping[str, Chunks]
    """The interactions and, where they have a table of their own, the test."""
    split: Split
    seed: int
    """The seed of a random split."""
    n_blocks: int
    work: Path
    """The folder of the files that steps exchange."""
    run_step: RunStep
    reporter: Reporter

    @classmethod
    def of(
        cls,
        config: RunConfig,
        inputs: Inputs,
        plan: Plan,
        *,
        work: Path,
        run_step: RunStep,
        reporter: Reporter,
    ) -> Job:
        """Take what a run is to prepare, and how.

        Raises:
            ConfigError: interactions lack the times to split by.
        """
        tables = inputs.interactions
        has_times = tables[INTERACTIONS].table.timestamp is not None
        return cls(
            tables=tables,
            split=Split.of(config.split, has_times=has_times, has_test=TEST in tables),
            seed=config.seed,
            n_blocks=plan.n_blocks(tables[INTERACTIONS].n_rows),
            work=work,
            run_step=run_step,
            reporter=reporter,
        )

    @property
    def has_times(self) -> bool:
        """Whether the interactions have times."""
        return self.tables[INTERACTIONS].table.timestamp is not None

    def write_ids(self, tables: Mapping[Side, pd.DataFrame]) -> dict[Side, Path]:
        """Write the ids of some sides, the first column of their tables, where steps find them."""
        paths: dict[Side, Path] = {side: self.work / f"ids-{side}.parquet" for side in tables}
        for side, path in paths.items():
            write_ids(path, tables[side].iloc[:, 0])
        return paths

    def check(self, keys: Keys) -> Checked:
        """Check each row by itself."""
        checked = {}
        for name, table in self.tables.items():
            step = CheckChunk(
                chunks=table,
                keys=keys,
                times=table.times,
                n_blocks=self.n_blocks,
                seed=self.seed if name == INTERACTIONS and not self.split.by_time else None,
                folder=self.work,
            )
            run = self._run(step, table.n_chunks, f"check {name}", rows=table.n_rows)
            outcomes = list(run)
            # every chunk says the same
            found = [(reason, tuple(columns)) for reason, columns in outcomes[-1]["reasons"]]
            checked[name] = CheckedRows(
                reasons=(*found, duplicate(table.table)),
                behaviours=_total(outcome["behaviours"] for outcome in outcomes),
                n_others=sum(outcome["n_others"] for outcome in outcomes),
                others=_total(outcome["others"] for outcome in outcomes),
            )
        return checked

    def write_moments(self) -> pd.DataFrame | None:
        """Write the distinct contexts of all rows; one row each, by the columns of the context."""
        context = self.tables[INTERACTIONS].context
        if not context:
            return None
        paths = [path for name in self.tables for path in self._checked(name)]
        names = [context_column(place) for place in range(len(context))]
        found = write_moments(paths, self._moments, columns=names, scratch=self.work)
        return found.set_axis([feature.column for feature in context], axis=1)

    @property
    def _moments(self) -> Path:
        return self.work / "moments.parquet"

    def settle(self, keys: Keys, checked: Checked, *, ids: Mapping[Side, Path]) -> Settled:
        """Settle every block, and remove the checked rows."""
        step = SettleBlock(
            chunks={name: table.n_chunks for name, table in self.tables.items()},
            repeated={name: len(found.reasons) - 1 for name, found in checked.items()},
            has_events=self.tables[INTERACTIONS].table.event is not None,
            moments=self._moments if self.tables[INTERACTIONS].context else None,
            n_context=len(self.tables[INTERACTIONS].context),
            keys=keys,
            ids=ids,
            folder=self.work,
        )
        counts = dict.fromkeys(self.tables, PositiveCounts())
        extremes: list[list[int]] = []
        total = sum(table.n_rows for table in self.tables.values())
        for outcome in self._run(step, self.n_blocks, "settle users", rows=total):
            for name, found in outcome["counts"].items():
                found.pop("repeated", None)  # faults, which are counted as such
                counts[name] += PositiveCounts(**found)
            extremes += [outcome["extremes"]] if outcome["extremes"] else []
        for path in (path for name in self.tables for path in self._checked(name)):
            path.unlink()
        return Settled(counts=counts, only=_only(extremes))

    def faults(self, checked: Checked) -> dict[str, Faults]:
        """The rows at fault of each table, ten bytes each."""
        found = {}
        for name, table in self.tables.items():
            positions, codes = read_faults(self.work, name)
            found[name] = Faults(
                source=table.source, reasons=checked[name].reasons, positions=positions, codes=codes
            )
        return found

    def first_seen(self, column: str) -> pd.Series:
        """The ids of a column, in order of first occurrence over all tables."""
        checked = [self._checked(name) for name in self.tables]
        return first_seen(checked, column=column, scratch=self.work)

    def cut(self, n_rows: int) -> Cuts:
        """Find where time cuts so many interactions, if it does.

        Raises:
            DataError: nothing is left to train on.
        """
        if not self.split.by_time:
            return Cuts()
        sizes = self.split.sizes(n_rows)
        sizes.check()
        settled = [settled_file(self.work, block) for block in range(self.n_blocks)]
        ranks = (sizes.train, sizes.train + sizes.validation)
        return Cuts(*find_places(settled, ranks=ranks, scratch=self.work))

    def write_known(
        self,
        trained_on: TrainedOn,
        *,
        ids: Mapping[Side, pd.Series],
        block_of_user: NDArray[np.int32],
    ) -> int:
        """Write the pairs that a version was trained on by block; says into how many files."""
        index = {side: pd.Index(column) for side, column in ids.items()}
        number = 0
        for users, items in trained_on.pairs_among(index):
            write_by_block(
                known_file(self.work, number),
                {"user_row": users, "item_row": items},
                block=block_of_user[users],
                n_blocks=self.n_blocks,
                schema=KNOWN,
            )
            number += 1
        return number

    def store(self, blocks: Path, *, cuts: Cuts, n_known: int, total: int) -> int:
        """Write the blocks; says how many held-out positives have moved to training.

        Those move that are in the `n_known` files that `write_known` has written.
        """
        step = StoreBlock(
            split=self.split, cuts=cuts, n_known=n_known, folder=self.work, blocks=blocks
        )
        outcomes = self._run(step, self.n_blocks, "write blocks", rows=total)
        return sum(outcome["moved"] for outcome in outcomes)

    def _checked(self, name: str) -> list[Path]:
        """The files of good rows of a table."""
        return [checked_file(self.work, name, chunk) for chunk in range(self.tables[name].n_chunks)]

    def _run(self, step: Task, count: int, name: str, *, rows: int) -> Iterator[Outcome]:
        """Carry out a step, and show how far it is."""
        with self.reporter.bar(name, rows, unit="rows") as advance:
            for _, outcome in self.run_step(step, count):
                advance(outcome["rows"])
                yield outcome


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum up counts by name, the most first; of equal ones, in order of occurrence."""
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(total.most_common())


def _only(extremes: list[list[Any]]) -> dict[Side, int]:
    """Find the sides of which all interactions have the same row, and that row."""
    if not extremes:
        return {}
    found = np.array(extremes).reshape(-1, len(SIDES), 2)
    least, greatest = found[:, :, 0].min(axis=0), found[:, :, 1].max(axis=0)
    return {
        side: int(row)
        for side, row, other in zip(SIDES, least, greatest, strict=True)
        if row == other
    }
