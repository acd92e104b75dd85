"""Check: what it reports of a configuration and its tables, and what it warns of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w

from pipelines.check.check import Checked, check
from pipelines.cli import main as cli
from towers.errors import DataError

N = 2000


def tables() -> dict[str, pd.DataFrame]:
    """Users of five countries and items of five, who meet at random."""
    rng = np.random.default_rng(5)
    interactions = pd.DataFrame(
        {
            "user_id": rng.integers(0, 300, N),
            "item_id": (200 * rng.random(N) ** 2).astype(int),
            "at": 1_600_000_000 + np.sort(rng.integers(0, 10**7, N)),
        }
    ).drop_duplicates(["user_id", "item_id"])
    users = pd.DataFrame({"user_id": range(300), "country": np.arange(300) % 5})
    items = pd.DataFrame(
        {
            "item_id": range(200),
            "land": np.arange(200) % 5,
            "price": rng.random(200),
            "colour": [None] * 198 + ["red", "blue"],
        }
    )
    return {"interactions": interactions, "users": users, "items": items}


def checked(folder: Path, given: dict[str, pd.DataFrame], **features: Any) -> Checked:
    """Check the tables with these item features beside the ids, or others by their name."""
    return check(written(folder, given, **features))


def written(folder: Path, given: dict[str, pd.DataFrame], **item: dict[str, Any]) -> Path:
    for name, table in given.items():
        table.to_parquet(folder / f"{name}.parquet")
    items = [{"column": name, **settings} for name, settings in item.items()]
    config = {
        "data": {
            "interactions": {"path": "interactions.parquet", "timestamp": "at"},
            "users": {"path": "users.parquet", "id": "user_id"},
            "items": {"path": "items.parquet", "id": "item_id"},
        },
        "user": {"features": [{"kind": "history"}, {"kind": "categorical", "column": "country"}]},
        "item": {"features": [{"kind": "categorical", "column": "item_id"}, *items]},
    }
    path = folder / "run.toml"
    path.write_text(tomli_w.dumps(config))
    return path


def test_counts_shares_and_times_add_up(tmp_path: Path) -> None:
    given = tables()
    found = checked(tmp_path, given, land={"kind": "categorical"})
    n = len(given["interactions"])
    parts = found.described["parts"]
    assert sum(part["interactions"] for part in parts.values()) == n
    assert parts["test"]["interactions"] == pytest.approx(0.2 * n, abs=1)
    times = found.described["times"]
    assert sum(map(sum, times["counts"].values())) == n
    assert times["counts"]["test"][0] == 0 < times["counts"]["test"][-1]
    counts = given["interactions"]["user_id"].value_counts()
    assert found.described["per user"]["median"] == counts.median()
    assert found.described["per user"]["max"] == counts.max()
    items = given["interactions"].iloc[: parts["train"]["interactions"]]["item_id"]
    unseen = 200 - items.nunique()
    assert found.described["cold"]["items without any training interaction"] == unseen / 200
    assert found.estimate["rows of the feature table"] == 201 + 6 + 6
    assert found.warnings == []


def many_of_one(given: dict[str, pd.DataFrame]) -> None:
    """One user has half of all items."""
    robot = pd.DataFrame({"user_id": 7, "item_id": range(0, 200), "at": 1_600_000_000})
    both = pd.concat([robot, given["interactions"]])
    given["interactions"] = both.drop_duplicates(["user_id", "item_id"])


def one_each(given: dict[str, pd.DataFrame]) -> None:
    """Most users come once."""
    given["interactions"] = given["interactions"].drop_duplicates("user_id")


def same_country(given: dict[str, pd.DataFrame]) -> None:
    """Users take items of their country only."""
    rows = given["interactions"]
    given["interactions"] = rows[rows["user_id"] % 5 == rows["item_id"] % 5]


def counted(given: dict[str, pd.DataFrame]) -> None:
    """The price is the number of interactions."""
    counts = given["interactions"]["item_id"].value_counts()
    given["items"]["price"] = counts.reindex(range(200), fill_value=0).astype(float)


def dated(given: dict[str, pd.DataFrame]) -> None:
    """The price is the time of the first interaction."""
    first = given["interactions"].groupby("item_id")["at"].min().reindex(range(200))
    given["items"]["price"] = first.astype(float)


def long_tail(given: dict[str, pd.DataFrame]) -> None:
    given["items"]["price"] = np.exp(np.random.default_rng(0).normal(0, 3, 200))


def unique(given: dict[str, pd.DataFrame]) -> None:
    given["items"]["land"] = [f"land {k}" for k in range(200)]


def constant(given: dict[str, pd.DataFrame]) -> None:
    given["items"]["land"] = "x"


def later(given: dict[str, pd.DataFrame]) -> None:
    """Milliseconds, taken for seconds."""
    given["interactions"]["at"] += 10**9


def at_once(given: dict[str, pd.DataFrame]) -> None:
    given["interactions"]["at"] = 1_600_000_000


Spoil = Callable[[dict[str, pd.DataFrame]], None]
CASES: list[tuple[Spoil, str, dict[str, dict[str, Any]]]] = [
    (many_of_one, "user 7 has .* of all interactions", {}),
    (one_each, "of the users have a single interaction", {}),
    (same_country, "'country' decides item feature 'land'", {"land": {"kind": "categorical"}}),
    (counted, "'price' follows the number of interactions", {"price": {"kind": "numeric"}}),
    (dated, "'price' follows the time of the item's first", {"price": {"kind": "numeric"}}),
    (long_tail, "'price' has a long tail", {"price": {"kind": "numeric", "scale": "none"}}),
    (unique, "'land' has 200 values for 200 items", {"land": {"kind": "categorical"}}),
    (constant, "'land' is 'x' for 100.0%", {"land": {"kind": "categorical"}}),
    (lambda given: None, "'colour' is missing for 99.0%", {"colour": {"kind": "categorical"}}),
    (later, "some times are in the future", {}),
    (at_once, "all interactions have the same time", {}),
]


@pytest.mark.parametrize(("spoil", "warning", "item"), CASES)
def test_warnings_of_an_expert(
    tmp_path: Path, spoil: Spoil, warning: str, item: dict[str, dict[str, Any]]
) -> None:
    given = tables()
    spoil(given)
    found = checked(tmp_path, given, **item)
    assert [line for line in found.warnings if re.search(warning, line)], found.warnings


@pytest.mark.parametrize(
    ("column", "kind", "warning"),
    [
        ("serial", "categorical", "'serial' has 1,.* an id of the interaction"),
        ("day", "numeric", "'day' follows the time"),
        ("reaction", "categorical", "'reaction' decides whether a row is a positive"),
        ("hour", "categorical", ""),
    ],
)
def test_contexts_that_no_request_can_bring(
    tmp_path: Path, column: str, kind: str, warning: str
) -> None:
    given = tables()
    rows = given["interactions"]
    n = np.arange(len(rows))
    rows["serial"] = [f"s{k}" for k in n]
    rows["day"] = rows["at"] // 86_400
    rows["hour"] = [f"h{k % 23}" for k in n]
    rows["stars"] = np.where(n % 3 == 0, 1.0, 5.0)
    rows["reaction"] = np.where(n % 3 == 0, "bad", "good")
    path = written(tmp_path, given)
    table = 'timestamp = "at"\n'
    text = path.read_text().replace(table, f'{table}rating = "stars"\npositive_rating = 4.0\n')
    path.write_text(f'{text}[[context.features]]\nkind = "{kind}"\ncolumn = "{column}"\n')
    found = [line for line in check(path).warnings if "context" in line]
    assert len(found) == bool(warning)
    assert all(re.search(warning, line) for line in found)


def test_the_command_prints_json_and_its_exit_code_tells_errors_from_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tables()
    many_of_one(given)
    path = written(tmp_path, given)

    def command(*arguments: str) -> int | None:
        monkeypatch.setattr("sys.argv", ["fm-recall", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code  # type: ignore[return-value]

    assert command("check", str(path), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["warnings"]
    assert printed["counts"]["users"] == 300
    assert command("check", str(path)) == 0
    shown = capsys.readouterr().out
    assert "The split by time" in shown
    assert "warning: user 7" in shown
    given["interactions"].loc[given["interactions"].index[0], "item_id"] = 999
    given["interactions"].to_parquet(tmp_path / "interactions.parquet")
    assert command("check", str(path)) == 2
    assert "item_id not in the items table" in capsys.readouterr().err
    assert not list(tmp_path.glob("*models*"))


def test_many_rows_that_are_set_aside_are_a_warning(tmp_path: Path) -> None:
    given = tables()
    given["items"] = given["items"].iloc[5:]
    path = written(tmp_path, given)
    path.write_text('[data]\non_bad_rows = "quarantine"\n' + path.read_text())
    (warning,) = [line for line in check(path).warnings if "set aside" in line]
    assert re.match(r"1\d% of the rows of the interactions.*item_id not in the items", warning)


def test_rows_at_fault_are_an_error(tmp_path: Path) -> None:
    given = tables()
    given["interactions"]["user_id"] = None
    with pytest.raises(DataError, match="null user_id"):
        checked(tmp_path, given)
