"""Print hits, or write them as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date

import pandas as pd
from rich.console import Console
from rich.text import Text

from pipelines.cli.draw_table import cell, new_table, print_table
from towers.errors import QueryError

OF_RANKER = ("recall_score", "recall_rank")
"""The columns of hits that a ranker has ordered, which others do not have."""


def show_hits(
    console: Console, hits: pd.DataFrame, *, title: str, show: Sequence[str] | None
) -> None:
    """Print hits by rank, with the columns `show` of the target's table; None shows all."""
    frame = _ranked(hits, show=show)
    table = new_table()
    for name in frame.columns:
        table.add_column(
            str(name), justify="right" if name in {"rank", "score", *OF_RANKER} else "left"
        )
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(cell(value)) for value in row))
    print_table(console, title, table)


def hits_as_json(hits: pd.DataFrame, *, show: Sequence[str]) -> str:
    """Write hits as a JSON array of objects, one a hit; the columns `show` are in `columns`."""
    frame = _ranked(hits, show=show).map(lambda x: x.isoformat() if isinstance(x, date) else x)
    records = json.loads(frame.to_json(orient="records"))
    n_own = 1 + _n_own(hits)
    own = [str(name) for name in frame.columns[:n_own]]
    of_table = [str(name) for name in frame.columns[n_own:]]
    found = [
        {name: record[name] for name in own}
        | {"columns": {name.partition(".")[2]: record[name] for name in of_table}}
        for record in records
    ]
    return json.dumps(found, ensure_ascii=False)


def _ranked(hits: pd.DataFrame, *, show: Sequence[str] | None) -> pd.DataFrame:
    """Number hits by rank, and keep the id, the score and the columns `show` of their table.

    Raises:
        QueryError: there is no such column.
    """
    n_own = _n_own(hits)
    of_table = {str(name).partition(".")[2]: name for name in hits.columns[n_own:]}
    missing = [name for name in show or () if name not in of_table]
    if missing:
        raise QueryError(f"--show: expected some of {list(of_table)}, received {missing}")
    chosen = of_table.values() if show is None else [of_table[name] for name in dict.fromkeys(show)]
    frame = hits[[*hits.columns[:n_own], *chosen]].copy()
    frame.insert(0, "rank", range(1, len(frame) + 1))
    return frame


def _n_own(hits: pd.DataFrame) -> int:
    """How many columns of hits are not of the table: the id, the score, and a ranker's."""
    return 2 + sum(name in hits.columns for name in OF_RANKER)
