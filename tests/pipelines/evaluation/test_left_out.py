"""An item that is not there yet when a user asks takes no place, wherever scores are measured."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import sparse

from pipelines.config import EvaluationConfig, RunConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared, prepare
from pipelines.evaluation.evaluate import evaluate, user_figures
from pipelines.evaluation.left_out import LeftOut, NotYet
from pipelines.progress import Reporter
from pipelines.run import run
from pipelines.training.choose_start import choose_start, settled
from pipelines.training.fit import Fit, fit
from pipelines.training.initialize import start_vectors
from pipelines.training.not_yet import not_yet
from pipelines.versions.measure_version import measure_version
from serving.retrieval.retriever import Retriever
from serving.version.seen import read_pairs

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

DATED = {"data": {"items": {"available_from": "out"}}}


@pytest.mark.parametrize(("asked", "place"), [(4.0, 1), (5.0, 2), (8.9, 2), (np.inf, 3)])
def test_what_is_not_there_yet_takes_no_place(asked: float, place: int) -> None:
    """The later an item comes, the higher it scores; the second user wants item 1."""
    there = np.array([-np.inf, 0.0, 5.0, 9.0])
    scores = np.tile(np.arange(4, dtype=np.float32), (2, 1))
    test = sparse.csr_array(([1], ([1], [1])), shape=(2, 4))
    nothing = sparse.csr_array((2, 4), dtype=np.int64)
    left_out = LeftOut(nothing, NotYet(there=there, asked=np.array([0.0, asked])))
    config = EvaluationConfig(k=(3,), metric="mrr@3")
    found = evaluate(scores.__getitem__, train=nothing, test=test, config=config, left_out=left_out)
    figures = [found.metric("mrr@3", segment) for segment in ("all", "new_items_alone")]
    figures += list(user_figures(scores.__getitem__, test=test, left_out=left_out, metric="mrr@3"))
    assert figures == pytest.approx([1 / place] * 3)
    again = left_out.take(np.array([1, 0, 1])).not_yet
    assert again is not None
    assert again.asked.tolist() == [asked, 0.0, asked]


@pytest.fixture(scope="module")
def frames(tiny: Tiny) -> dict[str, pd.DataFrame]:
    """The tiny world with items that nobody has chosen, and dates: of some items, late and early.

    An item whose date is after its first interaction was there by then.
    """
    times, items = tiny.tables["interactions"]["time"], tiny.tables["items"]
    rng = np.random.default_rng(0)
    fresh = items.sample(20, random_state=0).assign(item_id=[f"fresh {n}" for n in range(20)])
    late = rng.uniform(times.quantile(0.75), times.max() + 10, 20)
    wrong = np.where(np.arange(len(items)) % 2, np.nan, times.max() + 1)
    return dict(tiny.tables) | {
        "items": pd.concat([items.assign(out=wrong), fresh.assign(out=late)], ignore_index=True)
    }


def test_a_part_by_time_tells_what_is_not_there_yet(
    tiny: Tiny, frames: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    def read(**changes: Any) -> tuple[Prepared, RunConfig]:
        config = tiny.config(**DATED | changes)
        folder = tmp_path / f"prepared-{len(list(tmp_path.iterdir()))}"
        return prepare(config, folder, frames=frames), config

    prepared, config = read()
    rows, out = prepared.frame("train", "validation", "test"), frames["items"]["out"]
    for part in ("validation", "test"):
        found = not_yet(prepared, part, config=config)
        assert found is not None
        first = rows.groupby("item_id")["timestamp"].min().reindex(prepared.items["item_id"])
        expected = np.where(out.isna(), -np.inf, np.fmin(first.to_numpy(), out))
        np.testing.assert_array_equal(found.there, expected)
        last = prepared.frame(part).groupby("user_id")["timestamp"].max()
        expected = last.reindex(prepared.users["user_id"]).fillna(np.inf).to_numpy()
        np.testing.assert_array_equal(found.asked, expected)
    for changes in ({"evaluation": {"items": "all"}}, {"split": {"by": "random"}}):
        prepared, config = read(**changes)
        assert not_yet(prepared, "test", config=config) is None


def test_what_validation_decides_knows_what_is_not_there_yet(
    tiny: Tiny, prepared: Prepared, dataset: Dataset, tmp_path: Path
) -> None:
    """Of items that come when all is over, nobody finds one."""
    validation, config = every_positive(prepared.interactions("validation")), tiny.config()
    hidden = NotYet(there=np.full(40, 1.0), asked=np.zeros(60))
    job = Fit(
        dataset=dataset,
        config=config,
        epochs=0,
        mined=None,
        validation=validation,
        not_yet=hidden,
        directory=tmp_path / "fit",
        logs=tmp_path / "logs",
    )
    assert fit(job, Reporter()).records[0]["recall@5"] == 0.0
    said = io.StringIO()
    choose_start(
        settled(config),
        dataset,
        spectral=start_vectors(dataset, config),
        validation=validation,
        not_yet=hidden,
        reporter=Reporter(Console(file=said, width=200)),
    )
    assert "untrained recall@5 0.0000" in said.getvalue()


@pytest.mark.slow
@pytest.mark.usefixtures("no_graphs")
def test_figures_of_a_run_and_of_its_version_leave_out_what_is_not_there_yet(
    tiny: Tiny, frames: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    config = tiny.config(**DATED, training={"epochs": 0, "rounds": 0, "cold_items": 0.5})
    results = run(config, tmp_path, frames=frames)
    recorded = results["rounds"][0]["evaluation"]
    retriever = Retriever.open(tmp_path)
    users, items = retriever.catalogue("user"), retriever.catalogue("item")
    [pairs] = read_pairs(retriever.bundle.held_out, shape=(users.size, items.size))
    ids = {"user_id": users.published.ids.to_numpy()[pairs[0]]}
    ids["item_id"] = items.published.ids.to_numpy()[pairs[1]]
    times = frames["interactions"][["user_id", "item_id", "time"]]
    held_out = pd.DataFrame(ids).merge(times)
    asked = held_out.groupby("user_id")["time"].max().reindex(users.published.ids.to_numpy())
    first = times.groupby("item_id")["time"].min().reindex(frames["items"]["item_id"]).to_numpy()
    out = frames["items"]["out"].to_numpy()
    missing = ~np.isnan(out) & (np.fmin(out, first) > asked.to_numpy()[:, np.newaxis])
    scores = users.vectors @ items.vectors.T
    seen = retriever.parts.seen.matrix
    test = sparse.csr_array((np.ones(len(pairs[0])), pairs), shape=scores.shape)
    figures = [
        evaluate(one.__getitem__, train=seen, test=test, config=config.evaluation).to_dict()
        for one in (np.where(missing, np.float32(-np.inf), scores), scores)
    ]
    assert recorded == figures[0]
    assert recorded != figures[1]
    of_version = f"version {retriever.version}"
    again = measure_version(tmp_path, held_out)
    received = again.evaluations[of_version].segments["all"].figures
    assert received == pytest.approx(figures[0]["segments"]["all"]["figures"])
    (line,) = again.notes
    assert line in results["data"]["lines"]
    n_missing = missing[asked.notna()].any(axis=0).sum()
    assert line.startswith(f"evaluation: {n_missing} of 60 items are not there yet")
    timeless = measure_version(tmp_path, held_out.drop(columns="time"))
    assert not timeless.notes
    received = timeless.evaluations[of_version].segments["all"].figures
    assert received == pytest.approx(figures[1]["segments"]["all"]["figures"])
