"""The job that adds a ranker to a version, and the answers of both stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from pipelines.candidates.answer import CandidateTable
from pipelines.candidates.settings import load_settings
from pipelines.config import RunConfig
from pipelines.ranking.draw_examples import draw, held_out_events
from pipelines.ranking.rank import rank
from serving.retrieval.retriever import Retriever
from serving.version.store import Store
from tests.made_once import made_once
from tests.pipelines.conftest import Tiny
from tests.serving.server.api_support import running_api
from tests.serving.server.tf_serving.predict_support import grpc_channel
from towers.errors import ConfigError, DataError, QueryError

pytestmark = pytest.mark.slow

CHANGES: dict[str, Any] = {
    "rank": {
        "model": {"kind": "fwfm", "embedding_dim": 4},
        "crosses": [{"user": "city", "item": "tags", "buckets": 50}],
        "candidates": 20,
        "epochs": 4,
        "batch_size": 32,
        "learning_rate": 0.01,
        "k": 5,
    }
}
USER = 2**40 + 5


@pytest.fixture(scope="session")
def ranked(
    tiny: Tiny, published: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A models directory whose current version has a ranker; the version before has none."""

    def make(folder: Path) -> None:
        shutil.copytree(published[0], folder / "models", symlinks=True)
        rank(tiny.config(**CHANGES), folder / "models", frames=tiny.tables, promote="always")

    return made_once(tmp_path_factory, "ranked", make) / "models"


@pytest.fixture(scope="session")
def retriever(ranked: Path) -> Retriever:
    return Retriever.open(ranked)


def test_the_version_is_the_one_before_with_a_ranker(ranked: Path, retriever: Retriever) -> None:
    store = Store(ranked)
    before = Retriever(store.open(retriever.bundle.manifest.parent_version))
    assert retriever.version == store.versions()[-1] > before.version
    assert "rank" in retriever.bundle.models and "rank" not in before.bundle.models
    found, expected = (one.retrieve("u2i", id=USER, k=8) for one in (retriever, before))
    assert found.equals(expected)
    assert (ranked / "models/rank" / str(retriever.version)).is_symlink()
    assert 'name: "rank"' in (ranked / "models.config").read_text(encoding="utf-8")
    with pytest.raises(QueryError, match="has no ranker; run fm-recall rank"):
        before.recommend(id=USER)
    figures = json.loads((retriever.bundle.path / "ranker.json").read_text(encoding="utf-8"))
    gate = figures["figures"]["validation"]
    assert figures["accepted"] == (gate["ranker"]["ndcg@5"] > gate["recall"]["ndcg@5"])
    assert 0.0 < gate["ranker"]["auc"] < 1.0


def test_two_stages_order_what_one_finds(retriever: Retriever) -> None:
    found = retriever.recommend(id=USER, k=6, exclude_seen=True)
    first = retriever.retrieve("u2i", id=USER, k=20, exclude_seen=True)
    assert found["score"].is_monotonic_decreasing
    by_rank = first.iloc[found["recall_rank"].to_numpy() - 1]
    assert found["id"].tolist() == by_rank["id"].tolist()
    np.testing.assert_allclose(found["recall_score"], by_rank["score"], rtol=1e-6)
    assert found["recall_rank"].tolist() != [1, 2, 3, 4, 5, 6]
    everyone = retriever.recommend(id=USER, k=20, exclude_seen=True)
    assert set(everyone["id"]) == set(first["id"])
    new = retriever.recommend(features={"city": "Rome", "history": ["item 1 é"]}, k=3)
    assert len(new) == 3
    with pytest.raises(QueryError, match="k"):
        retriever.recommend(id=USER, k=0)


def test_a_saved_model_scores_pairs_of_raw_features(ranked: Path, retriever: Retriever) -> None:
    """Loaded by stock TensorFlow, and asked over gRPC as TF Serving is."""
    found = retriever.recommend(id=USER, k=4)
    model = tf.saved_model.load(str(retriever.bundle.model("rank")))
    history = retriever.parts.items.ids.take(
        retriever.parts.seen.of("user", int(retriever.catalogue("user").rows([USER])[0]))
    )
    n = len(found)
    inputs = {
        "user_history": tf.constant([history.tolist()]),
        "user_city": tf.constant(["Rome"]),
        "user_age": tf.constant(retriever.catalogue("user").show(np.array([5]))["age"], "float32"),
        "item_item_id": tf.constant(found["id"].tolist()),
        "item_tags": tf.constant([list(tags) for tags in found["item.tags"]]),
        "query": tf.zeros([n], tf.int64),
        "item": tf.range(n, dtype=tf.int64),
        "recall": tf.constant(found["recall_score"].to_numpy(np.float32)),
    }
    answer = model.signatures["serving_default"](**inputs)
    np.testing.assert_allclose(answer["scores"], found["score"], rtol=1e-4, atol=1e-5)
    request = PredictRequest(model_spec=ModelSpec(name="rank"))
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
    with grpc_channel(ranked) as channel:
        response = PredictionServiceStub(channel).Predict(request, timeout=60)
    scores = tf.make_ndarray(response.outputs["scores"])
    np.testing.assert_allclose(scores, found["score"], rtol=1e-4, atol=1e-5)


def test_the_server_and_the_command_line_answer_as_python_does(
    ranked: Path, retriever: Retriever, tmp_path: Path, call: Callable[..., Any]
) -> None:
    expected = retriever.recommend(id=USER, k=3, exclude_seen=True)
    body = {"id": USER, "k": 3, "exclude_seen": True, "columns": ["title"]}
    with running_api(ranked, journal=tmp_path / "journal") as api:
        answer = api.post("/v1/recommend", body).json()
        described = api.post("/v1/recommend", {"features": {"city": "Rome"}, "k": 2})
        refused = api.post("/v1/recommend", body | {"candidates": 10**6})
        unknown = api.post("/v1/recommend", {"id": 1})
        kind = api.get("/v1/explorer/schema").json()["ranker"]
        pairs = {"query": [0, 0], "item": [0, 1], "recall": [0.5, 1.0]}
        user = {"user_history": [["item 1 é"]], "user_city": ["Rome"], "user_age": [30.0]}
        items = {"item_item_id": ["item 1 é", "item 2 é"], "item_tags": [["any"], ["any"]]}
        inputs = pairs | user | items
        predicted = api.post("/v1/models/rank:predict", {"inputs": inputs}).json()
        outside = api.post("/v1/models/rank:predict", {"inputs": inputs | {"item": [0, 2]}})
    assert [one["id"] for one in answer["results"]] == expected["id"].tolist()
    assert answer["results"][0]["columns"] == {"title": expected["item.title"][0]}
    assert (answer["ranker"], answer["candidates"], kind) == ("fwfm", 20, "fwfm")
    assert len(described.json()["results"]) == 2
    assert (refused.status_code, unknown.status_code) == (400, 404)
    assert len(predicted["outputs"]) == 2
    assert outside.status_code == 400 and "places from 0 to 1" in outside.text
    given = ("query", "u2i", "--rank", "--json", "-k", 3, "--exclude-seen", "-m", ranked)
    shown = json.loads(call(*given, "--id", USER).out)
    assert [one["id"] for one in shown] == expected["id"].tolist()
    assert shown[0]["recall_rank"] == expected["recall_rank"][0]
    assert call("query", "i2i", "--rank", "-m", ranked, "--id", "item 1 é").code == 2


def test_a_ranker_that_is_no_better_is_not_used(
    ranked: Path, tiny: Tiny, tmp_path: Path, call: Callable[..., Any]
) -> None:
    models = tmp_path / "models"
    shutil.copytree(ranked, models, symlinks=True)
    before = Store(models).current()
    idle = {"rank": CHANGES["rank"] | {"learning_rate": 1e-12, "epochs": 1, "crosses": []}}
    config = tiny.write(tmp_path / "tables", **idle)
    answer = call("rank", config, "-m", models)
    latest = Store(models).versions()[-1]
    accepted = json.loads((models / f"versions/{latest}/ranker.json").read_text())["accepted"]
    assert not accepted
    assert answer.code == 3 and "recall's own order" in answer.err
    assert Store(models).current() == before
    assert not list(models.glob(".rank-*"))


def test_a_sampled_ranker_is_published_and_explained(
    ranked: Path, tiny: Tiny, tmp_path: Path
) -> None:
    """Its parts sum to its score, the pairs within a history among them."""
    pytest.importorskip("myfm")
    models = tmp_path / "models"
    shutil.copytree(ranked, models, symlinks=True)
    model = {"kind": "fm", "embedding_dim": 2}
    sampled = {"rank": CHANGES["rank"] | {"solver": "mcmc", "samples": 3, "model": model}}
    results = rank(tiny.config(**sampled), models, frames=tiny.tables, promote="always")
    retriever = Retriever.open(models, version=results.version)
    best = retriever.recommend(id=USER, k=1)
    found = retriever.explain_rank(source={"id": USER}, item=best["id"][0])
    assert found.score == pytest.approx(best["score"][0], abs=1e-3)
    assert sum(part.value for part in found.parts) == pytest.approx(found.score, abs=1e-3)


def test_lists_and_examples_are_what_users_chose_later(
    tiny: Tiny, retriever: Retriever, prepared: Any
) -> None:
    config: RunConfig = tiny.config(**CHANGES)
    events = held_out_events(prepared, retriever, not_chosen=())
    drawn = draw(events, retriever, None, config=config.rank, seed=0)
    users = [set(part.lists.examples.users.tolist()) for part in drawn.values()]
    assert all(a.isdisjoint(b) for a in users for b in users if a is not b)
    chosen = set(zip(events.users.tolist(), events.items.tolist(), strict=True))
    seen = retriever.parts.seen.matrix
    for part in drawn.values():
        rows = part.lists.examples
        pairs = list(zip(rows.users.tolist(), rows.items.tolist(), strict=True))
        assert [pair in chosen for pair in pairs] == rows.labels.astype(bool).tolist()
        assert not any(seen[pair] for pair in pairs)
    train = drawn["train"].fitting
    assert (train.labels == 0).sum() <= 4 * train.labels.sum()
    with pytest.raises(ConfigError, match=r"rank\.not_chosen"):
        held_out_events(prepared, retriever, not_chosen=["hide"])


def test_too_little_held_out_is_refused(tiny: Tiny, ranked: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(ranked, models, symlinks=True)
    config = tiny.config(**CHANGES, split={"test_fraction": 0.0})
    with pytest.raises(DataError, match=r"split\.test_fraction"):
        rank(config, models, frames=tiny.tables)


def test_candidates_in_bulk_are_ranked_as_one_by_one(retriever: Retriever) -> None:
    described = {"user_id": 7, "city": "Rome", "age": 30.0, "history": ["item 1 é"]}
    known = {"user_id": USER, "city": None, "age": None, "history": None}
    table = pa.Table.from_pylist([known, described])
    changes = {"k": 20, "channels": [{"name": "u2i", "quota": 20}], "rank": True}
    answer = CandidateTable(
        retriever.parts, load_settings(None, changes=changes), schema=table.schema
    )
    frame = answer(table.select(answer.columns)).table.to_pandas()
    del described["user_id"]
    for user, asked in ((USER, {"id": USER}), (7, {"features": described})):
        found = frame[frame["user_id"] == user]
        expected = retriever.recommend(**asked, k=20, exclude_seen=True)
        assert found["item_id"].tolist() == expected["id"].tolist()
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-4, atol=1e-5)
        assert found["rank"].tolist() == list(range(1, 21))


def test_the_parts_of_an_explanation_sum_to_the_score(
    ranked: Path, retriever: Retriever, call: Callable[..., Any]
) -> None:
    best = retriever.recommend(id=USER, k=1)
    found = retriever.explain_rank(source={"id": USER}, item=best["id"][0])
    assert sum(part.value for part in found.parts) == pytest.approx(best["score"][0], abs=1e-4)
    assert found.recall_score == pytest.approx(best["recall_score"][0], abs=1e-4)
    named = {part.fields for part in found.parts}
    assert {("recall",), ("city x tags",), ("city", "tags"), ("history", "item_id")} <= named
    given = ("explain", "--rank", "--json", "-m", ranked, "--user", USER, "--item", best["id"][0])
    shown = json.loads(call(*given).out)
    assert shown["score"] == pytest.approx(found.score)
    parts = sum(part["value"] for part in shown["parts"])
    assert parts + shown["rest"] == pytest.approx(found.score)
