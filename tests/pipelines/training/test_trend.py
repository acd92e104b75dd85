"""The trend of items from the tables to what is served and refreshed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipelines.data.engines import Plan
from pipelines.data.recent import trend_values
from pipelines.publishing.refresh import refresh
from pipelines.results import Results, baselines
from pipelines.run import run
from serving.retrieval.retriever import Retriever
from serving.version.recent import Recent
from serving.version.store import Store
from tests.made_once import made_once
from tests.without_graphs import TOWERS, without_graphs
from towers.errors import BundleError, ConfigError, DataError
from towers.features.schema import SIDES

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

pytestmark = pytest.mark.slow

N_HOT = 8
SETTINGS: dict[str, Any] = {
    "training": {"rounds": 0},
    "item": {
        "features": [
            {"kind": "categorical", "column": "item_id"},
            {"kind": "multi_valued", "column": "tags"},
            {"kind": "trend"},
        ]
    },
}


def tables_of(tiny: Tiny) -> Mapping[str, pd.DataFrame]:
    """The first items are chosen in the last third of the time alone."""
    interactions, items = tiny.tables["interactions"], tiny.tables["items"]["item_id"]
    rng = np.random.default_rng(2)
    is_hot = interactions["item_id"].isin(items[:N_HOT])
    at = rng.random(len(interactions))
    times = np.where(is_hot, 0.7 + 0.3 * at, at)
    return dict(tiny.tables) | {"interactions": interactions.assign(time=times * 1e6)}


@pytest.fixture
def world(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """A models directory whose items have a trend. For reading only."""

    def make(folder: Path) -> None:
        with without_graphs(but=(*TOWERS, "u2i", "i2u")):
            results = run(tiny.config(**SETTINGS), folder / "models", frames=tables_of(tiny))
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")

    folder = made_once(tmp_path_factory, "trend", make)
    return folder / "models", json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture
def copied(world: tuple[Path, Results], tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(world[0], tmp_path / "models", symlinks=True))


def kept(tiny: Tiny) -> pd.DataFrame:
    """The interactions that the version was trained on."""
    frame = tables_of(tiny)["interactions"].sort_values("time", ignore_index=True)
    return frame.iloc[: round(len(frame) * 0.8)]


def trends(retriever: Retriever) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = retriever.parts.items.column("trend").to_numpy()
    return values


def weight_of(retriever: Retriever) -> float:
    """What a trend of 1 adds to an item's bias, by its tower."""
    tower = retriever.tower("item")
    packed = tower.pack({"trend": [1.0, None]}, size=2)
    vectors = tower(packed)
    assert np.array_equal(vectors[0, 1:], vectors[1, 1:])  # no vector of its own
    return float(vectors[0, 0] - vectors[1, 0])


def test_validation_gives_a_rising_item_a_higher_bias(world: tuple[Path, Results]) -> None:
    retriever = Retriever.open(world[0])
    values = trends(retriever)
    assert values[:N_HOT].min() > values[N_HOT:].mean()
    assert weight_of(retriever) > 0.001


def test_popularity_of_late_is_a_baseline_beside_that_of_all_time(
    world: tuple[Path, Results],
) -> None:
    found = baselines(world[1])
    late, ever = (
        found[name]["segments"]["all"]["figures"]["recall@5"]
        for name in ("popularity of late", "popularity")
    )
    assert late > ever


def test_counts_and_trend_are_as_of_the_end_of_training(
    tiny: Tiny, world: tuple[Path, Results]
) -> None:
    retriever = Retriever.open(world[0])
    recent, rows = retriever.parts.recent, kept(tiny)
    assert recent.trend_window is not None
    ids = retriever.parts.items.column("item_id").to_pylist()

    def counted(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.array(frame["item_id"].value_counts().reindex(ids, fill_value=0))

    assert recent.until == rows["time"].max()
    latest = rows[rows["time"] > recent.until - recent.window]
    assert np.array_equal(recent.counts, counted(latest))
    latest = rows[rows["time"] > recent.until - recent.trend_window]
    assert np.array_equal(trends(retriever), trend_values(counted(latest), counted(rows)))


def test_a_score_is_explained_with_a_line_for_the_trend(world: tuple[Path, Results]) -> None:
    retriever = Retriever.open(world[0])
    user, item = 2**40, "item 1 é"
    weight = weight_of(retriever)
    for direction, source, target in (("u2i", user, item), ("i2u", item, user)):
        found = retriever.explain(direction, source={"id": source}, target={"id": target})
        assert sum(part.value for part in found.parts()) == pytest.approx(found.score, abs=1e-5)
        end = "target" if direction == "u2i" else "source"
        (line,) = [
            part
            for part in found.fields
            if "trend" in (part.source, part.target) and part.kind == "first_order"
        ]
        assert getattr(line, end) == "trend"
        assert line.value == pytest.approx(weight * trends(retriever)[1], rel=1e-3)


def test_the_saved_models_count_it(world: tuple[Path, Results]) -> None:
    retriever = Retriever.open(world[0])
    vectors = retriever.parts.items.vectors
    tower = retriever.tower("item")
    table = retriever.parts.items.table.to_pandas()
    packed = tower.pack({name: table[name] for name in ("item_id", "tags", "trend")}, size=40)
    assert tower(packed) == pytest.approx(vectors, abs=1e-5)
    user = retriever.tower("user").pack({"city": ["Oslo"]}, size=1)
    expected = retriever.retrieve("u2i", features={"city": "Oslo"}, k=5)
    model = tf.saved_model.load(str(retriever.bundle.model("u2i")))
    asked = {name: tf.constant(values) for name, values in user.items()}
    found = model.signatures["serving_default"](**asked)
    assert [one.decode() for one in found["ids"].numpy()[0]] == list(expected["id"])
    model = tf.saved_model.load(str(retriever.bundle.model("i2u")))
    given = [{name: tf.constant(packed[name][:1]) for name in packed} for _ in range(2)]
    given[1]["trend"] = given[0]["trend"] + 1.0
    scores = [model.signatures["serving_default"](**one)["scores"].numpy() for one in given]
    assert scores[1] - scores[0] == pytest.approx(weight_of(retriever), abs=1e-5)


def test_a_fresh_item_brings_its_trend_or_has_none(world: tuple[Path, Results]) -> None:
    retriever = Retriever.open(world[0])
    records: list[dict[str, Any]] = [
        {"item_id": "usual", "tags": ["group 1"]},
        {"item_id": "rising", "tags": ["group 1"], "trend": 2.0},
    ]
    retriever.apply(retriever.change("item", upsert=records))
    hits = retriever.retrieve("u2i", id=2**40, k=100).set_index("id")["score"]
    assert hits["rising"] - hits["usual"] == pytest.approx(2 * weight_of(retriever), abs=1e-5)


def test_refreshed_by_what_it_was_trained_on_a_version_stays_as_it_is(
    tiny: Tiny, copied: Path, towers_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was prepared in memory; what refreshes it is on disk, in many chunks and blocks."""
    plan = Plan(engine="disk", rows=50)
    monkeypatch.setattr("pipelines.publishing.refresh.choose_engine", lambda *_, **__: plan)
    before = Retriever.open(copied)
    assert refresh(copied, kept(tiny)) == before.version + 1
    after = Retriever.open(copied)
    assert after.version == before.version + 1  # current, as the other was
    assert np.array_equal(trends(after), trends(before))
    for side in SIDES:
        assert np.array_equal(after.catalogue(side).vectors, before.catalogue(side).vectors)
    assert after.bundle.manifest.parent_version == before.version


def test_a_refresh_moves_biases_alone_by_what_came_since(
    tiny: Tiny, copied: Path, towers_alone: None
) -> None:
    before = Retriever.open(copied)
    cold = "item 30 é"
    later = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(40) + 2**40, 2),
            "item_id": [cold, "not there yet"] * 40,
            "time": 2e6 + np.arange(80),
        }
    )
    path = copied.parent / "later.parquet"
    later.to_parquet(path)
    number = refresh(copied, path, version=before.version)
    after = Retriever.open(copied, version=number)
    old, new = (one.parts.items.vectors for one in (before, after))
    assert np.array_equal(old[:, 1:], new[:, 1:])
    assert np.array_equal(before.parts.users.vectors, after.parts.users.vectors)
    row = int(after.catalogue("item").rows([cold])[0])
    change = trends(after) - trends(before)
    assert np.argmax(trends(after)) == row
    assert new[:, 0] - old[:, 0] == pytest.approx(weight_of(before) * change, abs=1e-5)
    assert np.argmax(after.parts.recent.counts) == row
    hits = after.retrieve("u2i", id=2**40, k=40)
    explained = after.explain("u2i", source={"id": 2**40}, target={"id": cold})
    assert explained.score == pytest.approx(hits.set_index("id")["score"][cold], abs=1e-5)


def test_what_cannot_be_refreshed_is_refused(tiny: Tiny, copied: Path) -> None:
    numbers = kept(tiny).assign(item_id=lambda frame: frame.index % 7)
    with pytest.raises(DataError, match="expected text, as in version 1, received integers"):
        refresh(copied, numbers)
    with pytest.raises(ConfigError, match="time"):
        refresh(copied, kept(tiny).drop(columns="time"))
    recent = Store(copied).open().recent
    recent.unlink()
    with pytest.raises(BundleError, match=r"recent\.parquet"):
        Recent.read(recent)
    assert Store(copied).versions() == [1]


def test_without_what_is_held_out_by_time_it_counts_for_nothing(
    tiny: Tiny, tmp_path: Path, no_graphs: None
) -> None:
    settings = SETTINGS | {"training": {"epochs": 1, "rounds": 0, "refit_on_all": False}}
    config = tiny.config(**settings, split={"by": "random"})
    results = run(config, tmp_path / "models", frames=tables_of(tiny))
    assert "recent_baseline" not in results
    retriever = Retriever.open(tmp_path / "models")
    trend = retriever.parts.items.column("trend")
    assert trend.null_count == len(trend)
    assert not retriever.bundle.recent.exists()


def test_a_current_version_is_compared_with_its_trend(
    tiny: Tiny, copied: Path, towers_alone: None
) -> None:
    """Trained once more on the same tables, a version is as good as itself."""
    results = run(tiny.config(**SETTINGS), copied, frames=tables_of(tiny))
    verdict = results["promotion"]
    assert verdict["compared_with"] == 1
    assert verdict["new"] == pytest.approx(verdict["current"], abs=1e-6)
