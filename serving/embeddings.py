"""Embeddings: the vectors of all users or all items, with their ids and columns to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.index import Rows, Vectors
from towers.errors import BundleError, QueryError
from towers.inputs import INT64
from towers.vocabulary import MISSING_INTEGER, MISSING_STRING

VECTOR = "vector"
"""The column of the vectors in Parquet; the id is the first column."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One side of a version, by row."""

    table: pd.DataFrame
    """One row a user or item: the id (int64, or text) first, then columns to show."""
    vectors: Vectors
    """V_user or V_item, [n, 1 + d] float32."""

    @classmethod
    def read(cls, path: Path) -> Embeddings:
        """Read what `write` wrote.

        Raises:
            BundleError: the file is not such a table.
        """
        try:
            table = pq.read_table(path)
            flat = table[VECTOR].combine_chunks().flatten().to_numpy()
        except (OSError, KeyError, pa.ArrowException, AttributeError) as error:
            raise BundleError(
                f"{path}: expected a Parquet file with a column {VECTOR!r} of lists of float32, "
                f"received {error}; publish again, or roll back to another version"
            ) from None
        vectors = flat.reshape(table.num_rows, -1)
        return cls(table.drop_columns([VECTOR]).to_pandas(), vectors)

    def write(self, path: Path) -> None:
        """Write Parquet: the table's columns, then `vector`, a list of fixed size of float32."""
        lists = pa.FixedSizeListArray.from_arrays(
            pa.array(self.vectors.ravel(), pa.float32()), self.vectors.shape[1]
        )
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        pq.write_table(table.append_column(VECTOR, lists), path)

    @property
    def id_column(self) -> str:
        """The name of the id."""
        return str(self.table.columns[0])

    @cached_property
    def ids(self) -> NDArray[Any]:
        """The ids by row: int64, or str objects."""
        ids = self.table.iloc[:, 0]
        return ids.to_numpy(np.int64 if pd.api.types.is_integer_dtype(ids) else object)

    @property
    def missing_id(self) -> int | str:
        """What stands for no id."""
        return MISSING_INTEGER if self.ids.dtype == np.int64 else MISSING_STRING

    def parse_id(self, text: str) -> int | str:
        """Read an id that was typed: as an integer where the ids are integers.

        Raises:
            QueryError: it is none.
        """
        if self.ids.dtype != np.int64:
            return text
        try:
            return int(text)
        except ValueError:
            raise QueryError(
                f"{self.id_column}: expected an integer, as in training, received {text!r}"
            ) from None

    def checked_ids(self, ids: Sequence[Any]) -> NDArray[Any]:
        """Bring ids to an array of the type of `ids`.

        Raises:
            QueryError: one is of another type.
        """
        integer = self.ids.dtype == np.int64
        kinds = (int, np.integer) if integer else (str,)
        for given in ids:
            fits = isinstance(given, kinds) and not isinstance(given, bool)
            if not fits or (integer and not INT64.min <= given <= INT64.max):
                raise QueryError(
                    f"{self.id_column}: expected {'a 64-bit integer' if integer else 'text'}, as "
                    f"in training, received {given!r}"
                )
        return np.array(ids, dtype=self.ids.dtype)

    def rows(self, ids: Sequence[Any]) -> Rows:
        """The row of each id; -1 for one that is not here.

        Raises:
            QueryError: an id is not of the type of the ids.
        """
        return self.find(self.checked_ids(ids))

    def column(self, name: str) -> pa.Array:
        """One of the table's columns."""
        if name not in self._columns:
            self._columns[name] = pa.Array.from_pandas(self.table[name])
        return self._columns[name]

    def find(self, ids: NDArray[Any]) -> Rows:
        """The row of each id [n], which are of the right type; -1 for one that is not here."""
        rows: Rows = self._positions.get_indexer(pd.Index(ids)).astype(np.int64)
        return rows

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        return {}

    @cached_property
    def _positions(self) -> pd.Index[Any]:
        positions: pd.Index[Any] = pd.Index(self.ids)
        return positions
