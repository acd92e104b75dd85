from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from serving.retrieval.catalogue import Catalogue
from serving.search.filters import parse_filter
from serving.version.embeddings import Embeddings
from towers.errors import QueryError
from towers.features.packer import Input

TABLE = pd.DataFrame(
    {
        "item_id": ["a", "b", "c"],
        "year": [1990, 1991, 1992],
        "genres": [["x"], [], ["x", "y"]],
    }
)
VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)
NEW = {"item_id": "d", "year": 2000, "genres": ["z"], "price": 3.5}


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(Embeddings.from_pandas(TABLE, VECTORS))


def find(catalogue: Catalogue, *ids: str) -> list[int]:
    rows: list[int] = catalogue.rows(ids).tolist()
    return rows


def matching(catalogue: Catalogue, raw: dict[str, Any]) -> list[int]:
    rows: list[int] = catalogue.matching(parse_filter(raw)).tolist()
    return rows


def test_it_starts_as_published(catalogue: Catalogue) -> None:
    assert catalogue.id_column == "item_id"
    assert catalogue.columns == ["item_id", "year", "genres"]
    assert find(catalogue, "c", "?", "a") == [2, -1, 0]
    assert catalogue.size == catalogue.n_present == 3
    pd.testing.assert_frame_equal(
        catalogue.show(np.array([2, 0])), TABLE.iloc[[2, 0]].reset_index(drop=True)
    )


def test_new_ids_get_rows_at_the_end(catalogue: Catalogue) -> None:
    rows = catalogue.put([NEW, NEW | {"item_id": "e"}], np.ones((2, 2), np.float32))
    assert rows.tolist() == find(catalogue, "d", "e") == [3, 4]
    assert catalogue.ids(np.array([[4, -1], [0, 3]])).tolist() == [["e", ""], ["a", "d"]]
    assert catalogue.vectors.tolist() == [*VECTORS.tolist(), [1, 1], [1, 1]]
    assert catalogue.record(3)["price"] == 3.5
    assert catalogue.record(0) == {}
    shown = catalogue.show(np.array([4, 1, 3]), ["year"])
    assert shown.to_dict("list") == {"item_id": ["e", "b", "d"], "year": [2000, 1991, 2000]}
    assert shown["year"].dtype == np.int64


def test_an_id_that_is_there_keeps_its_row(catalogue: Catalogue) -> None:
    before = VECTORS.copy()
    assert catalogue.put([NEW | {"item_id": "b"}], np.full((1, 2), 9, np.float32)).tolist() == [1]
    assert catalogue.size == 3
    assert catalogue.vectors[1].tolist() == [9, 9]
    assert catalogue.show(np.array([1]))["year"].tolist() == [2000]
    np.testing.assert_array_equal(VECTORS, before)


def test_values_that_a_record_does_not_have_are_missing(catalogue: Catalogue) -> None:
    catalogue.put([{"item_id": "b", "genres": ["z"]}], np.ones((1, 2), np.float32))
    shown = catalogue.show(np.array([1, 2]))
    assert shown["year"].isna().tolist() == [True, False]
    assert shown["genres"].map(list).tolist() == [["z"], ["x", "y"]]
    assert catalogue.show(np.array([2]))["year"].tolist() == [1992]


def test_removed_ids_are_not_found_until_they_come_back(catalogue: Catalogue) -> None:
    catalogue.put([NEW], np.ones((1, 2), np.float32))
    assert catalogue.remove(["d", "a", "nobody", "a"]).tolist() == [0, 3]
    assert find(catalogue, "a", "b", "d") == [-1, 1, -1]
    assert catalogue.n_present == 2
    assert matching(catalogue, {"column": "year", "range": {"gte": 0}}) == [1, 2]
    assert catalogue.remove(["a"]).tolist() == []
    assert catalogue.put([NEW, {"item_id": "a"}], np.ones((2, 2), np.float32)).tolist() == [3, 0]
    assert find(catalogue, "a", "d") == [0, 3]


def test_filters_see_what_was_put_instead_of_what_was_published(catalogue: Catalogue) -> None:
    catalogue.put([NEW, {"item_id": "a", "year": 2000}], np.ones((2, 2), np.float32))
    assert matching(catalogue, {"column": "year", "equals": 2000}) == [0, 3]
    assert matching(catalogue, {"column": "genres", "in": ["x", "z"]}) == [2, 3]
    assert matching(catalogue, {"not": {"column": "genres", "equals": "x"}}) == [0, 1, 3]
    catalogue.put([{"item_id": "f", "year": 2001}], np.ones((1, 2), np.float32))
    assert matching(catalogue, {"column": "year", "range": {"gt": 1991}}) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"year": 1}, "item_id: expected one in each record"),
        ({"item_id": 5}, "item_id: expected text, as in training, received 5"),
        ({"item_id": "d", "yaer": 1}, "unknown columns ['yaer']; expected some of ['genres', "),
        ({"item_id": "d", "year": "new"}, "column 'year': expected a value of type int64"),
        ({"item_id": "d", "year": 2**70}, "column 'year': expected a value of type int64"),
        ({"item_id": "d", "genres": 5}, "column 'genres': expected a value of type list"),
    ],
)
def test_records_that_are_no_rows_are_refused(
    catalogue: Catalogue, record: dict[str, Any], message: str
) -> None:
    with pytest.raises(QueryError) as caught:
        catalogue.read_record(record, inputs={"price": Input(dtype=np.float32)})
    assert message in str(caught.value)


def test_a_record_has_columns_features_and_missing_values(catalogue: Catalogue) -> None:
    price = {"price": Input(dtype=np.float32)}
    assert catalogue.read_record(NEW, inputs=price) == NEW
    read = catalogue.read_record({"item_id": "d", "year": None}, inputs={})
    assert read == {"item_id": "d", "year": None}


def test_values_of_a_record_are_read_as_the_columns_have_them(catalogue: Catalogue) -> None:
    inputs = {
        "genres": Input(dtype=object, rank=2, separator="|"),
        "year": Input(dtype=np.float32),
    }
    raw = {"item_id": "d", "year": "1999.0", "genres": "x|z"}
    assert catalogue.read_record(raw, inputs=inputs) == {
        "item_id": "d",
        "year": 1999,
        "genres": ["x", "z"],
    }
    half = catalogue.read_record({"item_id": "e", "year": 1999.5}, inputs=inputs)
    catalogue.put([half], np.ones((1, 2), np.float32))
    rows = catalogue.find(np.array(["a", "e"], dtype=object))
    assert catalogue.show(rows)["year"].tolist()[1] == 1999.5
    assert matching(catalogue, {"column": "year", "range": {"gt": 1999.25}}) == [3]


@pytest.mark.parametrize(
    "raw", [{"column": "price", "equals": 1}, {"column": "year", "equals": "x"}]
)
def test_filters_that_do_not_fit_are_refused(catalogue: Catalogue, raw: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match="column"):
        catalogue.check_filter(parse_filter(raw))
    with pytest.raises(QueryError, match="received 'price'"):
        catalogue.show(np.array([0]), ["price"])
