"""Growing: an array that can be written to and grows at its end."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.search.index import Rows

T = TypeVar("T", bound=np.generic)


class Growing(Generic[T]):
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
