"""Settle a block: find repeated rows, and the positives that stay, among the rows of each user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from pipelines.data.steps.check import Keys
from pipelines.data.steps.chunks import INTERACTIONS, TEST
from pipelines.data.steps.database import connect
from pipelines.data.steps.files import checked_file, settled_file, whole_file, write_faults
from pipelines.data.steps.parse import context_column
from pipelines.spark.tasks import Outcome
from towers.features.schema import SIDES, Side

GIVEN = """
SELECT {is_test} AS is_test, {rows}, timestamp, position, weight, draw, behaviour,
    is_target, {moment} AS moment
FROM read_parquet(${table}) AS checked {joins}
WHERE block = $block
"""
"""The good rows of a table, with users and items by row."""

COLUMNS = (
    "is_test, user_row, item_row, timestamp, position, weight, draw, behaviour, is_target, moment"
)

JUDGED = """
CREATE TEMP TABLE judged AS
WITH given AS MATERIALIZED ({given}),
several AS (
    SELECT is_test, user_row, item_row, true AS is_several FROM given
    GROUP BY ALL HAVING count(*) > 1
),
counted AS MATERIALIZED (
    SELECT * FROM given LEFT JOIN several USING (is_test, user_row, item_row)
),
marked AS (
    SELECT *, row_number() OVER (
        PARTITION BY is_test, user_row, item_row, timestamp{same} ORDER BY position
    ) > 1 AS is_repeat
    FROM counted WHERE is_several
),
numbered AS (
    SELECT *, row_number() OVER (
        PARTITION BY is_test, user_row, item_row, is_target, is_repeat
        ORDER BY timestamp, position
    ) AS number, row_number() OVER (
        PARTITION BY is_test, user_row, item_row, behaviour, is_repeat
        ORDER BY timestamp, position
    ) AS nth
    FROM marked
)
SELECT {columns}, NOT is_test AS is_stored,
    CASE WHEN is_target THEN 'kept' ELSE 'not_positive' END AS fate
FROM counted WHERE is_several IS NULL
UNION ALL
SELECT {columns}, NOT is_test AND NOT is_repeat AND nth = 1 AS is_stored, CASE
    WHEN is_repeat THEN 'repeated'
    WHEN NOT is_target THEN 'not_positive'
    WHEN number > 1 THEN 'merged'
    ELSE 'kept'
END AS fate
FROM numbered
"""
"""Decides on each row: of equal rows the first is kept, and of the targets of a user and an item
the earliest is the positive. Of each behaviour, the first is stored too.

The rows of a pair that occurs once, which most are, need no sorting.
"""

IN_TRAINING = """
UPDATE judged SET fate = 'in_training'
WHERE is_test AND fate = 'kept' AND EXISTS (
    FROM judged AS other WHERE NOT other.is_test AND other.fate = 'kept'
    AND other.user_row = judged.user_row AND other.item_row = judged.item_row
)
"""
"""A test row is left out if its user and item are among the training interactions."""


STORED = """
COPY (
    SELECT * EXCLUDE (fate, is_stored), fate = 'kept' AS is_positive FROM judged
    WHERE fate = 'kept' OR is_stored
) TO $path (FORMAT parquet)
"""
"""Writes the positives, and what else users did, of the test the positives alone."""

FATES = """
SELECT is_test, fate, count(*), min(user_row), max(user_row), min(item_row), max(item_row)
FROM judged GROUP BY is_test, fate
"""


@dataclass(frozen=True, kw_only=True)
class SettleBlock:
    """Takes the earliest positive of each user and item, and rejects rows that repeat another."""

    chunks: Mapping[str, int]
    """The number of chunks of each table."""
    repeated: Mapping[str, int]
    """The code of the reason for a repeated row, by table."""
    has_events: bool
    """Whether rows of several behaviours at one time do not repeat each other."""
    moments: Path | None
    """The contexts by moment; see `write_moments`. None where there is no context."""
    n_context: int
    """How many columns the context has."""
    keys: Keys
    ids: Mapping[Side, Path]
    """The ids of each side with their rows."""
    folder: Path

    def __call__(self, number: int) -> Outcome:
        """Settle a block; says what became of each table's rows, and the extreme rows kept."""
        with connect(self.folder) as database:
            same = ", behaviour" if self.has_events else ""
            same += ", moment" if self.moments is not None else ""
            query = JUDGED.format(given=self._given, columns=COLUMNS, same=same)
            database.execute(query, self._parameters(number))
            if TEST in self.chunks:
                database.execute(IN_TRAINING)
            fates = database.execute(FATES).fetchall()
            if any(fate == "repeated" for _, fate, *_ in fates):
                self._write_repeated(database, number)
            with whole_file(settled_file(self.folder, number)) as beside:
                database.execute(STORED, {"path": str(beside)})
        counts: dict[str, dict[str, int]] = {name: {} for name in self.chunks}
        extremes = None
        for is_test, fate, count, *found in fates:
            counts[TEST if is_test else INTERACTIONS][fate] = count
            if fate == "kept" and not is_test:
                extremes = found
        rows = sum(count for _, _, count, *_ in fates)
        return {"rows": rows, "counts": counts, "extremes": extremes}

    @property
    def _given(self) -> str:
        """The query for the good rows of all tables."""
        unknown = [side for side in SIDES if side not in self.keys.known_ids]
        rows = [
            f"{side}s.row AS {side}_row" if side in unknown else f"{side}_row" for side in SIDES
        ]
        joins = [
            f"JOIN read_parquet(${side}s) AS {side}s ON {side}s.id = checked.{side}_id"
            for side in unknown
        ]
        moment = "0"
        if self.moments is not None:
            names = [context_column(place) for place in range(self.n_context)]
            same = [f"moments.{name} IS NOT DISTINCT FROM checked.{name}" for name in names]
            joins.append(f"JOIN read_parquet($moments) AS moments ON {' AND '.join(same)}")
            moment = "moments.moment"
        return "UNION ALL".join(
            GIVEN.format(
                table=name,
                is_test=name == TEST,
                rows=", ".join(rows),
                joins=" ".join(joins),
                moment=moment,
            )
            for name in self.chunks
        )

    def _parameters(self, number: int) -> dict[str, Any]:
        """What the query for a block asks for by name."""
        tables = {
            name: [str(checked_file(self.folder, name, chunk)) for chunk in range(n_chunks)]
            for name, n_chunks in self.chunks.items()
        }
        sides = {
            f"{side}s": str(path)
            for side, path in self.ids.items()
            if side not in self.keys.known_ids
        }
        moments = {} if self.moments is None else {"moments": str(self.moments)}
        return {"block": number, **tables, **sides, **moments}

    def _write_repeated(self, database: duckdb.DuckDBPyConnection, number: int) -> None:
        """Write where the rows are that repeat another."""
        found = database.execute(
            "SELECT is_test, position FROM judged WHERE fate = 'repeated'"
        ).fetchnumpy()
        for name in self.chunks:
            positions = found["position"][found["is_test"] == (name == TEST)]
            codes = np.full(len(positions), self.repeated[name], dtype=np.int16)
            write_faults(self.folder, name, "settled", number, positions=positions, codes=codes)
