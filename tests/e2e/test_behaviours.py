"""A table of events from its rows to answers: histories, what is seen, and what is turned down."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from pipelines.candidates.answer import CandidateTable
from pipelines.candidates.settings import load_settings
from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.ranking.rank import rank
from pipelines.run import run
from serving.retrieval.retriever import Retriever
from tests.made_once import made_once
from tests.serving.server.api_support import running_api
from tests.without_graphs import TOWERS, without_graphs
from towers.errors import QueryError
from towers.typed import parse

pytestmark = pytest.mark.slow

N_USERS, N_ITEMS = 30, 40
NAMES = {"history": ["buy"], "views": ["view"], "carts": ["cart"]}
CONFIG: dict[str, Any] = {
    "data": {
        "interactions": {"event": "did", "timestamp": "at"},
        "behaviours": {
            "buy": {"role": "target"},
            "view": {"seen": False},
            "cart": {},
            "hide": {"role": "negative"},
        },
        "items": {"id": "item_id"},
    },
    "user": {
        "features": [
            {"kind": "history"},
            {"kind": "history", "column": "views", "behaviours": ["view"]},
            {"kind": "history", "column": "carts", "behaviours": ["cart"], "vectors": "own"},
        ]
    },
    "item": {
        "features": [
            {"kind": "categorical", "column": "item_id"},
            {"kind": "categorical", "column": "kind"},
        ]
    },
    "context": {
        "features": [
            {"kind": "categorical", "column": "hour"},
            {"kind": "numeric", "column": "warmth", "scale": "none"},
        ]
    },
    "model": {"embedding_dim": 8},
    "split": {"test_fraction": 0.2, "validation_fraction": 0.0},
    "training": {"epochs": 1, "rounds": 0, "negatives": {"uniform": 8}},
    "evaluation": {"k": [5], "metric": "recall@5"},
    "index": {"kind": "exact"},
    "export": {"k": 5},
}


def make_events() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (user, f"item {item}", did)
        for user in range(N_USERS)
        for item in range(N_ITEMS)
        for did, share in (("buy", 0.3), ("view", 0.3), ("cart", 0.2), ("hide", 0.1))
        if rng.random() < share
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "did"])
    return frame.assign(
        at=rng.permutation(len(frame)).astype(float),
        hour=rng.choice([7, 12, 20], len(frame)),
        warmth=np.where(rng.random(len(frame)) < 0.5, np.nan, rng.normal(size=len(frame)).round(1)),
    )


EVENTS = make_events()
ITEMS = pd.DataFrame(
    {
        "item_id": [f"item {item}" for item in range(N_ITEMS)],
        "kind": ["red", "blue"] * (N_ITEMS // 2),
    }
)


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    config = parse(RunConfig, CONFIG, where="test")

    def make(folder: Path) -> None:
        with without_graphs(but=TOWERS):
            run(config, folder / "models", frames={"interactions": EVENTS, "items": ITEMS})

    folder = made_once(tmp_path_factory, "behaviours", make)
    return Retriever.open(folder / "models")


def known(did: str, user: int) -> list[str]:
    """What a user had done before the test part, from old to new."""
    bought = EVENTS[EVENTS["did"] == "buy"].sort_values("at")
    cut = bought["at"].iloc[round(len(bought) * 0.8)]
    mine = EVENTS[(EVENTS["user_id"] == user) & (EVENTS["did"] == did) & (EVENTS["at"] < cut)]
    items: list[str] = mine.sort_values("at")["item_id"].tolist()
    return items


def features(user: int) -> dict[str, list[str]]:
    return {name: known(did, user) for name, (did,) in NAMES.items()}


@pytest.mark.parametrize("user", [0, 7, 23])
def test_a_user_is_what_its_histories_say(retriever: Retriever, user: int) -> None:
    by_id = retriever.retrieve("u2i", id=user, k=N_ITEMS)
    described = retriever.retrieve("u2i", features=features(user), k=N_ITEMS)
    assert by_id["id"].tolist() == described["id"].tolist()
    np.testing.assert_allclose(by_id["score"], described["score"], rtol=1e-4, atol=1e-5)
    for name in NAMES:
        fewer = features(user) | {name: []}
        other = retriever.retrieve("u2i", features=fewer, k=N_ITEMS)
        assert not np.allclose(np.sort(by_id["score"]), np.sort(other["score"]), rtol=1e-3)


def test_a_context_comes_with_the_request(retriever: Retriever) -> None:
    moment = {"hour": 12, "warmth": 0.7}
    plain = retriever.retrieve("u2i", id=3, k=N_ITEMS, exclude_seen=True)
    asked = retriever.retrieve("u2i", id=3, features=moment, k=N_ITEMS, exclude_seen=True)
    described = retriever.retrieve("u2i", features=features(3) | moment, k=N_ITEMS)
    assert set(asked["id"]) == set(plain["id"])
    assert not np.allclose(np.sort(asked["score"]), np.sort(plain["score"]), rtol=1e-3)
    found = described.set_index("id")["score"].loc[asked["id"]]
    np.testing.assert_allclose(asked["score"], found, rtol=1e-4, atol=1e-5)
    text = retriever.retrieve("u2i", id=3, features=moment | {"hour": "12"}, k=N_ITEMS)
    np.testing.assert_allclose(text["score"], described["score"], rtol=1e-4, atol=1e-5)
    best = described["id"].iloc[0]
    source = {"features": features(3) | moment}
    explained = retriever.explain("u2i", source=source, target={"id": best})
    assert explained.score == pytest.approx(float(described["score"].iloc[0]), rel=1e-4, abs=1e-5)
    assert {"hour", "warmth"} <= {name.field for name in explained.source}
    for wrong in ({"hour": 12, "history": []}, {}):
        with pytest.raises(QueryError, match=r"received both; .* context \['hour', 'warmth'\]"):
            retriever.ask("u2i", ids=[3], features={name: [x] for name, x in wrong.items()})
    with pytest.raises(QueryError, match="received both"):
        retriever.ask("i2i", ids=["item 3"], features={"hour": [12]})


def test_the_figures_by_moment_are_those_of_requests(retriever: Retriever) -> None:
    bought = EVENTS[EVENTS["did"] == "buy"].sort_values("at")
    test = bought.iloc[round(len(bought) * 0.8) :].fillna({"warmth": "none"})
    recalls: dict[str, list[float]] = {"with context": [], "without context": []}
    key: Any
    for key, wanted in test.groupby(["user_id", "hour", "warmth"]):
        user, hour, warmth = key
        moment = {"hour": hour, "warmth": None if warmth == "none" else warmth}
        for name, asked in (("with context", moment), ("without context", None)):
            found = retriever.retrieve("u2i", id=user, features=asked, k=5, exclude_seen=True)
            recalls[name].append(len(set(found["id"]) & set(wanted["item_id"])) / len(wanted))
    figures = json.loads(retriever.bundle.metrics.read_text(encoding="utf-8"))
    by_moment = figures["rounds"][0]["by_moment"]
    assert by_moment == pytest.approx({name: np.mean(each) for name, each in recalls.items()})


def test_a_server_takes_the_context_beside_an_id_or_features(
    retriever: Retriever, tmp_path: Path
) -> None:
    moment = {"hour": 12, "warmth": 0.7}
    by_features = {"features": features(3), "context": moment}
    with running_api(retriever.bundle.path.parents[1], journal=tmp_path / "journal") as api:
        body = {"sources": [{"id": 3, "context": moment}, {"id": 3}, by_features], "k": 5}
        answers = api.post("/v1/retrieve/u2i/batch", body).json()["answers"]
        alone = api.post("/v1/retrieve/u2i", {"id": 3, "context": moment, "k": 5}).json()["results"]
    scores = [[result["score"] for result in answer] for answer in answers]
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-4, atol=1e-5)
    assert not np.allclose(scores[0], scores[1], rtol=1e-4)
    assert [result["id"] for result in alone] == [one["id"] for one in answers[0]]


def test_a_ranker_of_exposures_at_their_moments_answers_and_explains(
    retriever: Retriever, tmp_path: Path
) -> None:
    """Its examples are what was bought and what was turned down; a context changes its scores."""
    models = tmp_path / "models"
    shutil.copytree(retriever.bundle.path.parents[1], models, symlinks=True)
    settings = {
        "model": {"kind": "fwfm", "embedding_dim": 4},
        "crosses": [{"user": "hour", "item": "kind", "buckets": 20}],
        "candidates": N_ITEMS,
        "epochs": 2,
        "batch_size": 64,
    }
    config = parse(RunConfig, CONFIG | {"rank": settings}, where="test")
    frames = {"interactions": EVENTS, "items": ITEMS}
    said = io.StringIO()
    reporter = Reporter(Console(file=said, width=200))
    rank(config, models, frames=frames, promote="always", reporter=reporter)
    bought = EVENTS[EVENTS["did"] == "buy"].sort_values("at")
    late = EVENTS[EVENTS["at"] >= bought["at"].iloc[round(len(bought) * 0.8)]]
    n_shown = late["did"].isin(["buy", "hide"]).sum()
    told = re.search(r"([0-9,]+) examples", said.getvalue())
    assert told is not None and 0.4 * n_shown < int(told[1].replace(",", "")) < 0.8 * n_shown
    ranked = Retriever.open(models)
    moment = {"hour": 12, "warmth": 0.7}
    expected = ranked.recommend(id=3, features=moment, k=5)
    plain = ranked.recommend(id=3, k=5)
    assert not np.allclose(expected["score"], plain["score"], rtol=1e-4)
    with running_api(models, journal=tmp_path / "journal") as api:
        asked = {"id": 3, "context": moment}
        answer = api.post("/v1/recommend", asked | {"k": 5}).json()["results"]
        item = {"item": answer[0]["id"]}
        found = api.post("/v1/explain/rank", asked | item | {"limit": 4}).json()
        without = api.post("/v1/explain/rank", {"id": 3} | item).json()
        unknown = api.post("/v1/explain/rank", asked | {"item": "none"})
    assert [one["id"] for one in answer] == expected["id"].tolist()
    assert found["score"] == pytest.approx(answer[0]["score"], abs=1e-4)
    assert found["recall_score"] == pytest.approx(answer[0]["recall_score"], abs=1e-4)
    assert sum(part["value"] for part in found["parts"]) + found["rest"] == pytest.approx(
        found["score"], abs=1e-5
    )
    assert (len(found["parts"]), unknown.status_code) == (4, 404)
    whole = ranked.explain_rank(source={"id": 3, "features": moment}, item=item["item"])
    fields = {part.fields for part in whole.parts}
    assert {("hour",), ("warmth",), ("hour x kind",), ("views", "item_id")} <= fields
    assert not any("hour" in part["fields"] for part in without["parts"])


def test_scores_are_explained_by_every_history(retriever: Retriever) -> None:
    best = retriever.retrieve("u2i", id=3, k=1)
    for source in ({"id": 3}, {"features": features(3)}):
        found = retriever.explain("u2i", source=source, target={"id": best["id"].iloc[0]})
        assert found.score == pytest.approx(float(best["score"].iloc[0]), rel=1e-4, abs=1e-5)
        carts = {str(name.label) for name in found.source if name.field == "carts"}
        assert carts == set(known("cart", 3)) & set(EVENTS["item_id"])


@pytest.mark.parametrize("user", [0, 7])
def test_all_that_counts_as_seen_is_left_out(retriever: Retriever, user: int) -> None:
    every = {f"item {item}" for item in range(N_ITEMS)}
    seen = {item for did in ("buy", "cart", "hide") for item in known(did, user)}
    found = retriever.retrieve("u2i", id=user, k=N_ITEMS, exclude_seen=True)
    assert set(found["id"]) == every - seen
    given = features(user)
    found = retriever.retrieve("u2i", features=given, k=N_ITEMS, exclude_seen=True)
    assert set(found["id"]) == every - {*given["history"], *given["carts"]}
    assert set(given["views"]) & set(found["id"])  # what is only viewed is found again


def test_candidates_take_histories_by_name(retriever: Retriever) -> None:
    given = features(5)
    table = pa.table({"user_id": [5, 999], **{name: [x, x] for name, x in given.items()}})
    channels = [{"name": "u2i", "quota": N_ITEMS}]
    settings = load_settings(None, changes={"k": N_ITEMS, "channels": channels})
    answer = CandidateTable(retriever.parts, settings, schema=table.schema)
    frame = answer(table.select(answer.columns)).table.to_pandas()
    new = retriever.retrieve("u2i", features=given, k=N_ITEMS, exclude_seen=True)
    assert frame[frame["user_id"] == 999]["item_id"].tolist() == new["id"].tolist()
    old = retriever.retrieve("u2i", id=5, k=N_ITEMS, exclude_seen=True)
    assert frame[frame["user_id"] == 5]["item_id"].tolist() == old["id"].tolist()


def test_fresh_items_count_in_histories_that_share_vectors(retriever: Retriever) -> None:
    change = retriever.change("item", upsert=[{"item_id": "new", "kind": "red"}])
    before = {
        name: retriever.tower("user")(retriever.tower("user").pack({name: [["new"]]}, size=1))
        for name in NAMES
    }
    retriever.apply(change)
    for name, vector in before.items():
        packed = retriever.tower("user").pack({name: [["new"]]}, size=1)
        is_same = np.allclose(retriever.tower("user")(packed), vector)
        assert is_same == (name == "carts")
    user = {"user_id": 999, "views": ["item 1"], "carts": ["item 2"], "history": ["item 3"]}
    retriever.apply(retriever.change("user", upsert=[user]))
    found = retriever.retrieve("u2i", id=999, k=N_ITEMS + 1, exclude_seen=True)
    assert {"item 2", "item 3"}.isdisjoint(found["id"])
    assert "item 1" in set(found["id"])
