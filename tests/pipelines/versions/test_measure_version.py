from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from pipelines.results import Results
from pipelines.versions.measure_version import Measured, measure_version
from serving.retrieval.retriever import Retriever
from serving.version.seen import read_pairs
from serving.version.store import Store
from towers.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call


@pytest.fixture(scope="module")
def held_out(published: tuple[Path, Results]) -> pd.DataFrame:
    """What the versions were measured by, as a table of interactions."""
    bundle = Store(published[0]).open(2)
    retriever = Retriever.open(published[0], version=2)
    ids = {s: retriever.catalogue(s).published.ids.to_numpy() for s in ("user", "item")}
    shape = (len(ids["user"]), len(ids["item"]))
    [(users, items)] = read_pairs(bundle.held_out, shape=shape)
    return pd.DataFrame({"user_id": ids["user"][users], "item_id": ids["item"][items]})


@pytest.fixture(scope="module")
def both(published: tuple[Path, Results], held_out: pd.DataFrame) -> Measured:
    return measure_version(published[0], held_out, version=2, against=1)


def test_figures_on_what_was_held_out_are_those_of_the_run(
    both: Measured, published: tuple[Path, Results]
) -> None:
    results = published[1]
    recorded: dict[str, Any] = {
        f"version {r['version']}": r["evaluation"] for r in results["rounds"]
    }
    recorded["popularity"] = results["baseline"]
    assert set(both.evaluations) == set(recorded) == {"popularity", "version 1", "version 2"}
    for name, found in both.evaluations.items():
        for segment, expected in recorded[name]["segments"].items():
            received = found.segments[segment]
            assert received.n_users == expected["n_users"]
            assert received.n_positives == expected["n_positives"]
            assert received.figures == pytest.approx(expected["figures"], abs=1e-9), segment


def test_differences_are_paired_over_the_users(both: Measured) -> None:
    first, second = (both.evaluations[f"version {v}"] for v in (2, 1))
    whole = {each.metric: each for each in both.differences if each.segment == "all"}
    assert set(whole) == {
        f"{name}@{k}"
        for name in ("recall", "ndcg", "hit_rate", "mrr", "popularity")
        for k in (5, 20)
    }
    for metric, each in whole.items():
        expected = first.metric(metric) - second.metric(metric)
        assert each.value == pytest.approx(expected, abs=1e-9)
        assert each.low <= each.value <= each.high
        assert each.n_users == first.segments["all"].n_users
    assert {each.segment for each in both.differences} == {
        name for name, segment in first.segments.items() if segment.n_users
    }


def test_strangers_and_what_was_trained_on_are_counted(
    models: Path, held_out: pd.DataFrame
) -> None:
    retriever = Retriever.open(models)
    user = int(retriever.catalogue("user").published.ids.to_numpy()[0])
    item = retriever.catalogue("item").ids(retriever.parts.seen.of("user", 0)[:1])[0]
    extra = pd.DataFrame(
        {"user_id": [5, user, user], "item_id": ["item 0 é", "no such item", item]}
    )
    table = pd.concat([held_out, extra, extra], ignore_index=True)
    found = measure_version(models, table, k=[3])
    n = len(held_out)
    assert dict(found.counts) == {
        "rows": n + 6,
        "rejected": 0,
        "not positive": 0,
        "of unknown items": 1,
        "trained on": 1,
        "unknown users": 1,
        "users": held_out["user_id"].nunique() + 1,
        "positives": n + 1,
    }
    assert found.metric == "recall@3"
    measured = found.evaluations[f"version {retriever.version}"]
    assert measured.segments["cold_users"].n_users >= 1
    everything = measure_version(models, table, exclude_seen=False)
    assert everything.counts["trained on"] == 0
    assert everything.counts["positives"] == n + 2


def test_only_what_was_trained_on_is_refused(models: Path) -> None:
    retriever = Retriever.open(models)
    user = int(retriever.catalogue("user").published.ids.to_numpy()[0])
    items = retriever.catalogue("item").ids(retriever.parts.seen.of("user", 0))
    with pytest.raises(DataError, match=r"\d+ were trained on; give later interactions"):
        measure_version(models, pd.DataFrame({"user_id": user, "item_id": items}))
    table = pd.DataFrame({"user_id": [user], "item_id": items[:1]})
    with pytest.raises(ConfigError, match="cut-offs of at least 1"):
        measure_version(models, table, k=[0])
    with pytest.raises(ConfigError, match="another version than 1"):
        measure_version(models, table, version=1, against=1)


def test_command_prints_json_csv_or_tables(
    call: Call, models: Path, held_out: pd.DataFrame, both: Measured, tmp_path: Path
) -> None:
    table = tmp_path / "later.csv"
    held_out.to_csv(table, index=False, sep=";")
    asked = ["evaluate", models, "--on", table, "--version", 2, "--against", 1]
    refused = call(*asked)
    assert refused.code == 2
    assert "user_id" in refused.err
    csv = tmp_path / "figures.csv"
    answer = call(*asked, "--separator", ";", "--csv", csv, "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == json.loads(json.dumps(both.to_dict()))
    frame = pd.read_csv(csv)
    row = frame[(frame["segment"] == "all") & (frame["metric"] == "recall@5")].iloc[0]
    assert row["version 2"] - row["version 1"] == pytest.approx(row["difference"])
    assert np.isnan(frame[frame["metric"] == "coverage@5"]["difference"]).all()
    shown = call(*asked, "--separator", ";")
    assert "Version 2 minus version 1" in shown.out
    assert f"{both.evaluations['version 2'].metric('recall@5'):.4f}" in shown.out
