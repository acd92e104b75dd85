"""Values of features that are not taken as they stand: count them, and show the first of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipelines.data.sources.source import Rows
from towers.features.reading import Mask
from towers.features.values import text_of

SHOWN_VALUES = 3
SHOWN_CHARACTERS = 40


def report_unread(rows: Rows, column: str, faulty: Mask, *, why: str, kept: Mask) -> Iterator[str]:
    """Say how many values of a column are taken as missing though they are not empty.

    Args:
        rows: the table.
        column: the name of the column.
        faulty: the values [n_rows] that cannot be read.
        why: what such a value is.
        kept: the rows [n_rows] that are not rejected.
    """
    reasons = ((_spelled_nulls(rows, column), "one of null_values"), (faulty, why))
    for chosen, reason in reasons:
        if (chosen & kept).any():
            yield f"{column}: {_show(rows, column, chosen & kept)} taken as missing: {reason}"


def report_merged(rows: Rows, column: str) -> Iterator[str]:
    """Say which texts of a column, such as 1.10 and 1.1, are one token."""
    texts: dict[str | None, list[str]] = {}
    for text in sorted({value for value in rows.column(column) if isinstance(value, str)}):
        texts.setdefault(text_of(text), []).append(text)
    merged = [(token, several) for token, several in texts.items() if len(several) > 1]
    if merged:
        token, several = merged[0]
        written = " and ".join(_cut(repr(text)) for text in several[:SHOWN_VALUES])
        yield (
            f"{column}: {len(merged):,} token(s) are written in several ways, such as {token} as "
            f"{written}; see docs/values.md"
        )


def _spelled_nulls(rows: Rows, column: str) -> Mask:
    """Mark the texts that mean that a value is missing, according to the table's settings."""
    given = rows.frame[column].notna().to_numpy(dtype=bool)
    return given & rows.column(column).isna().to_numpy(dtype=bool)


def _show(rows: Rows, column: str, chosen: Mask) -> str:
    """Count the chosen values, and show the first one of each kind with its place."""
    positions = np.flatnonzero(chosen)
    texts = pd.Series([_cut(repr(value)) for value in rows.frame[column].iloc[positions]])
    firsts = texts.drop_duplicates().head(SHOWN_VALUES)
    places = rows.locate(positions[firsts.index.to_numpy()])
    shown = [f"{text} at {file}:{row}" for text, (file, row) in zip(firsts, places, strict=True)]
    more = "..." if texts.nunique() > len(shown) else ""
    return f"{len(positions):,} value(s) ({', '.join(shown)}{more})"


def _cut(text: str) -> str:
    """Shorten a text that would fill the line."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
