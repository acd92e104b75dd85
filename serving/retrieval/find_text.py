"""Find text: users or items by the start of their id, or by what their columns of text hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serving.retrieval.catalogue import Snapshot
from serving.search.index import Rows

NO_MATCH, HOLDS, STARTS, ID_STARTS, IS_ID = range(5)
"""How well a row matches, from not at all to best."""


def find_text(snapshot: Snapshot, text: str, *, limit: int) -> tuple[Rows, int]:
    """Find the rows that match a text best: its id, then ids and then columns that start with it.

    Case does not count in columns. No text matches every row.

    Returns:
        The rows of the best, at most `limit`, and how many match.
    """
    published = snapshot.published
    grades = np.zeros(len(snapshot.is_present), dtype=np.int8)
    grades[: len(published.vectors)] = _grades(
        published.column, published.id_column, published.columns, text=text
    )
    fresh = snapshot.fresh
    grades[snapshot.put] = _grades(
        lambda name: fresh[name].combine_chunks(),
        published.id_column,
        fresh.column_names,
        text=text,
    )
    grades[~snapshot.is_present] = NO_MATCH
    found: list[Rows] = []
    for grade in (IS_ID, ID_STARTS, STARTS, HOLDS):
        room = limit - sum(map(len, found))
        found.append(np.flatnonzero(grades == grade)[:room])
    return np.concatenate(found), int(np.count_nonzero(grades))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _grades(
    column: Callable[[str], pa.Array], id_column: str, names: list[str], *, text: str
) -> NDArray[np.int8]:
    """Grade every row of a table, [n]."""
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
    """Null counts as no match."""
    flags: NDArray[np.bool_] = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return flags
