from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.data.entities import check_entities, entities_from_ids, require_columns
from pipelines.data.sources.frame_source import FrameSource
from pipelines.data.sources.open import open_source
from pipelines.table_config import FileFormat
from towers.errors import ConfigError
from towers.features.kinds import (
    Categorical,
    Features,
    History,
    MultiValued,
    Numeric,
    Trend,
    Vector,
)
from towers.features.schema import Schema

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    user=Features(features=(History(),)),
    item=Features(
        features=(
            Categorical(column="item"),
            Categorical(column="studio"),
            Numeric(column="year"),
            MultiValued(column="genres", weights="shares"),
        )
    ),
)
FILM: dict[str, Any] = {
    "title": "A",
    "studio": "s",
    "year": "1999",
    "genres": "x|y",
    "item": "1",
    "shares": "1|2",
}


def films(*rows: dict[str, Any], typed: bool = False) -> FrameSource:
    frame = pd.DataFrame([FILM | row for row in rows], dtype=object)
    return replace(FrameSource.of(frame, name="items"), typed=typed)


def test_columns_are_parsed_and_the_others_stay() -> None:
    source = films({}, {"item": "2", "studio": "", "year": "", "genres": "", "shares": ""})
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    rows = checked.rows
    assert list(rows) == ["item", "title", "studio", "year", "genres", "shares"]
    assert rows["item"].tolist() == [1, 2]
    assert rows["title"].tolist() == ["A", "A"]
    assert rows["studio"].tolist() == ["s", None]
    assert rows["year"].tolist()[0] == 1999.0
    assert rows["year"].isna().tolist() == [False, True]
    assert rows["genres"].tolist() == [["x", "y"], []]
    assert rows["shares"].tolist() == [[1.0, 2.0], []]
    assert checked.faults.counts() == {}
    assert source.frame["item"].tolist() == ["1", "2"]  # what was read stays as it was


def test_only_ids_reject_a_row() -> None:
    source = films({"item": ""}, {"item": "1", "year": "old"}, {"item": "1"}, {"item": "3"})
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    assert checked.faults.counts() == {"null item": 1, "duplicate item": 1}
    assert checked.rows["item"].tolist() == [1, 3]
    assert checked.faults.first(9)[1] == "items.iloc:2: duplicate item: '1'"


@pytest.mark.parametrize("length", [None, 2])
def test_vectors_are_arrays_and_one_of_another_length_is_a_row_at_fault(length: int | None) -> None:
    item = Features(features=(Vector(column="cover", length=length),))
    schema = Schema(
        user_id="user",
        item_id="item",
        user=Features(features=(Categorical(column="user"),)),
        item=item,
    )
    covers = ["[0.5, 2]", "1 2 3", "", "7|x", "[1e-3,-4]"]
    source = films(*({"item": str(at), "cover": cover} for at, cover in enumerate(covers)))
    checked = check_entities(source, schema=schema, side="item", id_kind="integer")
    assert checked.faults.counts() == {"cover is no list of 2 numbers": 2}
    assert checked.faults.first(1) == ["items.iloc:1: cover is no list of 2 numbers: '1 2 3'"]
    assert checked.rows["item"].tolist() == [0, 2, 4]
    first, missing, last = checked.rows["cover"]
    assert first.dtype == last.dtype == np.float32
    np.testing.assert_allclose([first, last], [[0.5, 2.0], [1e-3, -4.0]], rtol=1e-6)
    assert missing is None
    assert checked.notes == ()


def test_what_a_feature_cannot_read_is_missing_and_noted() -> None:
    source = films(
        {"year": "old"},
        {"item": "2", "year": "old", "genres": b"x"},
        {"item": "3", "year": "1e999", "shares": "1"},
        {"item": "4", "shares": "1|many"},
        {"item": "", "year": "older"},  # is rejected, and not noted
        typed=True,
    )
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    assert checked.rows["year"].isna().tolist() == [True, True, True, False]
    assert checked.rows["genres"].tolist() == [["x", "y"], [], ["x", "y"], ["x", "y"]]
    assert checked.rows["shares"].tolist() == [[1.0, 2.0], [], [1.0, 1.0], [1.0, 1.0]]
    assert list(checked.notes) == [
        "year: 3 value(s) ('old' at items.iloc:0, '1e999' at items.iloc:2) taken as missing: no "
        "finite number of 32 bits",
        "genres: 1 value(s) (b'x' at items.iloc:1) taken as missing: no list of values",
        "shares: 3 value(s) ('1|2' at items.iloc:1, '1' at items.iloc:2, '1|many' at items.iloc:3) "
        "taken as missing: no list of finite numbers, one for each of genres",
    ]


def test_spellings_of_a_missing_value_are_noted_and_are_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text("item,studio,year,genres,shares\n1,NA,NULL,,\n2,s,,NULL,\n3,NA,9,x,1\n")
    source = open_source(FileFormat(path=str(path)), name="items")
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    assert checked.faults.counts() == {}
    assert checked.rows["studio"].tolist() == [None, "s", None]
    assert checked.rows["year"].isna().tolist() == [True, True, False]
    assert checked.rows["genres"].tolist() == [[], [], ["x"]]
    assert list(checked.notes) == [
        f"studio: 2 value(s) ('NA' at {path}:2) taken as missing: one of null_values",
        f"year: 1 value(s) ('NULL' at {path}:2) taken as missing: one of null_values",
        f"genres: 1 value(s) ('NULL' at {path}:3) taken as missing: one of null_values",
    ]
    as_they_are = open_source(FileFormat(path=str(path), null_values=()), name="items")
    checked = check_entities(as_they_are, schema=SCHEMA, side="item", id_kind="integer")
    assert checked.rows["studio"].tolist() == ["NA", "s", "NA"]


def test_ids_that_differ_in_the_last_of_64_bits_are_no_duplicates() -> None:
    source = films({"item": None}, {"item": 2**60}, {"item": 2**60 + 1}, typed=True)
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    assert checked.rows["item"].tolist() == [2**60, 2**60 + 1]


def test_a_list_where_a_token_belongs_is_missing() -> None:
    source = films({"studio": ["s", "t"]}, {"item": "2"}, typed=True)
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="text")
    assert checked.rows["studio"].tolist() == [None, "s"]
    [note] = checked.notes
    assert note.startswith("studio: 1 value(s) (['s', 't'] at items.iloc:0) taken as missing")


def test_texts_that_are_one_token_are_noted() -> None:
    studios = ["1.10", "1.1", "True", "true", "v1.10", "v1.1"]
    source = films(*({"item": str(row), "studio": x} for row, x in enumerate(studios)), typed=True)
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    assert checked.rows["studio"].tolist() == studios
    assert list(checked.notes) == [
        "studio: 2 token(s) are written in several ways, such as 1.1 as '1.1' and '1.10'; see "
        "docs/values.md"
    ]


def test_columns_that_features_read_are_required() -> None:
    source = FrameSource.of(pd.DataFrame({"item": [1], "year": [1]}), name="items")
    with pytest.raises(ConfigError, match=r"\['studio', 'genres', 'shares'\].*\['item', 'year'\]"):
        require_columns(source, schema=SCHEMA, side="item")
    with pytest.raises(ConfigError, match=r"item.features: expected a table of items.*data.items"):
        require_columns(None, schema=SCHEMA, side="item")


def test_a_history_needs_no_table() -> None:
    require_columns(None, schema=SCHEMA, side="user")
    with pytest.raises(ConfigError, match=r"expected column\(s\) \['user'\]"):
        require_columns(
            FrameSource.of(pd.DataFrame({"x": [1]}), name="users"), schema=SCHEMA, side="user"
        )


def test_ids_alone_make_a_table() -> None:
    table = entities_from_ids(pd.Series(["b", "a", "b"], index=[5, 0, 5]), id_column="user")
    pd.testing.assert_frame_equal(table, pd.DataFrame({"user": ["b", "a"]}))


def test_a_trend_takes_no_column_that_items_have() -> None:
    schema = replace(SCHEMA, item=Features(features=(*SCHEMA.item.features, Trend())))
    require_columns(films({}), schema=schema, side="item")
    with pytest.raises(ConfigError, match="received 'trend'; give the trend another `column`"):
        require_columns(films({"trend": "1"}), schema=schema, side="item")
