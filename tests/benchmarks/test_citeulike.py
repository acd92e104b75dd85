from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from benchmarks import citeulike
from benchmarks.peers import rerun
from benchmarks.peers.rows import PEERS, Peer
from pipelines.config import RunConfig, load_config
from pipelines.progress import Reporter

N_USERS, N_ITEMS, N_COLD = 8, 12, 4


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A split of the published form: the last articles are in the validation and the test alone."""
    monkeypatch.setattr(citeulike, "N_USERS", N_USERS)
    monkeypatch.setattr(citeulike, "N_ITEMS", N_ITEMS)
    lines = [f"2 {item % 3} {3 + item % 2}" for item in range(N_ITEMS - 1)]
    (tmp_path / "item-tag.dat").write_text("\n".join(lines) + "\n")
    warm = N_ITEMS - N_COLD
    pairs = {
        "warm_emb": [(user, (user + step) % warm) for user in range(N_USERS) for step in range(3)],
        "warm_val": [(user, (user + 3) % warm) for user in range(N_USERS)],
        "warm_test": [(user, (user + 4) % warm) for user in range(N_USERS)],
        "cold_item_val": [(user, warm + user % 2) for user in range(N_USERS)],
        "cold_item_test": [(user, warm + 2 + user % 2) for user in range(N_USERS)],
    }
    for name, rows in pairs.items():
        text = "\n".join(f"{user},{item}" for user, item in rows)
        (tmp_path / f"{name}.csv").write_text(f"user,item\n{text}\n")
    (tmp_path / "users.dat").write_text("2 5 1\n0\n3 0 7 2\n")
    return tmp_path


def config() -> RunConfig:
    return load_config(citeulike.CONFIG)


def test_the_libraries_are_users_with_their_articles(data: Path) -> None:
    found = citeulike.read_libraries(data)
    assert found["user_id"].tolist() == [0, 0, 2, 2, 2]
    assert found["item_id"].tolist() == [5, 1, 0, 7, 2]
    assert citeulike.read_items(data)["tags"].iloc[-1] == []


def test_peers_stand_beside_the_baselines_on_the_published_split(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Peer(
        title="a peer",
        environment="none",
        worker="tests.benchmarks.popularity_worker",
        settings={},
    )
    monkeypatch.setitem(PEERS, "lightfm-warp", peer)
    monkeypatch.setattr(rerun, "ensure_environment", lambda *_, **__: Path(sys.executable))
    monkeypatch.setattr(citeulike, "BUILD", tmp_path / "build")
    given = SimpleNamespace(
        data=data, config=citeulike.CONFIG, peers=["lightfm-warp"], seeds=[], split="published"
    )
    console = Console(file=io.StringIO(), width=200)
    found = citeulike.measure_published(given, config(), Reporter(console))  # type: ignore[arg-type]
    assert list(found) == ["popularity", "TF-IDF of tags", "a peer"]
    assert found["a peer"]["segments"] == found["popularity"]["segments"]
    cold = found["TF-IDF of tags"]["segments"]["cold_items_alone"]
    assert (cold["n_users"], cold["n_items"]) == (N_USERS, N_COLD)
    console.print(citeulike.table_of(found))
    assert isinstance(console.file, io.StringIO)
    assert len(console.file.getvalue().splitlines()) > len(found)
