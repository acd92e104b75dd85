from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.config import load_config, read_toml
from pipelines.tuning.rewrite_toml import changed, moved, write_toml

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

POWER = "user.history.popularity_power"


def test_a_file_that_moved_reads_the_same_tables(tiny: Tiny, tmp_path: Path) -> None:
    test = {"path": "../elsewhere/test.csv"}
    path = tiny.write(tmp_path / "some" / "where", split={"test": test})
    raw = read_toml(path)
    absolute = str(tmp_path / "users.csv")
    raw["data"]["users"]["path"] = absolute
    write_toml(path, raw, comment=[])
    target = tmp_path / "out"
    target.mkdir()
    (tmp_path / "link").symlink_to(target, target_is_directory=True)
    expected = load_config(path)
    for out in (target, tmp_path / "link"):
        toml = moved(raw, path.parent, target=out)
        assert toml["data"]["interactions"]["path"] == "../some/where/interactions.parquet"
        assert toml["data"]["users"]["path"] == absolute
        assert toml["split"]["test"]["path"] == "../some/where/../elsewhere/test.csv"
        write_toml(out / "best.toml", toml, comment=[])
        assert load_config(out / "best.toml") == expected
    assert raw == read_toml(path)  # left alone


def test_a_link_to_the_tables_stays_one(tiny: Tiny, tmp_path: Path) -> None:
    """What is behind it may change."""
    path = tiny.write(tmp_path / "real")
    raw = read_toml(path)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    raw["data"]["users"]["path"] = "link/users.parquet"
    toml = moved(raw, tmp_path, target=tmp_path / "out")
    assert toml["data"]["users"]["path"] == "../link/users.parquet"


def test_a_relative_folder_will_do(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    toml = moved(read_toml(Path(path.name)), Path(), target=Path("deep/out"))
    assert toml["data"]["items"]["path"] == "../../items.parquet"


def test_settings_are_set_by_their_names() -> None:
    raw: dict[str, Any] = {"name": "x", "training": {"l2": 1.0, "epochs": 3}}
    before = copy.deepcopy(raw)
    settings = {"training.l2": 0.5, "training.negatives.hardest": 7, "model.embedding_dim": 64}
    assert changed(raw, settings) == {
        "name": "x",
        "training": {"l2": 0.5, "epochs": 3, "negatives": {"hardest": 7}},
        "model": {"embedding_dim": 64},
    }
    assert raw == before


def test_a_setting_that_is_left_open_is_not_written() -> None:
    raw = {"training": {"batch_size": 64, "epochs": 3}}
    settings = {"training.batch_size": None, "training.contexts": None}
    assert changed(raw, settings) == {"training": {"epochs": 3}}


def test_the_history_is_found_among_the_features_or_written_out() -> None:
    city = {"kind": "categorical", "column": "city"}
    raw = {"user": {"features": [city, {"kind": "history", "latest": 9}]}}
    history = {"kind": "history", "latest": 9, "popularity_power": 0.2}
    assert changed(raw, {POWER: 0.2}) == {"user": {"features": [city, history]}}
    alone = {"user": {"features": [{"kind": "history", "popularity_power": 0.2}]}}
    assert changed({}, {POWER: 0.2}) == alone


def test_a_written_file_reads_back_below_its_comment(tmp_path: Path) -> None:
    raw = {"name": "é \" '", "training": {"l2": 1e-5, "negatives": {"mined_ranks": [2, 9]}}}
    path = tmp_path / "run.toml"
    write_toml(path, raw, comment=["one", "two"])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# one\n# two\n\nname")
    assert tomllib.loads(text) == raw
