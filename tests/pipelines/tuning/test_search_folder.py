from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.config import load_config
from pipelines.tuning.search_folder import Identity, check_folder, claimed, identify
from pipelines.tuning.search_space import choose_dimensions
from towers.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

Identified = Callable[..., Identity]


@pytest.fixture
def identified(tiny: Tiny, tmp_path: Path) -> Identified:
    """Identify a search of the tiny world; its tables are written once."""
    tiny.write(tmp_path / "data")

    def make(only: str = "training.l2", **changes: Any) -> Identity:
        times = {path: path.stat() for path in (tmp_path / "data").glob("*.parquet")}
        config = load_config(tiny.write(tmp_path / "data", **changes))
        for path, status in times.items():
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return identify(config, choose_dimensions(config, only=[only]))

    return make


def test_a_folder_is_claimed_again_by_the_same_search(
    identified: Identified, tmp_path: Path
) -> None:
    folder, identity = tmp_path / "new" / "tune", identified()
    check_folder(folder, identity)
    assert not folder.exists()
    with claimed(folder, identity):
        pass
    same = identified(name="other", index={"recall": 0.9}, export={"k": 9})
    check_folder(folder, same)
    with claimed(folder, same), pytest.raises(TrainingError, match="in another process"):
        claimed(folder, same).__enter__()


def test_an_empty_folder_may_be_there_already(identified: Identified, tmp_path: Path) -> None:
    folder = tmp_path / "tune"
    folder.mkdir()
    (folder / ".search.json.half-written").touch()
    with claimed(folder, identified()):
        check_folder(folder, identified())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training": {"epochs": 7}}, "training.epochs was 3 and is 7"),
        ({"seed": 4}, "seed was 3 and is 4"),
        ({"only": "training.folds"}, "search of training.folds was None and is 'one of 3, 5, 10'"),
        ({"only": "training.folds"}, r"of training\.l2 was '1e-05 to 0\.1 \(log\)' and is None"),
        ({"user": {"features": [{"kind": "history"}]}}, "user.features was"),
    ],
)
def test_another_search_is_refused_with_what_differs(
    identified: Identified, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    folder = tmp_path / "tune"
    with claimed(folder, identified()):
        pass
    with pytest.raises(ConfigError, match=rf"tune: .*{named}.*name another --out"):
        check_folder(folder, identified(**changes))


def test_data_that_changed_are_noticed(identified: Identified, tmp_path: Path) -> None:
    folder, path = tmp_path / "tune", tmp_path / "data" / "users.parquet"
    with claimed(folder, identified()):
        pass
    os.utime(path, ns=(0, 0))
    with pytest.raises(ConfigError, match=r"users\.parquet was '\d+ bytes, .*modified 0'; restore"):
        check_folder(folder, identified())


def test_a_file_or_a_folder_of_something_else_is_refused(
    identified: Identified, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"tiny\.toml: expected a folder, received a file"):
        check_folder(tmp_path / "data" / "tiny.toml", identified())
    with pytest.raises(ConfigError, match=r"with other files, such as interactions\.parquet; name"):
        check_folder(tmp_path / "data", identified())
