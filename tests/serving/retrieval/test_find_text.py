from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from serving.retrieval.catalogue import Catalogue
from serving.retrieval.find_text import find_text
from serving.version.embeddings import Embeddings


def catalogue(**columns: Any) -> Catalogue:
    table = pd.DataFrame(columns)
    return Catalogue(Embeddings.from_pandas(table, np.zeros((len(table), 2), np.float32)))


@pytest.fixture
def films() -> Catalogue:
    return catalogue(
        item_id=[7, 70, 1, 17],
        title=["Seven", None, "The 7th Seal", "seventy"],
        year=[1995, 7, 7, 7],
        tags=[["seven"], [], ["seven"], []],
    )


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("7", [0, 1, 2]),
        ("seven", [0, 3]),
        ("SEVENTY", [3]),
        ("e", [0, 2, 3]),
        ("th", [2]),
        (".*", []),
        ("", [0, 1, 2, 3]),
    ],
)
def test_ids_come_before_what_starts_with_a_text_and_what_holds_it(
    films: Catalogue, text: str, rows: list[int]
) -> None:
    found, total = find_text(films.snapshot(), text, limit=10)
    assert found.tolist() == rows
    assert total == len(rows)


def test_what_starts_with_a_text_comes_before_what_holds_it() -> None:
    films = catalogue(item_id=["a", "b", "c"], title=["The End", "End", "Weekend"])
    assert find_text(films.snapshot(), "end", limit=10)[0].tolist() == [1, 0, 2]


def test_only_so_many_are_found_but_all_are_counted(films: Catalogue) -> None:
    found, total = find_text(films.snapshot(), "7", limit=2)
    assert (found.tolist(), total) == ([0, 1], 3)


def test_what_was_put_counts_in_place_of_what_was_published(films: Catalogue) -> None:
    films.put(
        [{"item_id": 7, "title": "Eight"}, {"item_id": 8, "title": "Seven Up"}],
        np.zeros((2, 2), np.float32),
    )
    films.remove([17])
    snapshot = films.snapshot()
    films.remove([8])
    assert find_text(snapshot, "seven", limit=10)[0].tolist() == [4]
    assert find_text(snapshot, "8", limit=10)[0].tolist() == [4]
    assert find_text(snapshot, "eight", limit=10)[0].tolist() == [0]
    assert find_text(films.snapshot(), "seven", limit=10)[1] == 0
