"""Find out whether the lines of a file are lists of ids, of any length, and what stands first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.data.sources.stream import open_stream
from pipelines.guess.read_format import HEAD_BYTES

NUMBER = re.compile(r"-?[0-9]+")
MOST = 0.95
"""So large a share of the values are whole numbers, as they are not in a text."""
FEWEST_LINES = 3


def read_lists(path: Path) -> dict[str, Any] | None:
    """The settings to read a file of lists with; None if it is none."""
    with open_stream(path) as stream:
        head = stream.read(HEAD_BYTES)
    lines = head.decode("utf-8", "replace").splitlines()
    if len(head) == HEAD_BYTES:
        lines = lines[:-1]  # the last is cut off
    for separator in (" ", "\t", ","):
        cut = [[one for one in line.split(separator) if one] for line in lines]
        values = [value for cells in cut for value in cells]
        n_numbers = sum(NUMBER.fullmatch(value) is not None for value in values)
        is_list = len({*map(len, cut)}) > 1 and n_numbers >= MOST * len(values)
        if len(cut) >= FEWEST_LINES and is_list and len(values) >= 2 * len(cut):
            return {
                "separator": separator,
                "lists": _first([cells for cells in cut if cells]),
                "columns": ("column_1", "column_2"),
            }
    return None


def _first(cut: Sequence[Sequence[str]]) -> str:
    """What stands first in the lines: a count, an id, or a value like the others."""
    counted = sum(cells[0] == str(len(cells) - 1) for cells in cut)
    if counted >= MOST * len(cut):
        return "count"
    return "id" if len({cells[0] for cells in cut}) == len(cut) else "values"
