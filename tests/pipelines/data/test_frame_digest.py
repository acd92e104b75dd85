from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.data.frame_digest import digest


def frame(**changed: Any) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "id": [1, 2, 3],
        "text": ["a", None, "c"],
        "mixed": [1, "1", 2.5],
        "lists": [["x"], [], None],
        "vectors": [np.arange(2000.0), np.zeros(3), np.ones(1)],
        "when": pd.Series(["2026-01-01", "2026-01-02", None]).astype("datetime64[ns]"),
        "kind": pd.Categorical(["u", "v", "u"]),
        "set": [{1}, {2}, {3}],
    }
    return pd.DataFrame(columns | changed)


def with_vector(place: int, value: float) -> list[Any]:
    long = np.arange(2000.0)
    long[place] = value
    return [long, np.zeros(3), np.ones(1)]


CHANGES: dict[str, Callable[[], pd.DataFrame]] = {
    "a value": lambda: frame(id=[1, 2, 4]),
    "a type": lambda: frame(id=[1.0, 2.0, 3.0]),
    "a name": lambda: frame().rename(columns={"id": "ids"}),
    "the order of rows": lambda: frame().iloc[::-1],
    "the order of columns": lambda: frame()[[*frame().columns[::-1]]],
    "a row": lambda: pd.concat([frame(), frame()]),
    "text for a number": lambda: frame(mixed=["1", "1", 2.5]),
    "the place of the text": lambda: frame(mixed=["1", 1, 2.5]),
    "a missing list for an empty one": lambda: frame(lists=[["x"], None, None]),
    "where a list ends": lambda: frame(lists=[[], ["x"], None]),
    "a number deep in a vector": lambda: frame(vectors=with_vector(1000, 0.5)),
    "the last digit": lambda: frame(vectors=with_vector(1000, np.nextafter(1000.0, 0))),
    "a time": lambda: frame(
        when=pd.Series(["2026-01-01", "2026-01-03", None]).astype("datetime64[ns]")
    ),
    "a category": lambda: frame(kind=pd.Categorical(["u", "v", "v"])),
    "a set": lambda: frame(set=[{1}, {2}, {4}]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_makes_another_digest(change: str) -> None:
    assert digest(CHANGES[change]()) != digest(frame())


def test_the_same_values_have_the_same_digest_whatever_the_index() -> None:
    again = frame().set_index(pd.Index([7, 8, 9]))
    assert digest(again) == digest(frame()) == digest(frame().copy())
