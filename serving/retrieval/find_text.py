"""Finds users or items by a text: by the start of their id, or by what their text columns hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serving.retrieval.catalogue import Snapshot
from serving.search.index import Rows

NO_MATCH, HOLDS, STARTS, ID_STARTS, IS_ID = range(5)
"""How well a row matches a text: not at all, a column holds it, a column starts with it, the id
starts with it, the id is the text."""


def find_text(snapshot: Snapshot, text: str, *, limit: int) -> tuple[Rows, int]:
    """Find the rows that match a text best.

    Upper and lower case are the same in columns, and differ in ids. Every row matches the empty
    text.

    Returns:
        The rows that match best, at most `limit`, and how many rows match in all.
    """
    published, fresh = snapshot.published, snapshot.fresh
    grades = np.zeros(len(snapshot.is_present), dtype=np.int8)
    grades[: len(published.vectors)] = _grades(
        published.column, published.id_column, published.columns, text=text
    )
    grades[snapshot.put] = _grades(
        lambda name: fresh[name].combine_chunks(),
        published.id_column,
        fresh.column_names,
        text=text,
    )
    grades[~snapshot.is_present] = NO_MATCH
    best = np.concatenate(
        [np.flatnonzero(grades == grade)[:limit] for grade in (IS_ID, ID_STARTS, STARTS, HOLDS)]
    )
    return best[:limit], int(np.count_nonzero(grades))


def is_text(kind: pa.DataType) -> bool:
    """Whether the values of a column are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _grades(
    column: Callable[[str], pa.Array], id_column: str, names: list[str], *, text: str
) -> NDArray[np.int8]:
    """Grade how well each row of a table matches, [n]."""
    ids = column(id_column).cast(pa.string())
    if not text:
        return np.full(len(ids), HOLDS, dtype=np.int8)
    grades = np.zeros(len(ids), dtype=np.int8)
    for name in names:
        values = column(name)
        if name == id_column or not is_text(values.type):
            continue
        rows = np.flatnonzero(_flags(pc.match_substring(values, text, ignore_case=True)))
        starts = _flags(pc.starts_with(values.take(pa.array(rows)), text, ignore_case=True))
        grades[rows] = np.maximum(grades[rows], np.where(starts, STARTS, HOLDS))
    grades[_flags(pc.starts_with(ids, text))] = ID_STARTS
    grades[_flags(pc.equal(ids, text))] = IS_ID
    return grades


def _flags(found: pa.Array) -> NDArray[np.bool_]:
    """Turn Arrow's booleans into NumPy's, with null as False."""
    flags: NDArray[np.bool_] = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return flags
