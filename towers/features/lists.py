"""Lists: columns that hold several values a row, as lists or as text, one value after another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from towers.features.reading import Column, Mask, Read, as_arrow, listed, read_numbers
from towers.features.values import is_missing, missing_marker

Separator = str | re.Pattern[str]

NUMBERS = re.compile(r"[^\s,;|\[\]()]+")
"""What is a number of a vector that is given as text: whatever stands between spaces, commas,
semicolons, vertical bars and brackets, so that it reads what Python, NumPy and JSON write."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lists:
    """The lists of a column, one after another."""

    values: Column
    lengths: NDArray[np.int64]
    """Of each list, [n]; 0 for one that is missing."""
    faulty: Mask
    """Which cells, [n], are no lists."""

    def padded(self, read: Read) -> tuple[NDArray[Any], Mask]:
        """Pad what the values were read as to the longest list; and which lists hold a faulty one.

        Returns:
            [n, longest], and [n].
        """
        marker = missing_marker(read.values.dtype)
        shape = len(self.lengths), self.lengths.max(initial=0)
        padded = np.full(shape, marker, dtype=read.values.dtype)
        padded[np.arange(padded.shape[1]) < self.lengths[:, np.newaxis]] = read.values
        faulty = self.faulty
        if read.faulty.any():
            rows = np.repeat(np.arange(len(self.lengths)), self.lengths)
            faulty = faulty | np.isin(np.arange(len(faulty)), rows[read.faulty])
        return padded, faulty


def cut_lists(column: Column, separator: Separator | None) -> Lists:
    """Cut a column into its lists.

    Where there is a separator, a text is cut at it, and any other single value is a list of one. A
    pattern is that of a value rather than of what stands between two.
    """
    array = None if isinstance(column, list) else as_arrow(column)
    if array is not None and _is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
        nothing = np.zeros(len(array), dtype=np.bool_)
        return Lists(values=pc.list_flatten(array), lengths=lengths, faulty=nothing)
    lists: Sequence[list[Any] | None] = column if isinstance(column, list) else ()
    if {*map(type, lists)} != {list}:
        lists = [_cells(cell, separator) for cell in listed(column)]
    return Lists(
        values=[value for cell in lists if cell is not None for value in cell],
        lengths=np.array([0 if cell is None else len(cell) for cell in lists], dtype=np.int64),
        faulty=np.array([cell is None for cell in lists], dtype=np.bool_),
    )


def _is_list(kind: pa.DataType) -> bool:
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(is_list)


def read_vectors(column: Column, *, size: int) -> Read:
    """Read vectors of `size` numbers, [n, size] float32; NaN where a number is missing.

    `faulty` [n] are cells that are no such vectors: of another length, or with something that is
    no number. A cell that is missing, or a list of nothing, is none of them.
    """
    lists = cut_lists(column, NUMBERS)
    read = read_numbers(lists.values)
    rows = np.repeat(np.arange(len(lists.lengths)), lists.lengths)
    faulty = lists.faulty | ~np.isin(lists.lengths, (0, size))
    faulty[rows[read.faulty]] = True
    vectors = np.full((len(lists.lengths), size), np.nan, dtype=np.float32)
    is_kept = ~faulty & (lists.lengths > 0)
    vectors[is_kept] = read.values[is_kept[rows]].reshape(-1, size)
    return Read(values=vectors, faulty=faulty)


def vector_length(column: Column) -> int:
    """The length of most of the lists of a column that are not empty; 0 if all are."""
    lengths = np.bincount(cut_lists(column, NUMBERS).lengths, minlength=1)
    lengths[0] = 0
    return int(np.argmax(lengths)) if lengths.any() else 0


def _cells(cell: Any, separator: Separator | None) -> list[Any] | None:
    """The values of one cell; None if it is no list."""
    if isinstance(cell, list | tuple | np.ndarray):
        return list(cell)
    if is_missing(cell):
        return []
    if separator is None or not pd.api.types.is_scalar(cell):
        return None
    if not isinstance(cell, str):
        return [cell]
    return separator.findall(cell) if isinstance(separator, re.Pattern) else cell.split(separator)
