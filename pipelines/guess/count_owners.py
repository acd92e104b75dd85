"""Count whether a column of a wide table says something of its user, of its item, or of neither."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.guess.profile_columns import Column

FEW_ROWS = 20
"""With fewer rows that repeat an id, nothing can be counted."""
AGREES = 0.6
"""A column belongs to an id if, of the agreement that chance leaves open, it has this share."""
MOST_ROWS = 300_000
"""So many rows, from the beginning of the table, tell it."""
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the rows of one id agree in a column."""

    share: float
    """Of the rows of ids that come again, those with the id's most frequent value."""
    by_chance: float
    """The same, with the values shuffled."""
    n_rows: int

    @property
    def beyond_chance(self) -> float:
        """What it is beyond chance, 1 for a function of the id; 0 if nothing can be counted."""
        if self.n_rows < FEW_ROWS:
            return 0.0
        return (self.share - self.by_chance) / max(1.0 - self.by_chance, 1e-9)

    @property
    def belongs(self) -> bool:
        """Whether the column is (nearly) a function of the id."""
        return self.beyond_chance >= AGREES


def agreement(ids: Column, column: Column) -> Agreement:
    """Count how far the rows of one id agree in a column."""
    rows = pd.DataFrame({"id": ids.keys, "value": column.keys}).head(MOST_ROWS)
    rows = rows[(rows >= 0).all(axis=1)]
    rows = rows[rows["id"].duplicated(keep=False)]
    if not len(rows):
        return Agreement(share=0.0, by_chance=0.0, n_rows=0)
    shuffled = rows.assign(value=np.random.default_rng(SEED).permutation(rows["value"]))
    return Agreement(share=_share(rows), by_chance=_share(shuffled), n_rows=len(rows))


def _share(rows: pd.DataFrame) -> float:
    """The share of the rows with the most frequent value of their id."""
    counts = rows.value_counts(sort=False)
    return float(counts.groupby(level="id").max().sum() / len(rows))


def one_each(ids: Column, column: Column) -> Column:
    """A column with one row an id: the last value that is given."""
    rows = pd.DataFrame({"id": ids.keys, "value": column.values, "missing": column.missing})
    rows = rows[rows["id"] >= 0].sort_values("missing", ascending=False, kind="stable")
    last = rows.drop_duplicates("id", keep="last")
    values = last["value"].reset_index(drop=True)
    return Column(name=column.name, place=column.place, values=values, typed=column.typed)
