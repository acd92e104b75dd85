"""Dense: features that every row of a batch has a value of, such as the numbers of an embedding."""

from __future__ import annotations

from typing import Any, NamedTuple


class Dense(NamedTuple):
    """Values of the features first, first + 1, ... of a feature table, as a matrix.

    NumPy arrays offline, and tensors in graphs. They belong to x as its sparse entries do, and are
    multiplied with the table's rows in one product of matrices.
    """

    x: Any
    """[batch, m]."""
    first: Any
    """The row of the feature table that the first column belongs to."""

    @property
    def rows(self) -> slice:
        """The rows of the feature table that the columns belong to."""
        return slice(self.first, self.first + self.x.shape[1])

    def take(self, places: Any) -> Dense:
        """Some rows of the batch."""
        return Dense(self.x[places], self.first)
