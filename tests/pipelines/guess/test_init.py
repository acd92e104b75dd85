"""Init: tables as they come give a configuration that a run takes as it is."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.check.check import check
from pipelines.guess.init import Written, init
from tests.pipelines.guess.tables import books, films, rentals
from towers.errors import ConfigError, DataError


def written(folder: Path, *paths: Path) -> tuple[dict[str, Any], Written]:
    found = init(paths, folder / "run.toml")
    assert found.problem is None
    return tomllib.loads(found.path.read_text()), found


def features(config: dict[str, Any], side: str) -> dict[str, dict[str, Any]]:
    return {one.get("column", one["kind"]): one for one in config[side]["features"]}


def test_a_wide_log_is_taken_apart(tmp_path: Path) -> None:
    config, found = written(tmp_path, rentals(tmp_path))
    table = config["data"]["interactions"]
    assert (table["user"], table["item"], table["timestamp"]) == (
        *("user_id", "item_id"),
        "review_date",
    )
    assert (table["rating"], table["positive_rating"]) == ("rating", 8.0)
    assert config["data"]["users"]["source"] == "interactions"
    users = features(config, "user")
    assert set(users) == {"history", "weight", "height", "body type"}
    assert users["height"]["factors"] == [12.0, 1.0]
    assert users["body type"]["name"] == "body_type"
    assert set(features(config, "item")) == {"item_id", "category"}
    left = {one.column: one.guess.why for one in found.draft.others}
    assert "free text" in left["review_text"]
    assert "differs from row to row" in left["fit"]
    checked = check(found.path)
    assert checked.counts["users"] == 120
    text = found.path.read_text()
    block = '# [[context.features]]\n# kind = "categorical"\n# column = "fit"\n'
    assert block in text
    found.path.write_text(text.replace(block, block.replace("# ", "")))
    assert check(found.path).counts == checked.counts
    assert not any("taken as missing" in line for line in checked.lines)


def test_three_files_of_books(tmp_path: Path) -> None:
    config, found = written(tmp_path, *books(tmp_path))
    data = config["data"]
    assert data["interactions"]["path"] == "BX-Ratings.csv"
    assert (data["users"]["id"], data["items"]["id"]) == ("User-ID", "ISBN")
    assert data["items"]["encoding"] == "latin-1"
    assert data["items"]["escape"] == "\\"
    assert data["on_bad_rows"] == "quarantine"  # some books have no row
    assert any("ISBN not in the items table" in line for line in found.rejected)
    assert features(config, "user")["Location"]["separator"] == ", "
    items = features(config, "item")
    assert set(items) == {"ISBN", "Book-Author", "Year-Of-Publication"}
    assert items["Year-Of-Publication"]["kind"] == "numeric"
    text = found.path.read_text()
    assert "of the ratings are 0, which often means that there is none" in text
    lines = check(found.path).lines
    assert "items: 75 rows read, 75 kept" in lines


def test_a_folder_of_files_without_a_header(tmp_path: Path) -> None:
    config, found = written(tmp_path, films(tmp_path))
    data = config["data"]
    assert data["interactions"]["columns"] == ["user_id", "item_id", "rating", "timestamp"]
    assert data["interactions"]["positive_rating"] == 4.0
    assert (data["users"]["id"], data["items"]["id"]) == ("user_id", "item_id")
    assert features(config, "item")["column_3"]["kind"] == "multi_valued"
    assert features(config, "user")["column_4"]["kind"] == "categorical"  # 02139 is no amount
    assert [path.name for path, _ in found.draft.left_out] == ["README"]
    assert check(found.path).counts["test"] > 0


def test_behaviours_and_epochs_in_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    n = 600
    pd.DataFrame(
        {
            "customerId": [f"c{k % 41}" for k in range(n)],
            "sku": [f"s{(k * k) % 97}" for k in range(n)],
            "event_type": [("view", "purchase", "cart", "dislike")[k % 4] for k in range(n)],
            "odd\nname\x07": [f"{k % 9}\n" for k in range(n)],
            "at": [1_600_000_000_000 + 7_000_000 * k for k in range(n)],
        }
    ).to_parquet(path)
    config, _ = written(tmp_path, path)
    table = config["data"]["interactions"]
    assert (table["user"], table["item"], table["event"]) == ("customerId", "sku", "event_type")
    assert (table["timestamp"], table["timestamp_format"]) == ("at", "ms")
    behaviours = config["data"]["behaviours"]
    assert behaviours["purchase"] == {"role": "target"}
    assert behaviours["dislike"] == {"role": "negative"}
    assert behaviours["view"] == {"seen": False}


@pytest.mark.parametrize("values", [("0", "1"), ("False", "True")])
def test_a_column_of_noughts_and_ones_says_what_was_chosen(
    tmp_path: Path, values: tuple[str, str]
) -> None:
    """As pandas writes it: with an index without a name, here behind a byte order mark."""
    path = tmp_path / "log.csv"
    rows = [f"{k},{k % 31},{k % 23},{values[k % 4 == 0]},{k % 7}" for k in range(500)]
    text = "\n".join([",user_id,item_id,is_click,position", *rows])
    path.write_text(text, encoding="utf-8-sig")
    config, found = written(tmp_path, path)
    table = config["data"]["interactions"]
    assert (table["user"], table["rating"], table["positive_rating"]) == (
        *("user_id", "is_click"),
        1.0,
    )
    assert "columns" not in table
    assert check(found.path).counts["train"] < 125


def test_whether_the_day_or_the_month_comes_first_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"u{k % 30},i{k % 23},0{1 + k % 9}/0{1 + k % 7}/2020" for k in range(400)]
    path.write_text("\n".join(["user,item,day", *rows]))
    config, found = written(tmp_path, path)
    assert config["data"]["interactions"]["timestamp_format"] == "%m/%d/%Y"
    assert "ASK: does the day or the month come first?" in found.path.read_text()


@pytest.mark.parametrize("wide", [False, True])
def test_when_items_came_is_taken_from_their_dates(tmp_path: Path, wide: bool) -> None:
    day = pd.Timestamp("2020-01-01")
    items = pd.DataFrame({"sku": [f"s{k}" for k in range(40)]})
    items["releaseDate"] = [f"{day + pd.Timedelta(days=k):%Y-%m-%d}" for k in range(40)]
    log = pd.DataFrame({"customer": [f"c{k % 31}" for k in range(600)]})
    log["sku"] = [f"s{(k * k) % 40}" for k in range(600)]
    log["at"] = [1_580_000_000 + 7000 * k for k in range(600)]
    paths = [tmp_path / "log.csv"] if wide else [tmp_path / "log.csv", tmp_path / "items.csv"]
    (log.merge(items, on="sku") if wide else log).to_csv(paths[0], index=False)
    if not wide:
        items.to_csv(paths[1], index=False)
    config, found = written(tmp_path, *paths)
    table = config["data"]["interactions"]
    assert (table["timestamp"], table["timestamp_format"]) == ("at", "s")
    assert config["data"]["items"]["available_from"] == "releaseDate"
    assert ("releaseDate", "from when on there") in {
        (one.column, one.taken_as) for one in found.draft.said()
    }
    assert features(config, "item")["releaseDate"]["kind"] == "numeric"
    n_items = log["sku"].nunique() if wide else 40
    assert check(found.path).counts["items"] == n_items


def test_without_any_hint_users_come_first_and_that_is_a_guess(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"k{k % 41};p{(k * k) % 83};{k % 28 + 1:02d}.04.2020;{1 + k % 7}" for k in range(600)]
    path.write_text("\n".join(["Kunde;Ware;Datum;qty", *rows]))
    config, found = written(tmp_path, path)
    table = config["data"]["interactions"]
    assert (table["user"], table["item"], table["timestamp"]) == ("Kunde", "Ware", "Datum")
    sure = {one.column: one.cells()[-1] for one in found.draft.said()}
    assert sure == {"Kunde": "a guess", "Ware": "a guess", "Datum": "sure", "qty": "likely"}
    assert "weight = 'qty' in data.interactions" in found.path.read_text()


def test_a_folder_of_tables_is_read_table_by_table(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    for name, n in (("events", 2), ("users", 1)):
        (shop / name).mkdir(parents=True)
        for shard in range(n):
            rows = [
                f"{k % 37},{(k * k) % 29}" if n > 1 else f"{k},{'ab'[k % 2]}"
                for k in range(shard * 300, shard * 300 + (300 if n > 1 else 37))
            ]
            header = "user_id,item_id" if n > 1 else "user_id,sex"
            (shop / name / f"part-{shard}.csv").write_text("\n".join([header, *rows]))
    config, _ = written(tmp_path, shop)
    assert config["data"]["interactions"]["path"] == "shop/events"
    assert config["data"]["users"]["path"] == "shop/users"


def test_users_are_no_sessions_and_nested_keys_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [
        {
            "session": {"id": k // 3, "device": "ab"[k % 2]},
            "user": {"id": f"u{k % 31}", "home": "xyz"[k % 31 % 3]},
            "product": {"id": (k * k) % 47},
        }
        for k in range(600)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    config, _ = written(tmp_path, path)
    table = config["data"]["interactions"]
    assert (table["user"], table["item"]) == ("user.id", "product.id")
    assert features(config, "user")["user.home"]["name"] == "user_home"


def test_lists_of_items_and_of_tags(tmp_path: Path) -> None:
    n_items = 50
    lists = [sorted({(u * 7 + k * k) % n_items for k in range(3 + u % 9)}) for u in range(80)]
    lines = [" ".join(map(str, [len(items), *items])) for items in lists]
    (tmp_path / "users.dat").write_text("\n".join(lines))
    tags = [[i % 5, 5 + i % 3, 8 + i % 2][: 1 + i % 3] for i in range(n_items)]
    lines = [" ".join(map(str, [len(one), *one])) for one in tags]
    (tmp_path / "item-tag.dat").write_text("\n".join(lines))
    config, found = written(tmp_path, *sorted(tmp_path.glob("*.dat")))
    data = config["data"]
    assert (data["interactions"]["path"], data["items"]["path"]) == ("users.dat", "item-tag.dat")
    assert data["interactions"]["lists"] == "count"
    assert features(config, "item")["column_2"]["kind"] == "multi_valued"
    counts = check(found.path).counts
    assert (counts["users"], counts["items"]) == (80, n_items)
    assert sum(counts[part] for part in ("train", "validation", "test")) == sum(map(len, lists))
    for name, step in (("train", 1), ("test", 3)):
        rows = [" ".join(map(str, [f"9{u}", *items[::step]])) for u, items in enumerate(lists)]
        (tmp_path / f"{name}.txt").write_text("\n".join(rows))
    paths = [tmp_path / "train.txt", tmp_path / "test.txt"]
    config = tomllib.loads(init(paths, tmp_path / "second.toml").path.read_text())
    assert config["data"]["interactions"]["lists"] == "id"
    assert config["split"]["test"]["path"] == "test.txt"


def test_a_table_for_the_test_is_found_by_its_name(tmp_path: Path) -> None:
    for name, step in (("train", 1), ("test", 3), ("old", 2)):
        rows = [f"{k % 31},{(k * step) % 17 + 100}" for k in range(300)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["user,item", *rows]))
    config, found = written(tmp_path, *sorted(tmp_path.glob("*.csv")))
    assert config["data"]["interactions"]["path"] == "train.csv"
    assert config["split"]["test"]["path"] == "test.csv"
    assert [path.name for path, _ in found.draft.left_out] == ["old.csv"]


def test_files_are_not_written_over_and_what_is_no_table_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run.toml"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        init([rentals(tmp_path)], out)
    assert out.read_text() == "mine"
    notes = tmp_path / "notes.txt"
    notes.write_text("no table\nat all, is this\n")
    with pytest.raises(DataError, match="no table"):
        init([notes], tmp_path / "new.toml")
    lone = tmp_path / "lone.csv"
    lone.write_text("name,price\n" + "\n".join(f"thing {k} of it,{k}.5" for k in range(50)))
    with pytest.raises(DataError, match="expected a table of interactions"):
        init([lone], tmp_path / "new.toml")
    assert not (tmp_path / "new.toml").exists()


@pytest.mark.parametrize("users_first", [True, False])
def test_files_say_by_their_names_whose_they_are(tmp_path: Path, users_first: bool) -> None:
    """Users and items alike numbered from 1; the second column of the log is the users' or not."""
    kinds = {"user": 90, "item": 60} if users_first else {"item": 60, "user": 90}
    rows = {
        tuple(1 + (k * k * step + k) % n for step, n in enumerate(kinds.values(), 1))
        for k in range(700)
    }
    log = [f"{a}\t{b}\t{1 + (a * b) % 5}\t{880_000_000 + a * 977 + b}" for a, b in sorted(rows)]
    (tmp_path / "u.data").write_text("\n".join(log))
    for kind, n in kinds.items():
        lines = [f"{k}|{'xyz'[k % 3]}|{k % 7 + 1.5}" for k in range(1, n + 1)]
        (tmp_path / f"u.{kind}").write_text("\n".join(lines))
    config, _ = written(tmp_path, *sorted(tmp_path.glob("u.*")))
    first = "user_id" if users_first else "item_id"
    assert config["data"]["interactions"]["columns"][0] == first
    assert config["data"]["users"]["path"] == "u.user"
