"""Store a block in the form that training reads, with the part of each interaction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipelines.data.blocks import PARTS
from pipelines.data.split import Split
from pipelines.data.steps.database import NOWHERE, Place, connect
from pipelines.data.steps.files import known_file, settled_file, whole_file
from pipelines.data.store_blocks import block_file, write_block
from pipelines.spark.tasks import Outcome

TRAIN, VALIDATION, TEST = range(len(PARTS))

BY_TIME = f"""
SELECT *, CASE
    WHEN is_test OR (timestamp, position) >= ($test_time, $test_position) THEN {TEST}
    WHEN (timestamp, position) >= ($validation_time, $validation_position) THEN {VALIDATION}
    ELSE {TRAIN}
END AS part
FROM read_parquet($settled)
"""

AT_RANDOM = f"""
SELECT *, coalesce(max(drawn) FILTER (is_positive) OVER pair, {TRAIN}) AS part
FROM (SELECT *, CASE
    WHEN is_test OR rank <= n_test THEN {TEST}
    WHEN rank <= n_test + least(round_even((n - n_test) * $validation, 0), n - n_test - 1)
        THEN {VALIDATION}
    ELSE {TRAIN}
END AS drawn
FROM (
    SELECT *, least(round_even(n * $test, 0), n - 1) AS n_test
    FROM (
        SELECT *, count(*) OVER user_ AS n,
            row_number() OVER (user_ ORDER BY draw, timestamp, position) AS rank
        FROM read_parquet($settled)
        WINDOW user_ AS (PARTITION BY is_test, is_positive, user_row)
    )
))
WINDOW pair AS (PARTITION BY is_test, user_row, item_row)
"""
"""The positives of a user with the smallest draws are held out; at least one stays in training.
What else a user did with an item is in the part of its positive, or else in training."""

KNOWN = """EXISTS (
    FROM read_parquet($known) AS known
    WHERE block = $block AND known.user_row = parted.user_row AND known.item_row = parted.item_row
)"""

STORED = f"""
SELECT user_row, item_row, timestamp, behaviour, moment, is_positive, is_moved,
    CASE WHEN is_positive THEN greatest(weight, max(weight) FILTER (is_target) OVER pair)
    ELSE weight END AS weight,
    CASE WHEN is_moved THEN {TRAIN} ELSE part END AS part
FROM (
    SELECT *, is_positive AND part <> {TRAIN} AND {{known}} AS is_moved FROM ({{parted}}) AS parted
)
WINDOW pair AS (PARTITION BY is_test, user_row, item_row, part)
ORDER BY user_row, timestamp, part, is_test, position
"""
"""Pairs that an earlier version was trained on are not held out. A positive has the greatest weight
of its targets in its part. Rows are sorted by user, by time from old to new, and by the part that
they end in. Positions are those in a table, so that rows of the two tables can have the same."""


@dataclass(frozen=True)
class Cuts:
    """The places in time where validation and test begin."""

    validation: Place = NOWHERE
    """The first row behind training."""
    test: Place = NOWHERE
    """The first row behind validation."""


@dataclass(frozen=True, kw_only=True)
class StoreBlock:
    """Decides on the part of each interaction, and writes the block."""

    split: Split
    cuts: Cuts
    """Where the split is by time."""
    n_known: int
    """The number of files of pairs that are not to be held out."""
    folder: Path
    blocks: Path

    def __call__(self, number: int) -> Outcome:
        """Write a block; says its number of rows, and of those that moved to training."""
        parameters: dict[str, Any] = {"settled": str(settled_file(self.folder, number))}
        if self.split.by_time:
            (parameters["test_time"], parameters["test_position"]) = self.cuts.test
            (parameters["validation_time"], parameters["validation_position"]) = (
                self.cuts.validation
            )
        else:
            parameters |= {"test": self.split.test, "validation": self.split.validation}
        if self.n_known:
            files = [str(known_file(self.folder, file)) for file in range(self.n_known)]
            parameters |= {"known": files, "block": number}
        query = STORED.format(
            parted=BY_TIME if self.split.by_time else AT_RANDOM,
            known=KNOWN if self.n_known else "false",
        )
        with connect(self.folder) as database:
            rows = database.sql(query, params=parameters).to_arrow_table()
        with whole_file(block_file(self.blocks, number), folder=self.folder) as path:
            write_block(path, rows)
        return {"rows": rows.num_rows, "moved": pc.sum(rows["is_moved"]).as_py() or 0}
