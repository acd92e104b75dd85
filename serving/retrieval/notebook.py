"""What a notebook shows of a table."""

from __future__ import annotations

from html import escape

import pandas as pd

SHOWN_ROWS = 20
"""The rows of a table that are shown, at most."""


def notebook_html(frame: pd.DataFrame, *, title: str = "") -> str:
    """Write the first rows of a table as HTML, with every text escaped, and say how many follow."""
    heading = f"<p><b>{escape(title)}</b></p>" if title else ""
    html = frame.head(SHOWN_ROWS).to_html(
        index=False, border=0, na_rep="", float_format="{:.4f}".format
    )
    left = len(frame) - SHOWN_ROWS
    return heading + html + (f"<p>and {left:,} more</p>" if left > 0 else "")
