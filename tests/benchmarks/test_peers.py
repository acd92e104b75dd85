from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from benchmarks import judged
from benchmarks.peers import __main__ as command
from benchmarks.peers import rerun
from benchmarks.peers.environments import REQUIREMENTS
from benchmarks.peers.peer import factor_scorer, peer_scorer, run_peer
from benchmarks.peers.processes import ROOT, PeerError, run_measured
from benchmarks.peers.product import run_product
from benchmarks.peers.rerun import Bench
from benchmarks.peers.results import Cost, Result, load_result, result_path
from benchmarks.peers.rows import PEERS, POPULARITY, PRODUCT, TITLES, Peer
from benchmarks.peers.splits import DataSet
from benchmarks.peers.table import BEGIN, END
from benchmarks.peers.workers.contract import with_ids
from pipelines.data.blocks import every_positive
from pipelines.evaluation.evaluate import popularity_scorer
from pipelines.progress import Reporter
from tests.benchmarks.peers_support import result
from towers.errors import ConfigError

N_USERS, N_ITEMS, N_COLD = 12, 8, 3

TOML = """
name = "tiny"

[data.interactions]
path = "interactions.parquet"

[data.users]
path = "users.parquet"
id = "user_id"

[data.items]
path = "items.parquet"
id = "item_id"

[split.test]
path = "test.parquet"

[model]
embedding_dim = 4

[training]
epochs = 1
rounds = 0

[training.negatives]
mined_ranks = [1, 4]

[index]
kind = "exact"

[[user.features]]
kind = "history"

[[user.features]]
kind = "categorical"
column = "city"

[[item.features]]
kind = "categorical"
column = "item_id"

[[item.features]]
kind = "multi_valued"
column = "tags"
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Users of two towns with 3 of 8 items each, and three newcomers who are in the test only."""
    folder = tmp_path_factory.mktemp("tiny")
    users, items = np.arange(N_USERS) + 100, np.arange(N_ITEMS) + 2**40
    rng = np.random.default_rng(0)
    bought = [(user, item) for user in users[N_COLD:] for item in rng.permutation(items)[:4]]
    later = [(user, items[user % N_ITEMS]) for user in users[:N_COLD]]
    columns = ["user_id", "item_id"]
    tables = {
        "interactions": pd.DataFrame([p for i, p in enumerate(bought) if i % 4], columns=columns),
        "test": pd.DataFrame([*bought[::4], *later], columns=columns),
        "users": pd.DataFrame({"user_id": users, "city": ["Oslo", "Lima"] * (N_USERS // 2)}),
        "items": pd.DataFrame({"item_id": items, "tags": [["new", "red"], ["red"]] * 4}),
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    (folder / "tiny.toml").write_text(TOML, encoding="utf-8")
    return DataSet(folder / "tiny.toml")


def bench(folder: Path) -> Bench:
    return Bench(build=folder, reporter=Reporter())


def train(tiny: DataSet, folder: Path, **settings: Any) -> Result:
    peer = Peer(
        title="test",
        environment="none",
        worker="tests.benchmarks.popularity_worker",
        settings=settings,
    )
    return run_peer(peer, tiny, row="test", python=Path(sys.executable), folder=folder / "work")


@pytest.fixture(scope="module")
def trained(tiny: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(tiny, tmp_path_factory.mktemp("trained"))


def test_a_row_that_has_a_result_scores_without_being_trained_again(
    tiny: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = "tests.benchmarks.popularity_worker"
    peer = Peer(title="test", environment="none", worker=worker, settings={})
    monkeypatch.setitem(PEERS, "implicit-als", peer)
    monkeypatch.setattr(rerun, "ensure_environment", lambda *_, **__: Path(sys.executable))
    found = judged.bench_scorer("implicit-als", tiny, bench(tmp_path))
    counts = tiny.split.dataset.interactions.item_counts
    scores = found(np.array([0, 5]))
    np.testing.assert_array_equal(scores[0], scores[1])
    assert scores[1].tolist() == popularity_scorer(counts)(np.array([5]))[0].tolist()
    monkeypatch.setattr(rerun, "run_peer", None)  # a second training would fail
    again = judged.bench_scorer("implicit-als", tiny, bench(tmp_path))
    np.testing.assert_array_equal(again(np.array([0, 5])), scores)


# the split


def test_the_written_split_is_the_one_that_is_measured_on(tiny: DataSet, tmp_path: Path) -> None:
    tiny.split.write(tmp_path)
    train = sparse.load_npz(tmp_path / "train.npz").toarray()
    assert set(np.unique(train)) == {0.0, 1.0}
    np.testing.assert_array_equal(
        train > 0, every_positive(tiny.split.dataset.interactions).toarray() > 0
    )
    assert not (train * (tiny.split.test.toarray() > 0)).any()
    assert train.sum() + tiny.split.test.nnz == 4 * (N_USERS - N_COLD) + N_COLD


def test_written_features_are_those_of_the_tables_without_ids(
    tiny: DataSet, tmp_path: Path
) -> None:
    tiny.split.write(tmp_path)
    users = sparse.load_npz(tmp_path / "user_features.npz").toarray() != 0
    items = sparse.load_npz(tmp_path / "item_features.npz").toarray() != 0
    assert users.shape == (N_USERS, 2)
    assert items.shape == (N_ITEMS, 2)
    assert (users.sum(axis=1) == 1).all()
    assert (users[::2] == users[0]).all()
    assert (users[1::2] != users[0]).all()
    np.testing.assert_array_equal(items.sum(axis=1), [2, 1] * 4)


def test_users_without_training_interactions_are_cold(tiny: DataSet) -> None:
    np.testing.assert_array_equal(tiny.split.cold_users, np.arange(N_USERS) < N_COLD)


def test_what_training_has_not_seen_has_no_id() -> None:
    features = sparse.csr_matrix([[1.0], [0.5]])
    bags = with_ids(features, seen=np.array([True, False]))
    np.testing.assert_array_equal(bags.toarray(), [[1.0, 0.0, 1.0], [0.0, 0.0, 0.5]])


# workers


def test_a_worker_that_ranks_by_popularity_gets_the_figures_of_popularity(
    tiny: DataSet, trained: Result, tmp_path: Path
) -> None:
    baseline = bench(tmp_path).run(tiny, POPULARITY)
    assert trained.evaluation == baseline.evaluation
    assert trained.evaluation["segments"]["all"]["n_users"] == N_USERS
    assert trained.ranks_cold_users
    assert trained.versions == {"numpy": np.__version__}


def test_the_cost_of_training_is_part_of_the_cost_of_the_process(trained: Result) -> None:
    cost = trained.cost
    assert cost is not None
    assert 0 < cost.training_s < cost.run_s
    assert cost.cpu_s > 0
    assert cost.peak_gib > 0


def test_users_with_a_zero_vector_are_recommended_nothing(
    tiny: DataSet, trained: Result, tmp_path: Path
) -> None:
    every, warm = trained, train(tiny, tmp_path, only_warm_users=True)
    assert not warm.ranks_cold_users
    assert warm.figure("recall@20", "cold_users") is None
    assert warm.figure("recall@20", "warm_users") == every.figure("recall@20", "warm_users")
    assert every.figure("recall@20", "cold_users") == 1.0
    assert warm.evaluation["segments"]["cold_users"]["figures"]["recall@20"] == 0.0


def test_factors_score_by_inner_product() -> None:
    users = np.array([[1.0, 2.0], [0.0, 0.0]], dtype=np.float32)
    items = np.array([[3.0, 0.0], [0.0, 5.0]], dtype=np.float32)
    scores = factor_scorer(users, items=items)(np.array([1, 0]))
    np.testing.assert_array_equal(scores, [[-np.inf, -np.inf], [3.0, 10.0]])


def test_a_graph_adds_what_neighbours_have(tiny: DataSet, tmp_path: Path) -> None:
    """Two users who share an item: each is shown what the other has."""
    train(tiny, tmp_path, graph=True)
    folder = tmp_path / "work"
    scorer, users = peer_scorer(folder, tiny.split)
    graph = every_positive(tiny.split.dataset.interactions).toarray() > 0
    plain = factor_scorer(users, items=np.load(folder / "items.npy"))
    rows = np.array([2, 0])
    more = graph[rows].astype(int) @ (graph.T.astype(int) @ graph)
    np.testing.assert_allclose(scorer(rows), plain(rows) + more)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("exit", r"(?s)received 1; all that it printed is in .*log\.txt.*out of luck"),
        ("shape", r"expected vectors of 12 users and 8 items .* received \(11, 1\) and \(8, 1\)"),
        ("nan", r"expected finite vectors"),
    ],
)
def test_a_faulty_worker_is_an_error(
    fault: str, message: str, tiny: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(PeerError, match=message):
        train(tiny, tmp_path, fault=fault)


def test_peak_memory_is_not_that_of_the_process_that_measures(tmp_path: Path) -> None:
    usage = run_measured([sys.executable, "-c", "x = b'1' * 2**26"], folder=tmp_path)
    assert 2**26 / 2**30 < usage.peak_gib < 0.2  # this process has TensorFlow loaded


def test_variables_reach_the_command(tmp_path: Path) -> None:
    program = "import os, sys; sys.exit(os.environ['SOME_CODE'])"
    with pytest.raises(PeerError, match="it did"):
        run_measured(
            [sys.executable, "-c", program], folder=tmp_path, variables={"SOME_CODE": "it did"}
        )


def test_workers_import_neither_this_product_nor_its_benchmarks() -> None:
    for path in sorted((ROOT / "benchmarks" / "peers" / "workers").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in {"towers", "serving", "pipelines"}, path
                if name.startswith("benchmarks"):
                    assert name == "benchmarks.peers.workers.contract", path


@pytest.mark.parametrize("peer", PEERS.values(), ids=list(PEERS))
def test_every_peer_has_a_worker_and_pinned_requirements(peer: Peer) -> None:
    assert (ROOT / f"{peer.worker.replace('.', '/')}.py").exists()
    lines = (REQUIREMENTS / f"{peer.environment}.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.+!]+", pin)] == []


# results


@pytest.mark.parametrize("cost", [result().cost, None])
def test_a_result_is_read_as_it_was_saved(cost: Cost | None, tmp_path: Path) -> None:
    saved = result(cost=cost, epochs=[{"epoch": 1.0, "seconds": 2.5}])
    saved.save(tmp_path)
    assert load_result(tmp_path, "tiny", row="implicit-als") == saved
    assert load_result(tmp_path, "tiny", row="implicit-bpr") is None


def test_a_damaged_result_is_an_error(tmp_path: Path) -> None:
    result().save(tmp_path)
    path = result_path(tmp_path, "tiny", row="implicit-als")
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(raw | {"machine": 3}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"implicit-als\.json[\s\S]*machine"):
        load_result(tmp_path, "tiny", row="implicit-als")


def test_a_result_of_other_settings_is_out_of_date(tiny: DataSet, tmp_path: Path) -> None:
    settings = PEERS["implicit-als"].settings_for("tiny")
    result(settings=settings).save(tmp_path / "results")
    assert bench(tmp_path).current(tiny, "implicit-als") is not None
    result(settings=settings | {"alpha": -1.0}).save(tmp_path / "results")
    assert bench(tmp_path).current(tiny, "implicit-als") is None


# the command


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the command build and write in a folder of the test; the page that it writes."""
    path = tmp_path / "benchmarks.md"
    path.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    monkeypatch.setattr(command, "BUILD", tmp_path / "build")
    monkeypatch.setattr(command, "PAGE", path)
    return path


def test_command_runs_a_row_and_writes_the_table(
    tiny: DataSet, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--data", str(tiny.path), "--row", POPULARITY]) == 0
    assert command.main(["--data", str(tiny.path), "--table"]) == 0
    out = capsys.readouterr().out
    assert "tiny implicit-als: no result yet" in out
    assert "| popularity | " in out
    assert "| popularity | " in page.read_text(encoding="utf-8")


def test_command_runs_what_has_no_result_unless_told_to_run_again(
    tiny: DataSet, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(Bench, "run", lambda self, data, row: ran.append(row))
    settings = PEERS["implicit-bpr"].settings_for("tiny")
    result(row="implicit-bpr", settings=settings).save(command.BUILD / "results")
    command.main(["--data", str(tiny.path)])
    assert ran == [row for row in TITLES if row != "implicit-bpr"]
    ran.clear()
    command.main(["--data", str(tiny.path), "--again"])
    assert ran == list(TITLES)
    ran.clear()
    command.main(["--data", str(tiny.path), "--row", "implicit-bpr"])
    assert ran == ["implicit-bpr"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table"], "there are no results; run python -m benchmarks.peers first"),
        (["--data", "nothing", "--row", "popularity"], "nothing.toml: no such configuration file"),
    ],
)
def test_command_fails_with_one_clear_error(
    arguments: list[str], message: str, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().out


# this product


@pytest.mark.slow
def test_the_row_of_this_product_is_what_its_command_publishes(
    tiny: DataSet, tmp_path: Path
) -> None:
    ours = run_product(tiny, folder=tmp_path / "ours")
    manifest = json.loads(
        (tmp_path / "ours" / "models" / "current" / "manifest.json").read_text(encoding="utf-8")
    )
    assert ours.evaluation == manifest["metrics"]
    assert [record["epoch"] for record in ours.epochs] == [0, 1]
    assert ours.cost is not None
    assert 0 < ours.cost.training_s < ours.cost.run_s
    assert ours.versions["tensorflow"]
    ours.save(tmp_path / "results")
    assert bench(tmp_path).current(tiny, PRODUCT) == ours
