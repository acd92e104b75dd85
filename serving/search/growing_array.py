"""An array that can be written to and grows at its end; and numbers of rows in one."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.search.index import Rows

T = TypeVar("T", bound=np.generic)


class GrowingArray(Generic[T]):
    """Starts as an array that somebody else may own, which is copied when it is first changed."""

    def __init__(self, values: NDArray[T]) -> None:
        """Start with `values` [size, ...]."""
        self._buffer, self._size, self._is_own = values, len(values), False

    @property
    def values(self) -> NDArray[T]:
        """The array [size, ...] as it is now."""
        return self._buffer[: self._size]

    def __len__(self) -> int:
        return self._size

    def put(self, rows: Rows, values: Any) -> None:
        """Write to `rows`; those from `size` on, without a gap, make the array longer."""
        if not len(rows):
            return
        size = max(self._size, int(rows.max()) + 1)
        if not self._is_own or size > len(self._buffer):
            capacity = self._size if size == self._size else size + self._size // 4
            buffer = np.empty((capacity, *self._buffer.shape[1:]), self._buffer.dtype)
            buffer[: self._size] = self.values
            self._buffer, self._is_own = buffer, True
        self._buffer[rows] = values
        self._size = size


class RowNumbers:
    """A number for each row, -1 for a row that has none."""

    def __init__(self, numbers: Rows) -> None:
        """Start with the numbers [size] of the rows from 0 on."""
        self._numbers = GrowingArray(numbers)

    @classmethod
    def inverse(cls, rows: Rows) -> RowNumbers:
        """Number different rows [n] by their places in the list."""
        numbers = np.full(int(rows.max(initial=-1)) + 1, -1)
        numbers[rows] = np.arange(len(rows))
        return cls(numbers)

    def of(self, rows: Rows) -> Rows:
        """The numbers of rows, -1 for those that were never given one."""
        if not len(self._numbers):
            return np.full(rows.shape, -1)
        known = rows < len(self._numbers)
        return np.where(known, self._numbers.values[np.where(known, rows, 0)], -1)

    def put(self, rows: Rows, numbers: Rows | int) -> None:
        """Give rows their numbers."""
        size, last = len(self._numbers), int(rows.max(initial=-1))
        if last > size:
            self._numbers.put(np.arange(size, last), -1)
        self._numbers.put(rows, numbers)
