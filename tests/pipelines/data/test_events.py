"""Tables of events: what users did, and what each behaviour is taken for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.config import RunConfig
from pipelines.data.blocks import all_blocks
from pipelines.data.engines import Plan
from pipelines.data.prepare import Prepared, prepare
from towers.errors import ConfigError, DataError
from towers.typed import parse

BEHAVIOURS: dict[str, Any] = {
    "view": {},
    "peek": {"seen": False},
    "buy": {"role": "target"},
    "gift": {"role": "target", "weight": 5.0},
    "hide": {"role": "negative", "weight": 0.5},
}
EVENTS = pd.DataFrame(
    [
        (1, 10, "view", 1.0),
        (1, 10, "buy", 2.0),
        (1, 10, "gift", 3.0),  # stronger, in the same part
        (1, 11, "buy", 4.0),
        (1, 11, "gift", 9.0),  # stronger, but in the test
        (1, 12, "hide", 3.0),
        (1, 13, "peek", 3.0),
        (2, 11, "buy", 1.5),
        (2, 10, "hide", 2.0),
        (2, 10, "buy", 5.0),  # turned down first, but chosen in the end
        (2, 12, "view", 8.0),  # after the cut
        (2, 13, "buy", 7.5),
        (2, 13, "scroll", 1.0),
    ],
    columns=["user_id", "item_id", "did", "at"],
)


def settings(**changes: Any) -> RunConfig:
    data = {
        "interactions": {"event": "did", "timestamp": "at"} | changes.pop("interactions", {}),
        "behaviours": changes.pop("behaviours", BEHAVIOURS),
    }
    split = {"test_fraction": 0.2, "validation_fraction": 0.0} | changes
    return parse(RunConfig, {"data": data, "split": split}, where="test")


Make = Callable[..., Prepared]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Prepare a table, on disk in several chunks and blocks."""
    return lambda config, frame: prepare(
        config,
        tmp_path / "prepared",
        frames={"interactions": frame},
        plan=Plan(engine=request.param, rows=max(len(frame) // 4, 4)),
    )


def by_id(prepared: Prepared, kind: str) -> dict[tuple[int, int], float]:
    """What blocks of the training part say, by user and item: `matrix`, `judged`, `turned_down`."""
    users, items = (table.iloc[:, 0].tolist() for table in (prepared.users, prepared.items))
    found = {}
    for block in all_blocks(prepared.interactions("train")):
        matrix = getattr(block, kind)
        if matrix is None:
            continue
        for place, item, value in zip(*matrix.tocoo().coords, matrix.data, strict=True):
            found[users[block.users[place]], items[item]] = float(value)
    return found


def test_every_behaviour_is_taken_for_what_it_is(make: Make) -> None:
    prepared = make(settings(), EVENTS)
    test = prepared.frame("test")
    assert list(zip(test["user_id"], test["item_id"], strict=True)) == [(2, 13)]
    assert by_id(prepared, "matrix") == {(1, 10): 5.0, (1, 11): 1.0, (2, 11): 1.0, (2, 10): 1.0}
    assert by_id(prepared, "turned_down") == {(1, 12): 0.5}
    assert set(by_id(prepared, "judged")) == {(1, 10), (1, 12), (2, 10)}
    assert prepared.lines[0] == "interactions: 13 rows read, 5 kept"
    assert list(prepared.lines[1:]) == [
        "  behaviours: buy 5 (target), view 2, gift 2 (target), hide 2 (negative), peek 1",
        "  1 left out, which data.behaviours does not name: 'scroll' (1)",
        "  5 not positive, but kept: rating below positive_rating, or another behaviour",
        "  2 repeats of a user and an item, merged into the earliest",
    ]


def test_at_random_all_of_a_pair_is_in_one_part(make: Make) -> None:
    """So nobody has seen before what is held out, nor turned it down."""
    rng = np.random.default_rng(1)
    rows = [
        (user, item, did, rng.random())
        for user in range(12)
        for item in rng.choice(9, 5, replace=False).tolist()
        for did in ("buy", "gift", "view", "hide", "peek")
    ]
    frame = pd.DataFrame(rows, columns=EVENTS.columns)
    prepared = make(settings(by="random", test_fraction=0.4), frame)
    test = prepared.frame("test")
    held_out = set(zip(test["user_id"], test["item_id"], strict=True))
    assert len(held_out) == 12 * 2
    for kind in ("matrix", "judged"):
        assert len(by_id(prepared, kind)) == 12 * 3
        assert not held_out & set(by_id(prepared, kind))
    assert by_id(prepared, "turned_down") == {}


@pytest.mark.parametrize(
    ("behaviours", "message"),
    [
        (BEHAVIOURS | {"bought": {"role": "target"}}, r"is 'bought', received none; .*'buy' \(5\)"),
        ({"x": {"role": "target"}}, r"is 'x', received none; the column has 'buy' \(5\)"),
    ],
)
def test_a_behaviour_that_never_occurs_is_refused(
    make: Make, behaviours: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(settings(behaviours=behaviours), EVENTS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"interactions": {"event": "did"}}, "at least one with role = 'target'.* received none"),
        ({"interactions": {"event": "e", "behaviour": "view"}}, "received both"),
        (
            {
                "interactions": {"behaviour": "bought"},
                "behaviours": {"buy": {"role": "target"}},
            },
            r"expected names among \['buy'\], received \['bought'\]",
        ),
        (
            {
                "interactions": {"behaviour": "buy"},
                "more_interactions": [{"path": "x.csv"}],
                "behaviours": {"buy": {"role": "target"}},
            },
            "expected event or behaviour in each of the tables",
        ),
        ({"interactions": {}, "behaviours": {"view": {}}}, r"received \['view'\], but no column"),
        (
            {
                "interactions": {"rating": "r", "positive_rating": 1.0},
                "behaviours": {"disliked": {"role": "target"}},
            },
            "expected 'liked' as a target and 'disliked' as none",
        ),
        (
            {
                "interactions": {"event": "did"},
                "behaviours": {"buy": {"role": "target", "seen": False}},
            },
            "expected targets that count as seen",
        ),
    ],
)
def test_behaviours_that_cannot_be_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(RunConfig, {"data": data}, where="test")
    known = {"data": {"interactions": {}}, "split": {"test": {"event": "did"}}}
    with pytest.raises(ConfigError, match=r"split\.test\.event"):
        parse(RunConfig, known, where="test")


def test_low_ratings_can_be_explicit_negatives(make: Make) -> None:
    rated = pd.DataFrame(
        [(1, 10, 5, 1.0), (1, 11, 1, 2.0), (2, 10, 2, 1.0), (2, 11, 4, 1.0)],
        columns=["user_id", "item_id", "stars", "at"],
    )
    config = settings(
        interactions={"event": None, "rating": "stars", "positive_rating": 4.0},
        behaviours={"disliked": {"role": "negative", "weight": 2.0}},
        test_fraction=0.0,
    )
    prepared = make(config, rated)
    assert by_id(prepared, "turned_down") == {(1, 11): 2.0, (2, 10): 2.0}


def test_ratings_and_events_stand_in_one_table(make: Make) -> None:
    """A row with a rating is liked or disliked, whatever its event says; others are their event."""
    rows = [
        (1, 10, "view", None, 1.0),
        (1, 10, "rate", 5.0, 2.0),
        (1, 11, "rate", 1.0, 3.0),
        (1, 12, "buy", None, 4.0),
        (2, 10, None, 4.0, 1.0),
        (2, 11, "view", None, 2.0),
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "did", "stars", "at"])
    config = settings(
        interactions={"rating": "stars", "positive_rating": 4.0},
        behaviours={"view": {}, "buy": {"role": "target"}, "disliked": {"role": "negative"}},
        test_fraction=0.0,
    )
    prepared = make(config, frame)
    assert set(by_id(prepared, "matrix")) == {(1, 10), (1, 12), (2, 10)}
    assert set(by_id(prepared, "turned_down")) == {(1, 11)}
    assert set(by_id(prepared, "judged")) == {(1, 10), (1, 11), (2, 11)}


MORE: list[dict[str, Any]] = [
    {"path": "views.csv", "user": "who", "item": "what", "timestamp": "when", "behaviour": "view"},
    {
        "path": "ratings.csv",
        "timestamp": "at",
        "rating": "stars",
        "positive_rating": 4.0,
        "behaviour": "view",
    },
]


def several(folder: Path, *, suffix: str, more: list[dict[str, Any]]) -> RunConfig:
    """Purchases, views and ratings, in a table each, with columns of their own."""
    tables = {
        "purchases": pd.DataFrame({"user_id": [1, 2], "item_id": [10, 11], "at": [5.0, 6.0]}),
        "views": pd.DataFrame({"when": [1.0, 2.0, 3.0], "what": [10, 12, 10], "who": [1, 1, 2]}),
        "ratings": pd.DataFrame(
            {"user_id": [2, 2], "item_id": [12, 13], "at": [7.0, 8.0], "stars": [5, 1]}
        ),
    }
    for name, table in tables.items():
        if suffix == "csv":
            table.to_csv(folder / f"{name}.csv", index=False)
        else:
            table.to_parquet(folder / f"{name}.parquet", index=False)

    def placed(table: dict[str, Any]) -> dict[str, Any]:
        return table | {"path": str((folder / table["path"]).with_suffix(f".{suffix}"))}

    first = {"path": "purchases.csv", "timestamp": "at", "behaviour": "buy"}
    data = {
        "interactions": placed(first),
        "more_interactions": [placed(table) for table in more],
        "behaviours": {"buy": {"role": "target"}, "view": {}, "disliked": {"role": "negative"}},
    }
    split = {"test_fraction": 0.0, "validation_fraction": 0.0}
    return parse(RunConfig, {"data": data, "split": split}, where="test")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("engine", ["memory", "disk"])
def test_every_behaviour_may_have_a_table_of_its_own(
    suffix: str, engine: Any, tmp_path: Path
) -> None:
    config = several(tmp_path, suffix=suffix, more=MORE)
    prepared = prepare(config, tmp_path / "prepared", plan=Plan(engine=engine, rows=4))
    frame = prepared.frame("train")
    found = list(zip(frame["user_id"], frame["item_id"], frame["timestamp"], strict=True))
    assert found == [(1, 10, 5.0), (2, 11, 6.0), (2, 12, 7.0)]
    assert set(by_id(prepared, "turned_down")) == {(2, 13)}
    assert set(by_id(prepared, "judged")) == {(1, 10), (1, 12), (2, 10), (2, 13)}
    assert "interactions: 7 rows read, 3 kept" in prepared.lines
    views = (tmp_path / "views").with_suffix(f".{suffix}")
    assert f"  3 of more_interactions 1 ({views})" in prepared.lines


def test_a_faulty_row_is_named_by_its_own_file(tmp_path: Path) -> None:
    config = several(tmp_path, suffix="csv", more=MORE)
    with (tmp_path / "views.csv").open("a") as file:
        file.write("soon,10,1\n")
    with pytest.raises(DataError, match=r"views\.csv:5: unparsable at"):
        prepare(config, tmp_path / "prepared")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"timestamp": None}, "the timestamp column as in .*, numbers, received none"),
        ({"item": "name"}, "the item column as in .*, integers, received text"),
        ({"user": "whose"}, r"expected column\(s\) \['whose'\]"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    config = several(tmp_path, suffix="parquet", more=[MORE[0] | more])
    views = pd.read_parquet(tmp_path / "views.parquet")
    views.assign(name="x").to_parquet(tmp_path / "views.parquet")
    with pytest.raises(ConfigError, match=message):
        prepare(config, tmp_path / "prepared")
