from __future__ import annotations

import pandas as pd
import pytest

from pipelines.data.sources.arrow import to_arrow
from towers.errors import DataError


def test_columns_keep_their_values() -> None:
    frame = pd.DataFrame({"id": [1, 2], "tags": [["a"], []]})
    assert to_arrow(frame, name="items").to_pydict() == {"id": [1, 2], "tags": [["a"], []]}


def test_a_column_of_several_types_is_refused() -> None:
    with pytest.raises(DataError, match=r"items: expected values of one type.*column 'extra'"):
        to_arrow(pd.DataFrame({"extra": [1, "one"]}), name="items")


def test_an_integer_that_is_too_large_is_refused() -> None:
    with pytest.raises(DataError, match=r"items: .*column 'wide'.*too large.*leave it out"):
        to_arrow(pd.DataFrame({"wide": [2**70]}), name="items")
