from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from pipelines.data.interactions import tables_from_frames
from pipelines.data.prepare import FRAMES, Prepared, load_prepared, prepare, save_prepared
from towers.errors import DataError

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


def plain(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The values of a table; lists may have become arrays."""
    return {
        str(name): [v.tolist() if isinstance(v, np.ndarray) else v for v in column]
        for name, column in frame.items()
    }


def test_it_splits_by_time(tiny: Tiny, prepared: Prepared) -> None:
    n = len(tiny.tables["interactions"])
    assert prepared.counts == {
        "users": 60,
        "items": 40,
        "train": round(round(n * 0.8) * 0.9),
        "validation": round(n * 0.8) - round(round(n * 0.8) * 0.9),
        "test": n - round(n * 0.8),
    }
    times = [getattr(prepared, name)["timestamp"] for name in ("train", "validation", "test")]
    for earlier, later in itertools.pairwise(times):
        assert earlier.max() < later.min()
    assert prepared.lines[0] == "users: 60 rows read, 60 kept"


def test_everything_but_test_keeps_the_order(prepared: Prepared) -> None:
    rest = prepared.everything_but_test
    assert len(rest) == len(prepared.train) + len(prepared.validation)
    assert rest["timestamp"].is_monotonic_increasing
    assert rest.index.tolist() == list(range(len(rest)))


def test_what_is_saved_is_loaded(prepared: Prepared, tmp_path: Path) -> None:
    save_prepared(prepared, tmp_path / "run" / "prepared")
    loaded = load_prepared(tmp_path / "run" / "prepared")
    assert loaded.lines == prepared.lines
    assert loaded.counts == prepared.counts
    for name in FRAMES:
        before, after = getattr(prepared, name), getattr(loaded, name)
        assert plain(after) == plain(before)
        assert after.dtypes.tolist() == before.dtypes.tolist()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["prepared"]


def test_missing_values_and_a_part_without_rows_are_kept(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(split={"test_fraction": 0.0})
    users = tiny.tables["users"].astype({"age": "Int64", "city": object})
    users.loc[3, "age"], users.loc[4, "city"] = pd.NA, None
    tables: dict[str, Any] = {**tiny.tables, "users": users}
    found = prepare(tables_from_frames(config, **tables), config)
    save_prepared(found, tmp_path / "prepared")
    loaded = load_prepared(tmp_path / "prepared")
    assert isinstance(loaded, Prepared)
    assert len(loaded.test) == 0
    assert loaded.test.columns.tolist() == found.test.columns.tolist()
    assert loaded.users["age"].isna().tolist() == (loaded.users.index == 3).tolist()
    assert loaded.users["city"][4] is None


def test_an_interrupted_save_leaves_no_folder_and_is_repeated(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "prepared"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipelines.data.prepare.move_directory", interrupt)
        save_prepared(prepared, folder)
    assert not folder.exists()
    save_prepared(prepared, folder)
    assert load_prepared(folder).counts == prepared.counts
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


def test_a_column_of_several_types_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    mixed = prepared.items.assign(extra=[1, "one"] * 20)
    faulty = dataclasses.replace(prepared, items=mixed)
    with pytest.raises(DataError, match=r"items: expected values of one type.*column extra"):
        save_prepared(faulty, tmp_path / "run" / "prepared")
    assert list(tmp_path.iterdir()) == []
