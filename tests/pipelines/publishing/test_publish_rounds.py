from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import sparse

from pipelines.config import RunConfig, load_config
from pipelines.data.blocks import every_positive
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.left_out import LeftOut
from pipelines.progress import Advance, Reporter
from pipelines.results import Results
from pipelines.run import run
from pipelines.training import fit as fit_module
from pipelines.training.fit import FitState
from serving.retrieval.retriever import Retriever
from serving.version.embeddings import Embeddings
from serving.version.store import Store
from towers.features.schema import SIDES
from towers.typed import parse

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

Published = tuple[Path, Results]

CHANGING = ("rounds", "current_version", "promotion", "timings")
"""What changes from one round to the next."""


class Interrupting(Reporter):
    """Stops the run as Ctrl-C does where a report begins with `at`; remembers what it was told."""

    def __init__(self, at: str | None = None) -> None:
        super().__init__()
        self.at, self.lines = at, list[str]()

    def reach(self, point: str) -> None:
        if self.at is not None and point.startswith(self.at):
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.reach(text.strip())
        self.lines.append(text.strip())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.reach(name)
        with super().stage(name):
            yield

    @contextmanager
    def bar(self, name: str, total: int, *, unit: str | None = None) -> Iterator[Advance]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += 1
            self.reach(f"{name}: {done}")

        yield advance


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


POINTS: list[str | tuple[object, str, Callable[..., None]]] = [
    "split",
    "epoch 2 of 3: 1",
    (FitState, "save", interrupt),  # the third epoch has a checkpoint, but is not finished
    "export and index: 3",
    (Store, "activate", interrupt),  # version 1 is published, but not current
    "mine: 1",
    "version 2 is published",
]
"""Where the run is interrupted, in order."""


def test_each_version_holds_the_figures_of_all_rounds_so_far(published: Published) -> None:
    out, results = published
    for version in (1, 2):
        folder = out / "versions" / str(version)
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert found["rounds"] == results["rounds"][:version]
        assert {**found, **dict.fromkeys(CHANGING)} == {**results, **dict.fromkeys(CHANGING)}
        assert len(found["timings"]) < len(results["timings"])
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert page.lower().startswith("<!doctype html>")


def test_each_manifest_says_where_its_version_came_from(tiny: Tiny, published: Published) -> None:
    out, results = published
    first, second = (Store(out).open(version).manifest for version in (1, 2))
    assert (first.parent_version, first.mined) == (None, None)
    assert second.parent_version == 1
    assert second.mined == {"version": 1, "ranks": [2, 9], "queries": 60}
    for manifest, found in zip((first, second), results["rounds"], strict=True):
        assert manifest.metrics == found["evaluation"]
        kept = {name: manifest.config[name] for name in ("data", "user", "item")}
        schema = parse(RunConfig, kept, where="manifest").schema
        assert manifest.schema_fingerprint == schema.fingerprint()
        assert schema.item == tiny.config().schema.item
        assert manifest.config["training"]["negatives"]["mined_ranks"] == [2, 9]
        assert manifest.name == "tiny"


def test_only_later_rounds_train_on_mined_negatives(published: Published) -> None:
    for found in published[1]["rounds"]:
        for what in ("share of sampled negatives", "share of hardest negatives"):
            shares = found["sampling"][what]
            assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
            assert (shares["mined"] > 0) == (found["round"] > 0)


def test_a_versions_figures_are_those_of_its_own_vectors(
    tiny: Tiny, prepared: Prepared, published: Published
) -> None:
    out, results = published
    for found in results["rounds"]:
        retriever = Retriever.open(out, version=found["version"])
        users, items = retriever.catalogue("user"), retriever.catalogue("item")
        assert users.published.ids.to_numpy().tolist() == prepared.users["user_id"].tolist()
        assert items.published.ids.to_numpy().tolist() == prepared.items["item_id"].tolist()
        seen = every_positive(prepared.interactions("train", "validation"))
        test = every_positive(prepared.interactions("test"))
        expected = evaluate(
            (users.vectors @ items.vectors.T).__getitem__,
            train=seen,
            test=test,
            config=tiny.config().evaluation,
        )
        assert found["evaluation"] == expected.to_dict()
        np.testing.assert_array_equal(retriever.parts.seen.matrix.toarray(), seen.toarray() != 0)
        assert expected.metric("recall@5") > 2 * figure(results["baseline"], "recall@5")


def test_the_round_that_validates_best_is_current(published: Published) -> None:
    out, results = published
    best = [max(epoch["recall@5"] for epoch in found["epochs"]) for found in results["rounds"]]
    expected = 2 if best[1] >= best[0] else 1
    assert results["current_version"] == Store(out).current() == expected


@pytest.mark.usefixtures("no_graphs")
@pytest.mark.parametrize("leave_out", ["seen", "positives"])
def test_what_was_rated_low_is_seen_and_left_out_of_figures_if_asked(
    tiny: Tiny, tmp_path: Path, leave_out: str
) -> None:
    out, given = tmp_path / "models", tiny.tables["interactions"]
    rated = given.assign(stars=np.where(np.arange(len(given)) % 3, 5, 1))
    config = tiny.config(
        data={"interactions": {"rating": "stars", "positive_rating": 4.0}},
        training={"epochs": 1, "rounds": 0},
        evaluation={"leave_out": leave_out},
    )
    results = run(config, out, frames=dict(tiny.tables) | {"interactions": rated})
    retriever = Retriever.open(out)
    seen, ids = retriever.parts.seen, {side: retriever.catalogue(side).find for side in SIDES}
    n_train = results["data"]["counts"]["train"] + results["data"]["counts"]["validation"]
    assert seen.matrix.nnz == n_train
    last = rated["time"].max() + 1
    users, items = (ids[side](rated[f"{side}_id"].to_numpy()) for side in SIDES)
    chosen = np.zeros(seen.matrix.shape, dtype=np.int64)
    chosen[users, items] = np.where(rated["stars"] > 3, rated["time"], last)
    has = seen.matrix.toarray()
    cut = chosen[has].max()
    test = (chosen > cut) & (chosen < last)
    low = np.zeros_like(has)
    is_low = (rated["stars"] < 3) & (rated["time"] < cut)
    low[users[is_low], items[is_low]] = True
    assert seen.judged is not None
    assert (seen.judged.toarray() == low).all()
    vectors = {side: retriever.catalogue(side).vectors for side in SIDES}
    expected = evaluate(
        (vectors["user"] @ vectors["item"].T).__getitem__,
        train=seen.matrix,
        test=sparse.csr_array(test),
        left_out=LeftOut(sparse.csr_array(has | low if leave_out == "seen" else has)),
        config=config.evaluation,
    )
    assert results["rounds"][0]["evaluation"] == expected.to_dict()


@pytest.mark.usefixtures("no_graphs")
def test_a_round_that_validates_worse_is_published_but_not_current(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remaining = iter([0.0, 0.9, 0.0, 0.1])  # the start, and the epoch of each round

    class Scripted:
        def metric(self, name: str) -> float:
            return next(remaining)

    monkeypatch.setattr(fit_module, "evaluate", lambda *_, **__: Scripted())
    reporter, out = Interrupting(), tmp_path / "models"
    config = tiny.config(training={"epochs": 1, "refit_on_all": False})
    results = run(config, out, frames=tiny.tables, reporter=reporter)
    assert Store(out).versions() == [1, 2]
    assert results["current_version"] == Store(out).current() == 1
    assert (
        "version 2 is published, but not current: version 1 validates better; to switch: "
        f"fm-recall rollback {out} --to 2" in reporter.lines
    )
    n_train = results["data"]["counts"]["train"]
    assert Retriever.open(out).parts.seen.matrix.nnz == n_train  # the model was not refitted
    assert sum(line.startswith("epoch") for line in reporter.lines) == 2


@pytest.mark.usefixtures("towers_alone")
def test_a_run_interrupted_anywhere_ends_as_if_it_had_not_been(
    tiny: Tiny, published: Published, tmp_path: Path
) -> None:
    out, lines, seen = tmp_path / "models", list[str](), dict[int, dict[str, str]]()
    for point in POINTS:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            reporter = Interrupting(point if isinstance(point, str) else None)
            if not isinstance(point, str):
                patch.setattr(*point)
            run(tiny.config(), out, frames=tiny.tables, reporter=reporter)
        lines += reporter.lines
        for version in Store(out).versions():
            found = tiny.digest(out / "versions" / str(version))
            assert seen.setdefault(version, found) == found
    reporter = Interrupting()
    results = run(tiny.config(), out, frames=tiny.tables, reporter=reporter)
    lines += reporter.lines

    expected_at, expected = published
    assert seen == {v: tiny.digest(out / "versions" / str(v)) for v in Store(out).versions()}
    assert figures(results) == figures(expected)
    assert tiny.left_over(out) == []
    assert_same_vectors(out, expected_at)
    n_epochs = sum(trained_epochs(found) for found in expected["rounds"])
    assert sum(line.startswith("epoch") for line in lines) == n_epochs  # none was run again


@pytest.mark.usefixtures("towers_alone")
def test_a_killed_run_ends_as_if_it_had_not_been(
    tiny: Tiny, published: Published, tmp_path: Path
) -> None:
    config, out = tiny.write(tmp_path), tmp_path / "models"
    kill_when((out / ".staging-1" / "models").exists, config, out)
    assert Store(out).versions() == []
    assert any(out.glob(".staging-*"))
    reporter = Interrupting()
    run(load_config(config), out, reporter=reporter)

    second = published[1]["rounds"][1]
    n_epochs = trained_epochs(second)
    assert sum(line.startswith("epoch") for line in reporter.lines) == n_epochs  # none of round 0
    assert_same_vectors(out, published[0])
    assert tiny.left_over(out) == []


def kill_when(is_time: Callable[[], bool], config: Path, out: Path) -> None:
    """Start a run in a process of its own, and kill it once it has come so far."""
    command = ["-c", "from pipelines.cli.main import main; main()", "run", str(config), "--out"]
    with subprocess.Popen(
        [sys.executable, *command, str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        while not is_time():
            assert process.poll() is None, process.communicate()[0].decode()
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def assert_same_vectors(root: Path, expected: Path) -> None:
    for version in (1, 2):
        for name in ("users", "items"):
            got, wanted = (
                Embeddings.read(models / "versions" / str(version) / f"{name}.parquet").vectors
                for models in (root, expected)
            )
            np.testing.assert_array_equal(got, wanted)


def figures(results: Results) -> dict[str, Any]:
    """Everything that does not depend on the time."""
    plain = json.loads(json.dumps(results))
    del plain["created"], plain["timings"]
    for found in plain["rounds"]:
        del found["index"]  # its lines say how many queries a second were answered
        del found["index_costs"]  # which count the bytes of the SavedModels that are there
        for epoch in found["epochs"]:
            del epoch["seconds"]
    return plain  # type: ignore[no-any-return]


def figure(evaluation: Any, name: str) -> float:
    return float(evaluation["segments"]["all"]["figures"][name])


def trained_epochs(found: Any) -> int:
    """Those with validation held out, and those of the model that is published."""
    figures = [epoch["recall@5"] for epoch in found["epochs"]]
    return len(figures) - 1 + int(np.argmax(figures))
